"""Pure: what a webhook says, as staged rows and effects.

    orders/* products/* customers/* refunds/create    -> rows
    */delete, customers/merge                         -> a tombstone
    bulk_operations/finish                            -> BulkOver
    app/uninstalled, app/scopes_update                -> Uninstalled, ScopesChanged
    customers/data_request, customers/redact, shop/redact -> ComplianceRequest (and what must be erased)

Payloads have the shape of Shopify's old REST API: numeric ids beyond 2^53, money as strings with two
decimals, tags in one string, enums in lower case. Rows have the shape of the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, TypeAlias

import msgspec

from shared.errors import BadPayloadError
from shared.rows import (
    CustomerRow,
    CustomerSummaryRow,
    CustomerTagsRow,
    DeletionRow,
    LineItemRow,
    OrderRow,
    ProductRow,
    RedactionRow,
    RefundLineItemRow,
    RefundReadRow,
    RefundRow,
    Row,
    VariantRow,
)
from shared.texts import Amount, Time

COMPLIANCE_TOPICS = {"customers/data_request", "customers/redact", "shop/redact"}


@dataclass(frozen=True)
class BulkOver:
    """A bulk operation ended; `status` in GraphQL's upper case."""

    gid: str
    status: str


@dataclass(frozen=True)
class Uninstalled:
    """The app was removed from the shop; its token is dead."""


@dataclass(frozen=True)
class ScopesChanged:
    """The scopes that are granted now."""

    scopes: tuple[str, ...]


@dataclass(frozen=True)
class ComplianceRequest:
    """A privacy request: Shopify's ids of who and what is meant."""

    subject: dict[str, Any]


@dataclass(frozen=True)
class Incomplete:
    """The payload leaves out part of the object: it must be read from Shopify."""


Effect: TypeAlias = BulkOver | Uninstalled | ScopesChanged | ComplianceRequest | Incomplete


@dataclass(frozen=True)
class Change:
    """What one webhook brings."""

    rows: list[Row] = field(default_factory=list)
    effect: Effect | None = None


class _Money(msgspec.Struct):
    amount: Amount


class _MoneySet(msgspec.Struct):
    shop_money: _Money


class _Id(msgspec.Struct):
    id: int


class _Transaction(msgspec.Struct):
    kind: str
    status: str
    amount: Amount


class _RefundLine(msgspec.Struct):
    id: int
    line_item_id: int
    quantity: int
    subtotal_set: _MoneySet | None = None
    total_tax_set: _MoneySet | None = None
    restock_type: str | None = None


class _Refund(msgspec.Struct):
    id: int
    order_id: int
    created_at: Time | None = None
    note: str | None = None
    refund_line_items: list[_RefundLine] = []
    transactions: list[_Transaction] = []


class _LineItem(msgspec.Struct):
    id: int
    quantity: int
    price: Amount
    title: str | None = None
    current_quantity: int | None = None
    product_id: int | None = None
    variant_id: int | None = None
    variant_title: str | None = None
    sku: str | None = None
    vendor: str | None = None
    total_discount: Amount = "0"
    requires_shipping: bool | None = None
    taxable: bool | None = None
    gift_card: bool | None = None


class _Order(msgspec.Struct):
    id: int
    updated_at: Time
    name: str | None = None
    created_at: Time | None = None
    processed_at: Time | None = None
    cancelled_at: Time | None = None
    closed_at: Time | None = None
    cancel_reason: str | None = None
    financial_status: str | None = None
    fulfillment_status: str | None = None
    currency: str | None = None
    presentment_currency: str | None = None
    total_price: Amount | None = None
    subtotal_price: Amount | None = None
    total_tax: Amount | None = None
    total_discounts: Amount | None = None
    total_shipping_price_set: _MoneySet | None = None
    current_total_price: Amount | None = None
    current_subtotal_price: Amount | None = None
    current_total_tax: Amount | None = None
    current_total_discounts: Amount | None = None
    customer: _Id | None = None
    email: str | None = None
    phone: str | None = None
    note: str | None = None
    source_name: str | None = None
    tags: str = ""
    test: bool | None = None
    taxes_included: bool | None = None
    line_items: list[_LineItem] = []
    refunds: list[_Refund] = []


class _Customer(msgspec.Struct):
    id: int
    updated_at: Time
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    phone: str | None = None
    state: str | None = None
    note: str | None = None
    tags: str | None = None
    verified_email: bool | None = None
    tax_exempt: bool | None = None
    created_at: Time | None = None
    currency: str | None = None


