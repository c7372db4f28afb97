"""How orders, their lines, refunds and payments are read (field meanings: Shopify's Admin schema and
captures).
"""

from typing import Any

from sandbox.context import JSON, Context
from sandbox.model import LineItem, Order, Refund, RefundLine
from sandbox.resolve import (
    Read,
    Table,
    always,
    attr,
    bag,
    bag_of,
    gid,
    key,
    many,
    moment,
    number,
    plain_money,
    read,
    scalar_money,
)


def net_payment(order: Order) -> int:
    return order.received - order.refunded


def outstanding(order: Order) -> int:
    return order.current_total - net_payment(order)


def return_status(order: Order) -> str:
    returned = any(line.restock_type == "RETURN" for refund in order.refunds for line in refund.lines)
    return "RETURNED" if returned else "NO_RETURN"


def tax_lines(order: Order) -> list[JSON]:
    rates: dict[float, int] = {}
    for line in order.lines:
        if line.tax_rate:
            rates[line.tax_rate] = rates.get(line.tax_rate, 0) + line.tax
    return [_tax(rate, amount, order) for rate, amount in rates.items()]


def _tax(rate: float, amount: int, of: "Order | LineItem") -> JSON:
    return {"title": "Tax", "rate": rate, "percentage": round(rate * 100, 4), "price": (amount, of.fx)}


def line_taxes(line: LineItem) -> list[JSON]:
    return [_tax(line.tax_rate, line.tax, line)] if line.tax_rate else []


def line_allocations(line: LineItem) -> list[JSON]:
    return [{"amount": (cut, line.fx)} for cut in (line.line_discount, line.order_discount) if cut]


