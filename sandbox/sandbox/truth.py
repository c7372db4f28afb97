"""What the tables must hold when a copy of this shop is right: one row per object, plain values.

Ids are integers, money exact decimal strings, moments ISO UTC, enums upper case, tags a list; nothing is
rounded, renamed or left out. A line item loses its product when that is deleted, as in Shopify's GraphQL.
"""

from collections.abc import Callable, Iterator

from sandbox import clock, money
from sandbox.context import JSON
from sandbox.fields_order import discounted_total
from sandbox.model import Customer, Order, Product
from sandbox.store import View


def order_row(view: View, order: Order) -> JSON:
    def cash(minor: int) -> str:
        return money.fixed(minor, view.places)

    return {
        "id": order.id,
        "name": order.name,
        "created_at": clock.utc(order.created_at),
        "updated_at": clock.utc(order.updated_at),
        "processed_at": clock.utc(order.processed_at),
        "cancelled_at": clock.utc_or_none(order.cancelled_at),
        "closed_at": clock.utc_or_none(order.closed_at),
        "cancel_reason": order.cancel_reason,
        "financial_status": order.financial_status,
        "fulfillment_status": order.fulfillment_status,
        "currency": view.currency,
        "presentment_currency": order.fx.currency if order.fx else view.currency,
        "total_price": cash(order.total),
        "subtotal_price": cash(order.subtotal),
        "total_tax": cash(order.tax),
        "total_discounts": cash(order.discounts),
        "total_shipping": cash(order.shipping),
        "total_refunded": cash(order.refunded),
        "current_total_price": cash(order.current_total),
        "current_subtotal_price": cash(order.current_subtotal),
        "current_total_tax": cash(order.current_tax),
        "current_total_discounts": cash(order.current_discounts),
        "customer_id": order.customer_id if order.customer_id in view.customers else None,
        "email": order.email,
        "phone": order.phone,
        "note": order.note,
        "source_name": order.source_name,
        "tags": list(order.tags),
        "test": order.test,
    }


def line_rows(view: View, order: Order) -> Iterator[JSON]:
    for line in order.lines:
        cash: Callable[[int], str] = lambda minor: money.fixed(minor, view.places)  # noqa: E731
        total = discounted_total(line)
        yield {
            "id": line.id,
            "order_id": order.id,
            "product_id": line.product_id if line.product_id in view.products else None,
            "variant_id": line.variant_id if line.variant_id in view.variants else None,
            "title": line.title,
            "variant_title": line.variant_title,
            "sku": line.sku,
            "vendor": line.vendor,
            "quantity": line.quantity,
            "current_quantity": line.current_quantity,
            "original_unit_price": cash(line.price),
            "discounted_unit_price": cash((total + line.quantity // 2) // line.quantity),
            "original_total": cash(line.price * line.quantity),
            "discounted_total": cash(total),
            "total_discount": cash(line.line_discount),
            "taxable": line.taxable,
            "requires_shipping": line.requires_shipping,
        }


def refund_rows(view: View, order: Order) -> Iterator[JSON]:
    for refund in order.refunds:
        yield {
            "id": refund.id,
            "order_id": order.id,
            "created_at": clock.utc(refund.created_at),
            "total_refunded": money.fixed(refund.total, view.places),
            "note": refund.note,
        }


def refund_line_rows(view: View, order: Order) -> Iterator[JSON]:
    for refund in order.refunds:
        for line in refund.lines:
            yield {
                "id": line.id,
                "refund_id": refund.id,
                "order_id": order.id,
                "line_item_id": line.line_item_id,
                "quantity": line.quantity,
                "subtotal": money.fixed(line.subtotal, view.places),
                "total_tax": money.fixed(line.tax, view.places),
                "restock_type": line.restock_type,
            }


def customer_row(view: View, customer: Customer) -> JSON:
    return {
        "id": customer.id,
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "email": customer.email,
        "phone": customer.phone,
        "state": customer.state,
        "tags": list(customer.tags),
        "note": customer.note,
        "number_of_orders": customer.number_of_orders,
        "amount_spent": money.fixed(customer.amount_spent, view.places),
        "currency": view.currency,
        "verified_email": customer.verified_email,
        "tax_exempt": customer.tax_exempt,
        "created_at": clock.utc(customer.created_at),
        "updated_at": clock.utc(customer.updated_at),
    }


def product_row(_view: View, product: Product) -> JSON:
    return {
        "id": product.id,
        "title": product.title,
        "handle": product.handle,
        "vendor": product.vendor,
        "product_type": product.product_type,
        "status": product.status,
        "tags": list(product.tags),
        "published_at": clock.utc_or_none(product.published_at),
        "created_at": clock.utc(product.created_at),
        "updated_at": clock.utc(product.updated_at),
        "total_inventory": product.total_inventory,
    }


def variant_rows(view: View, product: Product) -> Iterator[JSON]:
    for variant in (view.variants[id_] for id_ in product.variant_ids):
        was = variant.compare_at_price
        yield {
            "id": variant.id,
            "product_id": product.id,
            "title": variant.title,
            "sku": variant.sku,
            "barcode": variant.barcode,
            "price": money.fixed(variant.price, view.places),
            "compare_at_price": None if was is None else money.fixed(was, view.places),
            "position": variant.position,
            "inventory_quantity": variant.inventory_quantity,
            "inventory_item_id": variant.inventory_item_id,
            "taxable": variant.taxable,
            "created_at": clock.utc(variant.created_at),
            "updated_at": clock.utc(variant.updated_at),
        }


TABLES: dict[str, Callable[[View], Iterator[JSON]]] = {
    "orders": lambda view: (order_row(view, order) for order in view.orders.values()),
    "order_line_items": lambda view: (
        row for order in view.orders.values() for row in line_rows(view, order)
    ),
    "refunds": lambda view: (row for order in view.orders.values() for row in refund_rows(view, order)),
    "refund_line_items": lambda view: (
        row for order in view.orders.values() for row in refund_line_rows(view, order)
    ),
    "customers": lambda view: (customer_row(view, customer) for customer in view.customers.values()),
    "products": lambda view: (product_row(view, product) for product in view.products.values()),
    "product_variants": lambda view: (
        row for product in view.products.values() for row in variant_rows(view, product)
    ),
}
SUMS = {
    "orders": (
        "total_price",
        "current_total_price",
        "total_refunded",
        "total_tax",
        "total_discounts",
        "subtotal_price",
    ),
    "order_line_items": ("quantity", "current_quantity", "original_total", "discounted_total"),
    "refunds": ("total_refunded",),
    "refund_line_items": ("quantity", "subtotal", "total_tax"),
    "customers": ("number_of_orders", "amount_spent"),
    "products": ("total_inventory",),
    "product_variants": ("price", "inventory_quantity"),
}


def totals(view: View) -> JSON:
    from decimal import Decimal  # noqa: PLC0415

    found: JSON = {}
    for table, rows in TABLES.items():
        sums, count = dict.fromkeys(SUMS[table], Decimal(0)), 0
        for row in rows(view):
            count += 1
            for name in sums:
                sums[name] += Decimal(row[name])
        found[table] = {"count": count, "sums": {name: str(total) for name, total in sums.items()}}
    return found