class _AmountSpent(msgspec.Struct, rename="camel"):
    amount: Amount
    currency_code: str


class _PurchasingSummary(msgspec.Struct, rename="camel"):
    customer_id: str
    number_of_orders: int
    amount_spent: _AmountSpent


class _CustomerTags(msgspec.Struct, rename="camel"):
    customer_id: str
    tags: list[str]


class _Merge(msgspec.Struct):
    status: str
    admin_graphql_api_customer_deleted_id: str


class _VariantGid(msgspec.Struct):
    admin_graphql_api_id: str


class _Variant(msgspec.Struct):
    id: int
    title: str | None = None
    sku: str | None = None
    barcode: str | None = None
    price: Amount | None = None
    compare_at_price: Amount | None = None
    position: int | None = None
    inventory_quantity: int | None = None
    inventory_item_id: int | None = None
    taxable: bool | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class _Product(msgspec.Struct):
    id: int
    updated_at: Time
    title: str | None = None
    handle: str | None = None
    vendor: str | None = None
    product_type: str | None = None
    status: str | None = None
    tags: str = ""
    published_at: Time | None = None
    created_at: Time | None = None
    variants: list[_Variant] = []
    variant_gids: list[_VariantGid] = []


class _BulkFinish(msgspec.Struct):
    admin_graphql_api_id: str
    status: str


class _ScopesUpdate(msgspec.Struct):
    current: list[str]


class _CustomerRequest(msgspec.Struct):
    customer: _Id | None = None
    orders_to_redact: list[int] = []
    orders_requested: list[int] = []
    data_request: _Id | None = None


def parse(topic: str, body: bytes, sent_at: str, ordinal: int) -> Change:
    """What the webhook says; BadPayloadError, naming the field, if it is not what the topic promises.

    `sent_at`: the delivery's `X-Shopify-Triggered-At`. `ordinal`: unique among deliveries that are staged
    together. A topic that we do not know is an empty change.
    """
    reader = READERS.get(topic)
    if reader is None:
        return Change()
    struct, read = reader
    try:
        return read(msgspec.json.decode(body, type=struct), sent_at, ordinal)
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadPayloadError(f"{topic}: {error}") from error


def _order(order: _Order, sent_at: str, ordinal: int) -> Change:
    refunds = [row for refund in order.refunds for row in _refund_rows(refund, sent_at, ordinal)]
    row = OrderRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=order.id,
        name=order.name,
        created_at=order.created_at,
        updated_at=order.updated_at,
        processed_at=order.processed_at,
        cancelled_at=order.cancelled_at,
        closed_at=order.closed_at,
        cancel_reason=_upper(order.cancel_reason),
        financial_status=_upper(order.financial_status),
        fulfillment_status=_FULFILLMENT.get(order.fulfillment_status, _upper(order.fulfillment_status)),
        currency=order.currency,
        presentment_currency=order.presentment_currency,
        total_price=order.total_price,
        subtotal_price=order.subtotal_price,
        total_tax=order.total_tax,
        total_discounts=order.total_discounts,
        total_shipping=_amount(order.total_shipping_price_set),
        total_refunded=str(sum((_refunded(refund) for refund in order.refunds), Decimal(0))),
        current_total_price=order.current_total_price,
        current_subtotal_price=order.current_subtotal_price,
        current_total_tax=order.current_total_tax,
        current_total_discounts=order.current_total_discounts,
        customer_id=order.customer.id if order.customer else None,
        email=order.email or None,  # REST writes a guest's missing address as an empty text
        phone=order.phone,
        note=order.note,
        source_name=order.source_name,
        tags=_tags(order.tags),
        test=order.test,
        taxes_included=order.taxes_included,
    )
    return Change(
        [row, *(_line_item(line, order.id, sent_at, ordinal) for line in order.line_items), *refunds]
    )


# REST has no word for an order of which nothing was sent, and another one for a part.
_FULFILLMENT: dict[str | None, str] = {None: "UNFULFILLED", "partial": "PARTIALLY_FULFILLED"}


def _line_item(line: _LineItem, order_id: int, sent_at: str, ordinal: int) -> LineItemRow:
    price, quantity = _money(line.price), line.quantity
    total = price * quantity
    discounted = total - _money(line.total_discount)
    return LineItemRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=line.id,
        order_id=order_id,
        product_id=line.product_id,
        variant_id=line.variant_id,
        title=line.title,
        variant_title=line.variant_title,
        sku=line.sku,
        vendor=line.vendor,
        quantity=quantity,
        current_quantity=line.current_quantity,
        original_unit_price=line.price,
        discounted_unit_price=str(_unit_price(discounted, quantity, price)),
        original_total=str(total),
        discounted_total=str(discounted),
        requires_shipping=line.requires_shipping,
        taxable=line.taxable,
        is_gift_card=line.gift_card,
    )


