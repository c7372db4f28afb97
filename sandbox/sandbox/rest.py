"""Webhook bodies, shaped like the REST resources they descend from (Shopify's documented samples, 2026-07).

Numeric ids beside gids, moments with the shop's offset, money as text with its currency's decimals and
again as `*_set`, tags joined by ", ", enums in lower case, `null` for unfulfilled. Customers come without
tags and totals (since 2025-01).
"""

from collections.abc import Callable

from sandbox import clock, money
from sandbox.context import JSON
from sandbox.fields_order import line_name, transactions
from sandbox.model import Address, Customer, LineItem, Order, Presentment, Product, Refund, Variant
from sandbox.store import View

VARIANTS_SHOWN = 100  # beyond this only variant_gids is complete
_FULFILLMENT = {"UNFULFILLED": None, "PARTIALLY_FULFILLED": "partial"}


class Money:
    """Formats amounts of one shop, seen by one buyer."""

    def __init__(self, view: View, fx: Presentment | None) -> None:
        self.currency, self.places, self.fx = view.currency, view.places, fx

    def text(self, minor: int) -> str:
        return money.fixed(minor, self.places)

    def bag(self, minor: int) -> JSON:
        shop = {"amount": self.text(minor), "currency_code": self.currency}
        if self.fx is None:
            return {"shop_money": shop, "presentment_money": shop}
        seen = money.convert(minor, self.fx.rate, self.currency, self.fx.currency)
        text = money.fixed(seen, money.decimals(self.fx.currency))
        return {"shop_money": shop, "presentment_money": {"amount": text, "currency_code": self.fx.currency}}

    def both(self, name: str, minor: int) -> JSON:
        return {name: self.text(minor), f"{name}_set": self.bag(minor)}


def address(of: Address) -> JSON:
    name = " ".join(part for part in (of.first_name, of.last_name) if part)
    return {
        "first_name": of.first_name,
        "address1": of.address1,
        "phone": of.phone,
        "city": of.city,
        "zip": of.zip,
        "province": of.province,
        "country": of.country,
        "last_name": of.last_name,
        "address2": of.address2,
        "company": of.company,
        "latitude": None,
        "longitude": None,
        "name": name,
        "country_code": of.country_code,
        "province_code": of.province_code,
    }


def customer_address(of: Address, customer: Customer, *, default: bool) -> JSON:
    row = {name: value for name, value in address(of).items() if name not in {"latitude", "longitude"}}
    return {"id": of.id, "customer_id": customer.id, **row, "country_name": of.country, "default": default}


def customer(view: View, of: Customer, *, inside_order: bool = False) -> JSON:
    addresses = [customer_address(each, of, default=not index) for index, each in enumerate(of.addresses)]
    return {
        "id": of.id,
        "created_at": clock.local(of.created_at, view.zone),
        "updated_at": clock.local(of.updated_at, view.zone),
        "first_name": of.first_name,
        "last_name": of.last_name,
        "state": of.state.lower(),
        "note": of.note,
        "verified_email": of.verified_email,
        "multipass_identifier": None,
        "tax_exempt": of.tax_exempt,
        "email": of.email,
        "phone": of.phone,
        "currency": view.currency,
        **({} if inside_order else {"addresses": addresses}),
        "tax_exemptions": [],
        "admin_graphql_api_id": f"gid://shopify/Customer/{of.id}",
        **({"default_address": addresses[0]} if addresses else {}),
    }


def purchasing_summary(view: View, of: Customer) -> JSON:
    return {
        "customerId": f"gid://shopify/Customer/{of.id}",
        "numberOfOrders": of.number_of_orders,
        "amountSpent": {"amount": money.fixed(of.amount_spent, view.places), "currencyCode": view.currency},
        "lastOrderId": f"gid://shopify/Order/{of.last_order_id}" if of.last_order_id else None,
        "occurredAt": clock.utc(of.updated_at).replace("Z", ".000Z"),
    }