def _unit(total: int, quantity: int) -> int:
    return (total + quantity // 2) // quantity if quantity else 0


def discounted_total(line: LineItem) -> int:
    return line.price * line.quantity - line.line_discount


def line_name(line: LineItem) -> str:
    return f"{line.title} - {line.variant_title}" if line.variant_title else line.title


def transactions(order: Order) -> list[JSON]:
    """The payment, then one refund transaction for each refund that moved money."""
    rows: list[JSON] = []
    if order.payment:
        paid = order.payment
        rows.append(
            {
                "id": paid.id,
                "kind": paid.kind,
                "gateway": paid.gateway,
                "amount": paid.amount,
                "at": paid.created_at,
                "order": order,
            }
        )
    rows += [
        {
            "id": x.transaction_id,
            "kind": "REFUND",
            "gateway": "bogus",
            "amount": x.total,
            "at": x.created_at,
            "order": order,
        }
        for x in order.refunds
        if x.total
    ]
    return rows


def _transaction_at() -> Table:
    from sandbox import clock  # noqa: PLC0415

    return {
        "amountSet": read(lambda row: (row["amount"], row["order"].fx)),
        "createdAt": read(lambda row: clock.utc(row["at"])),
        "gateway": key("gateway"),
        "id": read(lambda row: f"gid://shopify/OrderTransaction/{row['id']}"),
        "kind": key("kind"),
        "order": key("order"),
        "processedAt": read(lambda row: clock.utc(row["at"])),
        "status": always("SUCCESS"),
        "test": read(lambda row: row["order"].test),
    }


def _customer(_args: JSON, context: Context) -> Read:
    customers = context.view.customers
    return lambda order: customers.get(order.customer_id)


def _product(_args: JSON, context: Context) -> Read:
    products = context.view.products
    return lambda line: products.get(line.product_id)


def _variant(_args: JSON, context: Context) -> Read:
    variants = context.view.variants
    return lambda line: variants.get(line.variant_id)


def _limited(function: Read) -> Any:  # a Maker
    """A list field with `first`."""
    return lambda args, _context: lambda of: list(function(of))[: args.get("first")]


def _refund_order(_args: JSON, context: Context) -> Read:
    orders = context.view.orders
    return lambda refund: orders[refund.order_id]


def _presentment_code(_args: JSON, context: Context) -> Read:
    shop = context.view.currency
    return lambda order: order.fx.currency if order.fx else shop


def _line_of(_args: JSON, context: Context) -> Read:
    """A refund line with the line it gives back: `RefundLine` knows only its id."""

    def find(pair: tuple[Refund, RefundLine]) -> LineItem | None:
        order = context.view.orders[pair[0].order_id]
        return next((line for line in order.lines if line.id == pair[1].line_item_id), None)

    return find


def refund_pairs(refund: Refund) -> list[tuple[Refund, RefundLine]]:
    return [(refund, line) for line in refund.lines]


ORDER: Table = {
    "billingAddress": attr("billing_address"),
    "cancelReason": attr("cancel_reason"),
    "cancelledAt": moment("cancelled_at"),
    "closed": read(lambda order: order.closed_at is not None),
    "closedAt": moment("closed_at"),
    "confirmed": attr("confirmed"),
    "createdAt": moment("created_at"),
    "currencyCode": lambda _args, context: lambda _: context.view.currency,
    "currentShippingPriceSet": bag("current_shipping"),
    "currentSubtotalLineItemsQuantity": read(
        lambda order: sum(line.current_quantity for line in order.lines)
    ),
    "currentSubtotalPriceSet": bag("current_subtotal"),
    "currentTotalDiscountsSet": bag("current_discounts"),
    "currentTotalPriceSet": bag("current_total"),
    "currentTotalTaxSet": bag("current_tax"),
    "customer": _customer,
    "customerLocale": attr("customer_locale"),
    "discountCode": attr("discount_code"),
    "discountCodes": read(lambda order: [order.discount_code] if order.discount_code else []),
    "displayFinancialStatus": attr("financial_status"),
    "displayFulfillmentStatus": attr("fulfillment_status"),
    "edited": attr("edited"),
    "email": attr("email"),
    "fullyPaid": read(lambda order: order.received >= order.total),
    "id": gid("Order"),
    "legacyResourceId": number("id"),
    "lineItems": many("lines"),
    "name": attr("name"),
    "netPayment": scalar_money(net_payment),
    "netPaymentSet": bag_of(net_payment),
    "note": attr("note"),
    "number": attr("number"),
    "originalTotalPriceSet": bag("original_total"),
    "paymentGatewayNames": read(lambda order: ["bogus"] if order.payment else []),
    "phone": attr("phone"),
    "presentmentCurrencyCode": _presentment_code,
    "processedAt": moment("processed_at"),
    "refunds": _limited(lambda order: order.refunds),
    "requiresShipping": read(lambda order: any(line.requires_shipping for line in order.lines)),
    "returnStatus": read(return_status),
    "shippingAddress": attr("shipping_address"),
    "shippingLine": read(lambda order: order.shipping_lines[0] if order.shipping_lines else None),
    "shippingLines": many("shipping_lines"),
    "sourceName": attr("source_name"),
    "subtotalLineItemsQuantity": read(lambda order: sum(line.quantity for line in order.lines)),
    "subtotalPrice": scalar_money(lambda order: order.subtotal),
    "subtotalPriceSet": bag("subtotal"),
    "tags": many("tags"),
    "taxLines": read(tax_lines),
    "taxesIncluded": attr("taxes_included"),
    "test": attr("test"),
    "totalDiscounts": scalar_money(lambda order: order.discounts),
    "totalDiscountsSet": bag("discounts"),
    "totalOutstandingSet": bag_of(outstanding),
    "totalPrice": scalar_money(lambda order: order.total),
    "totalPriceSet": bag("total"),
    "totalReceived": scalar_money(lambda order: order.received),
    "totalReceivedSet": bag("received"),
    "totalRefunded": scalar_money(lambda order: order.refunded),
    "totalRefundedSet": bag("refunded"),
    "totalRefundedShippingSet": bag("refunded_shipping"),
    "totalShippingPrice": scalar_money(lambda order: order.shipping),
    "totalShippingPriceSet": bag("shipping"),
    "totalTax": scalar_money(lambda order: order.tax),
    "totalTaxSet": bag("tax"),
    "transactions": _limited(transactions),
    "unpaid": read(lambda order: order.received == 0),
    "updatedAt": moment("updated_at"),
}

LINE_ITEM: Table = {
    "currentQuantity": attr("current_quantity"),
    "discountAllocations": read(line_allocations),
    "discountedTotal": scalar_money(discounted_total),
    "discountedTotalSet": lambda args, _context: (
        lambda line: (
            discounted_total(line) - (line.order_discount if args.get("withCodeDiscounts") else 0),
            line.fx,
        )
    ),
    "discountedUnitPriceAfterAllDiscountsSet": bag_of(
        lambda line: _unit(discounted_total(line) - line.order_discount, line.quantity)
    ),
    "discountedUnitPriceSet": bag_of(lambda line: _unit(discounted_total(line), line.quantity)),
    "id": gid("LineItem"),
    "isGiftCard": attr("gift_card"),
    "name": read(line_name),
    "nonFulfillableQuantity": read(lambda line: line.quantity - line.current_quantity),
    "originalTotal": scalar_money(lambda line: line.price * line.quantity),
    "originalTotalSet": bag_of(lambda line: line.price * line.quantity),
    "originalUnitPrice": scalar_money(lambda line: line.price),
    "originalUnitPriceSet": bag("price"),
    "product": _product,
    "quantity": attr("quantity"),
    "refundableQuantity": attr("current_quantity"),
    "requiresShipping": attr("requires_shipping"),
    "sku": attr("sku"),
    "taxLines": _limited(line_taxes),
    "taxable": attr("taxable"),
    "title": attr("title"),
    "totalDiscount": scalar_money(lambda line: line.line_discount),
    "totalDiscountSet": bag("line_discount"),
    "unfulfilledQuantity": read(lambda line: max(0, line.current_quantity - line.fulfilled_quantity)),
    "variant": _variant,
    "variantTitle": attr("variant_title"),
    "vendor": attr("vendor"),
}

REFUND: Table = {
    "createdAt": moment("created_at"),
    "id": gid("Refund"),
    "legacyResourceId": number("id"),
    "note": attr("note"),
    "order": _refund_order,
    "processedAt": moment("created_at"),
    "refundLineItems": read(refund_pairs),
    "totalRefunded": plain_money(lambda refund: refund.total),
    "totalRefundedSet": bag("total"),
    "updatedAt": moment("created_at"),
}

REFUND_LINE_ITEM: Table = {
    "id": read(lambda pair: f"gid://shopify/RefundLineItem/{pair[1].id}"),
    "lineItem": _line_of,
    "quantity": read(lambda pair: pair[1].quantity),
    "restockType": read(lambda pair: pair[1].restock_type),
    "restocked": read(lambda pair: pair[1].restock_type != "NO_RESTOCK"),
    "subtotal": scalar_money(lambda pair: pair[1].subtotal),
    "subtotalSet": read(lambda pair: (pair[1].subtotal, pair[1].fx)),
    "totalTax": scalar_money(lambda pair: pair[1].tax),
    "totalTaxSet": read(lambda pair: (pair[1].tax, pair[1].fx)),
}

ORDERS: dict[str, Table] = {
    "DiscountAllocation": {"allocatedAmountSet": key("amount")},
    "LineItem": LINE_ITEM,
    "Order": ORDER,
    "OrderTransaction": _transaction_at(),
    "Refund": REFUND,
    "RefundLineItem": REFUND_LINE_ITEM,
    "ShippingLine": {
        "code": attr("code"),
        "custom": always(False),
        "discountedPriceSet": bag("price"),
        "id": gid("ShippingLine"),
        "isRemoved": always(False),
        "originalPriceSet": bag("price"),
        "title": attr("title"),
    },
    "TaxLine": {
        "priceSet": key("price"),
        "rate": key("rate"),
        "ratePercentage": key("percentage"),
        "title": key("title"),
    },
}