def _unit_price(total: Decimal, quantity: int, price: Decimal) -> Decimal:
    """A line's discounted price for one, to as many decimals as its price has; half a cent rounds up."""
    return (total / quantity).quantize(price, ROUND_HALF_UP) if quantity else price


def _lone_refund(refund: _Refund, sent_at: str, _: int) -> Change:
    return Change(_refund_rows(refund, sent_at, None))


def _refund_rows(refund: _Refund, sent_at: str, ordinal: int | None) -> list[Row]:
    row = RefundRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=refund.id,
        order_id=refund.order_id,
        created_at=refund.created_at,
        total_refunded=str(_refunded(refund)),
        note=refund.note,
    )
    lines = [
        RefundLineItemRow(
            ordinal=ordinal,
            sent_at=sent_at,
            id=line.id,
            refund_id=refund.id,
            order_id=refund.order_id,
            line_item_id=line.line_item_id,
            quantity=line.quantity,
            subtotal=_amount(line.subtotal_set),
            total_tax=_amount(line.total_tax_set),
            restock_type=_upper(line.restock_type),
        )
        for line in refund.refund_line_items
    ]
    return [row, *lines, RefundReadRow(sent_at, refund.id)]


def _refunded(refund: _Refund) -> Decimal:
    """Money that really went back: the successful refund transactions."""
    return sum(
        (_money(t.amount) for t in refund.transactions if t.kind == "refund" and t.status == "success"),
        Decimal(0),
    )


def _customer(customer: _Customer, sent_at: str, ordinal: int) -> Change:
    row = CustomerRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=customer.id,
        first_name=customer.first_name,
        last_name=customer.last_name,
        email=customer.email,
        phone=customer.phone,
        state=_upper(customer.state),
        note=customer.note,
        tags=None if customer.tags is None else _tags(customer.tags),
        number_of_orders=None,
        amount_spent=None,
        currency=None,
        verified_email=customer.verified_email,
        tax_exempt=customer.tax_exempt,
        created_at=customer.created_at,
        updated_at=customer.updated_at,
    )
    return Change([row])


def _new_customer(customer: _Customer, sent_at: str, ordinal: int) -> Change:
    """`customers/create` leaves the totals out as well, but a new customer's are known: none yet."""
    change = _customer(customer, sent_at, ordinal)
    return Change([*change.rows, CustomerSummaryRow(sent_at, customer.id, 0, "0", customer.currency or "")])


def _purchasing_summary(summary: _PurchasingSummary, sent_at: str, _: int) -> Change:
    row = CustomerSummaryRow(
        sent_at=sent_at,
        id=_numeric_id(summary.customer_id),
        number_of_orders=summary.number_of_orders,
        amount_spent=summary.amount_spent.amount,
        currency=summary.amount_spent.currency_code,
    )
    return Change([row])


def _tags_added(change: _CustomerTags, sent_at: str, _: int) -> Change:
    return Change([CustomerTagsRow(sent_at, _numeric_id(change.customer_id), change.tags, [])])


def _tags_removed(change: _CustomerTags, sent_at: str, _: int) -> Change:
    return Change([CustomerTagsRow(sent_at, _numeric_id(change.customer_id), [], change.tags)])


def _merge(merge: _Merge, sent_at: str, _: int) -> Change:
    if merge.status != "completed":
        return Change()
    return Change(
        [DeletionRow(sent_at, "customers", _numeric_id(merge.admin_graphql_api_customer_deleted_id))]
    )


def _product(product: _Product, sent_at: str, ordinal: int) -> Change:
    if len(product.variant_gids) > len(product.variants):  # Shopify cuts the list of many variants short
        return Change(effect=Incomplete())
    row = ProductRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=product.id,
        title=product.title,
        handle=product.handle,
        vendor=product.vendor,
        product_type=product.product_type,
        status=_upper(product.status),
        tags=_tags(product.tags),
        published_at=product.published_at,
        created_at=product.created_at,
        updated_at=product.updated_at,
        total_inventory=None,
    )
    return Change([row, *(_variant(variant, product.id, sent_at, ordinal) for variant in product.variants)])