def customer_tags(of: Customer, tags: list[str]) -> JSON:
    return {
        "customerId": f"gid://shopify/Customer/{of.id}",
        "tags": tags,
        "occurredAt": clock.utc(of.updated_at).replace("Z", ".000Z"),
    }


def tax_lines(rate: float, amount: int, cash: Money) -> list[JSON]:
    if not rate:
        return []
    return [
        {
            "channel_liable": None,
            "price": cash.text(amount),
            "price_set": cash.bag(amount),
            "rate": rate,
            "title": "Tax",
        }
    ]


def line_item(view: View, of: LineItem, cash: Money) -> JSON:
    cuts = [cut for cut in (of.line_discount, of.order_discount) if cut]
    exists = of.product_id in view.products
    return {
        "id": of.id,
        "admin_graphql_api_id": f"gid://shopify/LineItem/{of.id}",
        "attributed_staffs": [],
        "current_quantity": of.current_quantity,
        "fulfillable_quantity": max(0, of.current_quantity - of.fulfilled_quantity),
        "fulfillment_service": "manual",
        "fulfillment_status": "fulfilled" if of.fulfilled_quantity else None,
        "gift_card": of.gift_card,
        "grams": 100,
        "name": line_name(of),
        **_price(of, cash),
        "product_exists": exists,
        "product_id": of.product_id if exists else None,
        "properties": [],
        "quantity": of.quantity,
        "requires_shipping": of.requires_shipping,
        "sales_line_item_group_id": None,
        "sku": of.sku,
        "taxable": of.taxable,
        "title": of.title,
        **cash.both("total_discount", of.line_discount),
        "variant_id": of.variant_id if of.variant_id in view.variants else None,
        "variant_inventory_management": "shopify" if of.variant_id else None,
        "variant_title": of.variant_title,
        "vendor": of.vendor,
        "tax_lines": tax_lines(of.tax_rate, of.tax, cash),
        "duties": [],
        "discount_allocations": [
            {"amount": cash.text(cut), "amount_set": cash.bag(cut), "discount_application_index": index}
            for index, cut in enumerate(cuts)
        ],
    }


def _price(of: LineItem, cash: Money) -> JSON:
    return cash.both("price", of.price)


def refund(view: View, of: Refund, order: Order) -> JSON:
    cash = Money(view, of.fx)
    lines = {line.id: line for line in order.lines}
    moment = clock.local(of.created_at, view.zone)
    return {
        "id": of.id,
        "order_id": order.id,
        "created_at": moment,
        "note": of.note,
        "user_id": None,
        "processed_at": moment,
        "duties": [],
        "total_duties_set": cash.bag(0),
        "return": None,
        "refund_shipping_lines": [
            {
                "id": line.id + 1,
                "shipping_line": {"id": line.id, "title": line.title},
                "subtotal_amount_set": cash.bag(of.shipping),
            }
            for line in order.shipping_lines
            if of.shipping
        ],
        "restock": any(line.restock_type != "NO_RESTOCK" for line in of.lines),
        "admin_graphql_api_id": f"gid://shopify/Refund/{of.id}",
        "order_adjustments": [],
        "refund_line_items": [
            {
                "id": line.id,
                "quantity": line.quantity,
                "line_item_id": line.line_item_id,
                "location_id": None,
                "restock_type": line.restock_type.lower(),
                "subtotal": float(cash.text(line.subtotal)),
                "total_tax": float(cash.text(line.tax)),
                "subtotal_set": cash.bag(line.subtotal),
                "total_tax_set": cash.bag(line.tax),
                "line_item": line_item(view, lines[line.line_item_id], cash),
            }
            for line in of.lines
        ],
        "transactions": [
            _transaction(view, row, order, cash)
            for row in transactions(order)
            if row["id"] == of.transaction_id
        ],
    }


