"""Which fields each kind of object can be searched by (Shopify's argument docs), and how a value is
compared.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Get = Callable[[Any], Any]  # Any: the object of the kind whose table this stands in
Test = Callable[[Any], bool]
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Filter:
    test: Callable[[str, str], Test]
    values: frozenset[str] | None = None
    is_time: bool = False


def _number(get: Get, *, is_time: bool = False) -> Filter:
    def test(op: str, text: str) -> Test:
        if text == "*":
            return lambda of: get(of) is not None
        try:
            wanted = float(text) if "." in text else int(text)
        except ValueError:
            return lambda _: False
        compare = _COMPARE[op]
        return lambda of: (value := get(of)) is not None and compare(value, wanted)

    return Filter(test, is_time=is_time)


def time(get: Get) -> Filter:
    return _number(get, is_time=True)


def number(get: Get) -> Filter:
    return _number(get)


def identity(get: Get) -> Filter:
    inner = _number(get)
    return Filter(lambda op, text: inner.test(op, text.rsplit("/", 1)[-1]))


def text(*gets: Get) -> Filter:
    def test(_op: str, wanted: str) -> Test:
        if wanted == "*":
            return lambda of: any(get(of) for get in gets)
        low = wanted.lower()
        if low.endswith("*"):
            return lambda of: any((get(of) or "").lower().startswith(low[:-1]) for get in gets)
        return lambda of: any((get(of) or "").lower() == low for get in gets)

    return Filter(test)


def words(*gets: Get) -> Filter:
    def test(_op: str, wanted: str) -> Test:
        low = wanted.lower().rstrip("*")
        return lambda of: any(low in (get(of) or "").lower() for get in gets)

    return Filter(test)


def enum(get: Get, *values: str) -> Filter:
    return Filter(lambda _op, wanted: lambda of: get(of) == wanted.upper(), frozenset(values))


def boolean(get: Get) -> Filter:
    return Filter(
        lambda _op, wanted: lambda of: bool(get(of)) == (wanted.lower() == "true"),
        frozenset({"TRUE", "FALSE"}),
    )


def tag(get: Get) -> Filter:
    return Filter(lambda _op, wanted: lambda of: wanted.lower() in [tag.lower() for tag in get(of)])


def _order_status(_op: str, wanted: str) -> Test:
    match wanted.upper():
        case "OPEN":
            return lambda order: order.closed_at is None and order.cancelled_at is None
        case "CLOSED":
            return lambda order: order.closed_at is not None
        case "CANCELLED":
            return lambda order: order.cancelled_at is not None
        case "NOT_CLOSED":
            return lambda order: order.closed_at is None
    return lambda _: True


FILTERS: dict[str, dict[str, Filter]] = {
    "orders": {
        "cart_token": text(lambda _: None),
        "confirmation_number": text(lambda _: None),
        "created_at": time(lambda order: order.created_at),
        "customer_id": identity(lambda order: order.customer_id),
        "default": words(lambda order: order.name, lambda order: order.email),
        "discount_code": text(lambda order: order.discount_code),
        "email": text(lambda order: order.email),
        "financial_status": enum(
            lambda order: order.financial_status,
            "AUTHORIZED",
            "EXPIRED",
            "PAID",
            "PARTIALLY_PAID",
            "PARTIALLY_REFUNDED",
            "PENDING",
            "REFUNDED",
            "VOIDED",
        ),
        "fulfillment_status": enum(
            lambda order: {"PARTIALLY_FULFILLED": "PARTIAL"}.get(
                order.fulfillment_status, order.fulfillment_status
            ),
            "UNSHIPPED",
            "SHIPPED",
            "FULFILLED",
            "PARTIAL",
            "SCHEDULED",
            "ON_HOLD",
            "UNFULFILLED",
            "REQUEST_DECLINED",
        ),
        "id": identity(lambda order: order.id),
        "name": Filter(lambda _op, wanted: lambda order: order.name.lstrip("#") == wanted.lstrip("#")),
        "processed_at": time(lambda order: order.processed_at),
        "source_name": text(lambda order: order.source_name),
        "status": Filter(_order_status, frozenset({"OPEN", "CLOSED", "CANCELLED", "NOT_CLOSED", "ANY"})),
        "tag": tag(lambda order: order.tags),
        "test": boolean(lambda order: order.test),
        "updated_at": time(lambda order: order.updated_at),
    },
    "customers": {
        "created_at": time(lambda customer: customer.created_at),
        "customer_date": time(lambda customer: customer.created_at),
        "default": words(
            lambda customer: customer.first_name,
            lambda customer: customer.last_name,
            lambda customer: customer.email,
        ),
        "email": text(lambda customer: customer.email),
        "first_name": text(lambda customer: customer.first_name),
        "id": identity(lambda customer: customer.id),
        "last_name": text(lambda customer: customer.last_name),
        "orders_count": number(lambda customer: customer.number_of_orders),
        "phone": text(lambda customer: customer.phone),
        "state": enum(lambda customer: customer.state, "DECLINED", "DISABLED", "ENABLED", "INVITED"),
        "tag": tag(lambda customer: customer.tags),
        "updated_at": time(lambda customer: customer.updated_at),
    },
    "products": {
        "created_at": time(lambda product: product.created_at),
        "default": words(lambda product: product.title, lambda product: product.handle),
        "handle": text(lambda product: product.handle),
        "id": identity(lambda product: product.id),
        "inventory_total": number(lambda product: product.total_inventory),
        "product_type": text(lambda product: product.product_type),
        "published_at": time(lambda product: product.published_at),
        "status": enum(lambda product: product.status, "ACTIVE", "ARCHIVED", "DRAFT", "UNLISTED"),
        "tag": tag(lambda product: product.tags),
        "title": text(lambda product: product.title),
        "updated_at": time(lambda product: product.updated_at),
        "vendor": text(lambda product: product.vendor),
    },
    "variants": {
        "barcode": text(lambda variant: variant.barcode),
        "created_at": time(lambda variant: variant.created_at),
        "default": words(lambda variant: variant.title, lambda variant: variant.sku),
        "id": identity(lambda variant: variant.id),
        "product_id": identity(lambda variant: variant.product_id),
        "sku": text(lambda variant: variant.sku),
        "title": text(lambda variant: variant.title),
        "updated_at": time(lambda variant: variant.updated_at),
    },
    "bulk_operations": {
        "created_at": time(lambda operation: operation.created_at),
        "default": words(lambda _: None),
        "id": identity(lambda operation: operation.id),
        "operation_type": Filter(
            lambda _op, wanted: lambda _: wanted.upper() == "QUERY", frozenset({"QUERY", "MUTATION"})
        ),
        "status": enum(
            lambda operation: operation.status,
            "CANCELED",
            "CANCELING",
            "COMPLETED",
            "CREATED",
            "FAILED",
            "RUNNING",
        ),
    },
    "subscriptions": {
        "created_at": time(lambda subscription: subscription.created_at),
        "default": words(lambda subscription: subscription.uri),
        "id": identity(lambda subscription: subscription.id),
        "updated_at": time(lambda subscription: subscription.updated_at),
    },
}
# customersCount understands fewer filters than customers; the rest are ignored in silence.
CUSTOMER_COUNT = {name: FILTERS["customers"][name] for name in ("created_at", "default", "id", "updated_at")}