def _variant(variant: _Variant, product_id: int, sent_at: str, ordinal: int) -> VariantRow:
    return VariantRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=variant.id,
        product_id=product_id,
        title=variant.title,
        sku=variant.sku,
        barcode=variant.barcode,
        price=variant.price,
        compare_at_price=variant.compare_at_price,
        position=variant.position,
        inventory_quantity=variant.inventory_quantity,
        inventory_item_id=variant.inventory_item_id,
        inventory_tracked=None,
        taxable=variant.taxable,
        created_at=variant.created_at,
        updated_at=variant.updated_at,
    )


def _deletion(resource: str) -> Callable[[_Id, str, int], Change]:
    def read(deleted: _Id, sent_at: str, _: int) -> Change:
        return Change([DeletionRow(sent_at, resource, deleted.id)])

    return read


def _bulk_finish(finish: _BulkFinish, _: str, __: int) -> Change:
    return Change(effect=BulkOver(finish.admin_graphql_api_id, finish.status.upper()))


def _uninstalled(_: object, __: str, ___: int) -> Change:
    return Change(effect=Uninstalled())


def _scopes(update: _ScopesUpdate, _: str, __: int) -> Change:
    return Change(effect=ScopesChanged(tuple(sorted(update.current))))


def _data_request(request: _CustomerRequest, _: str, __: int) -> Change:
    return Change(effect=ComplianceRequest(_subject(request)))


def _redact_customer(request: _CustomerRequest, sent_at: str, _: int) -> Change:
    customer_id = request.customer.id if request.customer else None
    row = RedactionRow(sent_at, customer_id, request.orders_to_redact, whole_shop=False)
    return Change([row], ComplianceRequest(_subject(request)))


def _redact_shop(_: object, sent_at: str, __: int) -> Change:
    row = RedactionRow(sent_at, None, [], whole_shop=True)
    return Change([row], ComplianceRequest({"shop": True}))


def _subject(request: _CustomerRequest) -> dict[str, Any]:
    return {
        "customer": request.customer.id if request.customer else None,
        "orders": request.orders_to_redact or request.orders_requested,
        "dataRequest": request.data_request.id if request.data_request else None,
    }


def _money(amount: str) -> Decimal:
    """An amount to calculate with; ValueError if it is none."""
    try:
        money = Decimal(amount)
    except InvalidOperation:
        money = Decimal("NaN")
    if not money.is_finite():
        raise ValueError(f"{amount!r} is no amount of money")
    return money


def _amount(money: _MoneySet | None) -> str | None:
    return money.shop_money.amount if money else None


def _upper(value: str | None) -> str | None:
    return value.upper() if value is not None else None


def _tags(value: str) -> list[str]:
    """`"b, a"` -> `["a", "b"]`, in GraphQL's order."""
    return sorted(
        (tag for tag in (part.strip() for part in value.split(",")) if tag),
        key=lambda tag: (tag.lower(), tag),
    )


def _numeric_id(gid: str) -> int:
    """`gid://shopify/Customer/1` -> 1."""
    return int(gid.rpartition("/")[2])


READERS: dict[str, tuple[Any, Callable[[Any, str, int], Change]]] = {
    **dict.fromkeys(
        (
            "orders/create",
            "orders/updated",
            "orders/cancelled",
            "orders/paid",
            "orders/fulfilled",
            "orders/partially_fulfilled",
        ),
        (_Order, _order),
    ),
    "orders/delete": (_Id, _deletion("orders")),
    "refunds/create": (_Refund, _lone_refund),
    "customers/create": (_Customer, _new_customer),
    **dict.fromkeys(("customers/update", "customers/enable", "customers/disable"), (_Customer, _customer)),
    "customers/delete": (_Id, _deletion("customers")),
    "customers/merge": (_Merge, _merge),
    "customer.tags_added": (_CustomerTags, _tags_added),
    "customer.tags_removed": (_CustomerTags, _tags_removed),
    "customers/purchasing_summary": (_PurchasingSummary, _purchasing_summary),
    "products/create": (_Product, _product),
    "products/update": (_Product, _product),
    "products/delete": (_Id, _deletion("products")),
    "bulk_operations/finish": (_BulkFinish, _bulk_finish),
    "app/uninstalled": (dict[str, Any], _uninstalled),
    "app/scopes_update": (_ScopesUpdate, _scopes),
    "customers/data_request": (_CustomerRequest, _data_request),
    "customers/redact": (_CustomerRequest, _redact_customer),
    "shop/redact": (dict[str, Any], _redact_shop),
}