def _transaction(view: View, row: JSON, order: Order, cash: Money) -> JSON:
    moment = clock.local(row["at"], view.zone)
    return {
        "id": row["id"],
        "order_id": order.id,
        "kind": row["kind"].lower(),
        "gateway": row["gateway"],
        "status": "success",
        "message": None,
        "created_at": moment,
        "test": order.test,
        "authorization": None,
        "location_id": None,
        "user_id": None,
        "parent_id": order.payment.id if order.payment else None,
        "processed_at": moment,
        "device_id": None,
        "error_code": None,
        "source_name": "web",
        "receipt": {},
        "amount": cash.text(row["amount"]),
        "currency": view.currency,
        "payment_id": f"{order.name}.",
        "total_unsettled_set": cash.bag(0),
        "manual_payment_gateway": False,
        "amount_rounding": None,
        "admin_graphql_api_id": f"gid://shopify/OrderTransaction/{row['id']}",
    }


def order(view: View, of: Order) -> JSON:
    cash = Money(view, of.fx)
    at: Callable[[int | None], str | None] = lambda moment: clock.local(moment, view.zone)  # noqa: E731
    buyer = view.customers.get(of.customer_id or 0)
    gross = sum(line.price * line.quantity for line in of.lines)
    return {
        "id": of.id,
        "admin_graphql_api_id": f"gid://shopify/Order/{of.id}",
        "app_id": 580111,
        "browser_ip": None,
        "buyer_accepts_marketing": False,
        "cancel_reason": of.cancel_reason and of.cancel_reason.lower(),
        "cancelled_at": at(of.cancelled_at),
        "cart_token": None,
        "checkout_token": None,
        "client_details": None,
        "closed_at": at(of.closed_at),
        "confirmation_number": f"SB{of.number:07d}",
        "confirmed": of.confirmed,
        "contact_email": of.email,
        "created_at": at(of.created_at),
        "currency": view.currency,
        "current_shipping_price_set": cash.bag(of.current_shipping),
        **cash.both("current_subtotal_price", of.current_subtotal),
        "current_total_additional_fees_set": None,
        **cash.both("current_total_discounts", of.current_discounts),
        "current_total_duties_set": None,
        **cash.both("current_total_price", of.current_total),
        **cash.both("current_total_tax", of.current_tax),
        "customer_locale": of.customer_locale,
        "device_id": None,
        "discount_codes": [
            {"code": of.discount_code, "amount": cash.text(of.discounts), "type": "fixed_amount"}
        ]
        if of.discount_code
        else [],
        "duties_included": False,
        "email": of.email or "",
        "estimated_taxes": False,
        "financial_status": of.financial_status.lower(),
        "fulfillment_status": _FULFILLMENT.get(of.fulfillment_status, of.fulfillment_status.lower()),
        "landing_site": None,
        "landing_site_ref": None,
        "location_id": None,
        "merchant_business_entity_id": "MTU0ODM4MDAwOQ",
        "merchant_of_record_app_id": None,
        "name": of.name,
        "note": of.note,
        "note_attributes": [],
        "number": of.number - 1000,
        "order_number": of.number,
        "order_status_url": f"https://{view.shop}/548380009/orders/{of.id:x}/authenticate?key=a&b={of.number}",
        "original_total_additional_fees_set": None,
        "original_total_duties_set": None,
        "payment_gateway_names": ["bogus"] if of.payment else [],
        "phone": of.phone,
        "po_number": None,
        "presentment_currency": of.fx.currency if of.fx else view.currency,
        "processed_at": at(of.processed_at),
        "reference": None,
        "referring_site": None,
        "source_identifier": None,
        "source_name": of.source_name,
        "source_url": None,
        **cash.both("subtotal_price", of.subtotal),
        "tags": ", ".join(of.tags),
        "tax_exempt": False,
        "tax_lines": _order_taxes(of, cash),
        "taxes_included": of.taxes_included,
        "test": of.test,
        "token": f"{of.id:x}",
        "total_cash_rounding_payment_adjustment_set": cash.bag(0),
        "total_cash_rounding_refund_adjustment_set": cash.bag(0),
        **cash.both("total_discounts", of.discounts),
        **cash.both("total_line_items_price", gross),
        "total_outstanding": cash.text(of.current_total - of.received + of.refunded),
        **cash.both("total_price", of.total),
        "total_shipping_price_set": cash.bag(of.shipping),
        **cash.both("total_tax", of.tax),
        "total_tip_received": "0.00",
        "total_weight": 0,
        "updated_at": at(of.updated_at),
        "user_id": None,
        "billing_address": address(of.billing_address) if of.billing_address else None,
        "customer": customer(view, buyer, inside_order=True) if buyer else None,
        "discount_applications": [],
        "fulfillments": [],
        "line_items": [line_item(view, line, cash) for line in of.lines],
        "payment_terms": None,
        "refunds": [refund(view, each, of) for each in of.refunds],
        "shipping_address": address(of.shipping_address) if of.shipping_address else None,
        "shipping_lines": [
            {
                "id": line.id,
                "carrier_identifier": None,
                "code": line.code,
                "current_discounted_price_set": cash.bag(of.current_shipping),
                **cash.both("discounted_price", line.price),
                "is_removed": False,
                "phone": None,
                **cash.both("price", line.price),
                "requested_fulfillment_service_id": None,
                "source": "shopify",
                "title": line.title,
                "tax_lines": [],
                "discount_allocations": [],
            }
            for line in of.shipping_lines
        ],
        "returns": [],
        "line_item_groups": [],
    }


def _order_taxes(of: Order, cash: Money) -> list[JSON]:
    rates: dict[float, int] = {}
    for line in of.lines:
        if line.tax_rate:
            rates[line.tax_rate] = rates.get(line.tax_rate, 0) + line.tax
    return [row for rate, amount in rates.items() for row in tax_lines(rate, amount, cash)]


def product(view: View, of: Product) -> JSON:
    variants = [view.variants[id_] for id_ in of.variant_ids]
    return {
        "admin_graphql_api_id": f"gid://shopify/Product/{of.id}",
        "body_html": of.description_html,
        "created_at": clock.local(of.created_at, view.zone),
        "handle": of.handle,
        "id": of.id,
        "product_type": of.product_type,
        "published_at": clock.local(of.published_at, view.zone),
        "template_suffix": None,
        "title": of.title,
        "updated_at": clock.local(of.updated_at, view.zone),
        "vendor": of.vendor,
        "status": of.status.lower(),
        "published_scope": "web",
        "tags": ", ".join(of.tags),
        "variants": [variant(view, each) for each in variants[:VARIANTS_SHOWN]],
        "options": [
            {
                "id": of.id + index + 1,
                "name": name,
                "product_id": of.id,
                "position": index + 1,
                "values": list(dict.fromkeys(each.options[index] for each in variants)),
            }
            for index, name in enumerate(of.option_names)
        ],
        "images": [],
        "image": None,
        "media": [],
        "variant_gids": [
            {
                "admin_graphql_api_id": f"gid://shopify/ProductVariant/{each.id}",
                "updated_at": clock.utc(each.updated_at).replace("Z", ".000Z"),
            }
            for each in variants
        ],
        "has_variants_that_requires_components": False,
        "category": None,
    }


def variant(view: View, of: Variant) -> JSON:
    was = of.compare_at_price
    options = [*of.options, None, None, None]
    return {
        "admin_graphql_api_id": f"gid://shopify/ProductVariant/{of.id}",
        "barcode": of.barcode,
        "compare_at_price": None if was is None else money.fixed(was, view.places),
        "created_at": clock.local(of.created_at, view.zone),
        "id": of.id,
        "inventory_policy": of.inventory_policy.lower(),
        "position": of.position,
        "price": money.fixed(of.price, view.places),
        "product_id": of.product_id,
        "sku": of.sku,
        "taxable": of.taxable,
        "title": of.title,
        "updated_at": clock.local(of.updated_at, view.zone),
        "option1": options[0],
        "option2": options[1],
        "option3": options[2],
        "image_id": None,
        "inventory_item_id": of.inventory_item_id,
        "inventory_quantity": of.inventory_quantity,
        "old_inventory_quantity": of.inventory_quantity,
    }
