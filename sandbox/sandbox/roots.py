"""The doors of the Admin API: what each field of QueryRoot answers. `select` is how every list is searched
and sorted.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox import search
from sandbox.context import JSON, Context, FieldError
from sandbox.filters import CUSTOMER_COUNT, FILTERS, Filter
from sandbox.model import Order
from sandbox.paging import Listing, listing
from sandbox.resolve import Maker, Read, Table

SortKey = Callable[[Any], Any]  # Any: the object, and whatever it sorts by
_COMMON: dict[str, SortKey] = {
    "CREATED_AT": lambda of: of.created_at,
    "ID": lambda of: of.id,
    "RELEVANCE": lambda of: of.id,
    "UPDATED_AT": lambda of: of.updated_at,
    "TITLE": lambda of: of.title,
}
SORT: dict[str, dict[str, SortKey]] = {
    "orders": {
        "CURRENT_TOTAL_PRICE": lambda order: order.current_total,
        "CUSTOMER_NAME": lambda order: order.customer_id or 0,
        "FINANCIAL_STATUS": lambda order: order.financial_status,
        "FULFILLMENT_STATUS": lambda order: order.fulfillment_status,
        "ORDER_NUMBER": lambda order: order.number,
        "PROCESSED_AT": lambda order: order.processed_at,
        "TOTAL_ITEMS_QUANTITY": lambda order: sum(line.quantity for line in order.lines),
        "TOTAL_PRICE": lambda order: order.total,
    },
    "customers": {"NAME": lambda customer: (customer.last_name or "", customer.first_name or "")},
    "products": {
        "INVENTORY_TOTAL": lambda product: product.total_inventory,
        "PRODUCT_TYPE": lambda product: product.product_type,
        "PUBLISHED_AT": lambda product: product.published_at or 0,
        "VENDOR": lambda product: product.vendor,
    },
    "variants": {
        "INVENTORY_QUANTITY": lambda variant: variant.inventory_quantity,
        "POSITION": lambda variant: variant.position,
        "SKU": lambda variant: variant.sku or "",
    },
    "bulk_operations": {"COMPLETED_AT": lambda operation: operation.completed_at or 0},
    "subscriptions": {},
}
SOURCES: dict[str, Callable[[Context], Iterable[Any]]] = {
    "orders": lambda context: [
        o for o in context.view.orders.values() if o.created_at >= context.oldest_order
    ],
    "customers": lambda context: context.view.customers.values(),
    "products": lambda context: context.view.products.values(),
    "variants": lambda context: context.view.variants.values(),
    "bulk_operations": lambda context: context.live.bulk.operations.values(),
    "subscriptions": lambda context: context.live.webhooks.subscriptions.values(),
}
_CACHED = {"orders", "customers", "products", "variants"}


def select(
    context: Context, field: str, kind: str, args: JSON, filters: dict[str, Filter] | None = None
) -> Listing:
    """All objects of a kind that the query finds, in the order asked for."""
    query, sort = args.get("query") or "", args.get("sortKey") or "ID"
    parsed = search.parse(query, filters or FILTERS[kind], context.view.zone) if query.strip() else None
    if parsed and parsed.warnings:
        context.search.append(
            {"path": [field], "query": query, "parsed": parsed.described, "warnings": parsed.warnings}
        )
    site = context.site
    cacheable = site is not None and kind in _CACHED and not site.store.index_lag
    key = (kind, query, sort, context.oldest_order, filters is None)
    if cacheable and site and (known := site.listings.get((*key, site.store.version))):
        return known
    items = list(SOURCES[kind](context))
    if parsed:
        items = _matching(context, kind, items, parsed.test)
    by = SORT[kind].get(sort) or _COMMON.get(sort, _COMMON["ID"])
    found = listing(items, lambda of: (by(of), of.id))
    if cacheable and site:
        site.remember((*key, site.store.version), found)
    return found


def _matching(context: Context, kind: str, items: list[Any], test: search.Test) -> list[Any]:
    lag = context.site.store.index_lag if context.site else 0.0
    if not lag or not context.site:
        return [item for item in items if test(item)]
    fresh = {
        id_: changed.before
        for (of, id_), changed in context.site.store.recent.items()
        if of == kind and time.monotonic() - changed.at < lag
    }
    return [item for item in items if (seen := fresh.get(item.id, item)) is not None and test(seen)]


def _list(field: str, kind: str) -> Maker:
    return lambda args, context: lambda _: select(context, field, kind, args)


def _count(field: str, kind: str, filters: dict[str, Filter] | None = None) -> Maker:
    def make(args: JSON, context: Context) -> Read:
        def count(_: object) -> tuple[int, str]:
            total, limit = len(select(context, field, kind, args, filters).items), args.get("limit")
            return (total, "EXACT") if limit is None or total <= limit else (limit, "AT_LEAST")

        return count

    return make


def number_of(id_: str, kind: str) -> int:
    """The number in gid://shopify/Kind/1; of another kind: not found."""
    _, _, rest = id_.partition("gid://shopify/")
    found, _, text = rest.partition("/")
    if found != kind:
        raise FieldError(f"Invalid id: {id_}", "RESOURCE_NOT_FOUND")
    digits = text.partition("?")[0]
    return int(digits) if digits.isdecimal() else 0


def order_by_id(context: Context, id_: int) -> Order | None:
    order = context.view.orders.get(id_)
    return order if order and order.created_at >= context.oldest_order else None


def _refund(context: Context, id_: int) -> object:
    return next((x for order in context.view.orders.values() for x in order.refunds if x.id == id_), None)


def _line(context: Context, id_: int) -> object:
    return next((x for order in context.view.orders.values() for x in order.lines if x.id == id_), None)


def _item(context: Context, id_: int) -> object:
    return next((x for x in context.view.variants.values() if x.inventory_item_id == id_), None)


NODES: dict[str, Callable[[Context, int], object]] = {
    "BulkOperation": lambda context, id_: context.live.bulk.operations.get(id_),
    "Customer": lambda context, id_: context.view.customers.get(id_),
    "InventoryItem": _item,
    "LineItem": _line,
    "Order": order_by_id,
    "Product": lambda context, id_: context.view.products.get(id_),
    "ProductVariant": lambda context, id_: context.view.variants.get(id_),
    "Refund": _refund,
    "WebhookSubscription": lambda context, id_: context.live.webhooks.subscriptions.get(id_),
}


def _by_id(kind: str) -> Maker:
    return lambda args, context: lambda _: NODES[kind](context, number_of(args["id"], kind))


class Typed(tuple[str, object]):
    """An object behind an interface, with its type's name."""

    __slots__ = ()


def _node(context: Context, id_: str) -> Typed | None:
    kind = id_.removeprefix("gid://shopify/").partition("/")[0]
    hideable = kind in {"Customer", "Order", "Product"}
    if hideable and context.site and context.site.faults.strike("nodes_null"):
        return None
    found = NODES[kind](context, number_of(id_, kind)) if kind in NODES else None
    return None if found is None else Typed((kind, found))


def _subscriptions(args: JSON, context: Context) -> Read:
    def find(_: object) -> Listing:
        found = select(context, "webhookSubscriptions", "subscriptions", args)
        kept = [
            (item, key)
            for item, key in zip(found.items, found.keys, strict=True)
            if (not args.get("topics") or item.topic in args["topics"])
            and item.uri == (args.get("uri") or args.get("callbackUrl") or item.uri)
            and item.format == (args.get("format") or item.format)
        ]
        return Listing([item for item, _ in kept], [key for _, key in kept])

    return find


def _bulk_operations(args: JSON, context: Context) -> Read:
    """Newest first unless `reverse`."""
    return lambda _: select(context, "bulkOperations", "bulk_operations", args)._replace(newest_first=True)


QUERY: Table = {
    "bulkOperation": _by_id("BulkOperation"),
    "bulkOperations": _bulk_operations,
    "currentAppInstallation": lambda _args, context: lambda _: context.live,
    "currentBulkOperation": lambda args, context: (
        lambda _: context.live.bulk.current(args.get("type") or "QUERY")
    ),
    "customer": _by_id("Customer"),
    "customers": _list("customers", "customers"),
    "customersCount": _count("customersCount", "customers", CUSTOMER_COUNT),
    "inventoryItem": _by_id("InventoryItem"),
    "node": lambda args, context: lambda _: _node(context, args["id"]),
    "nodes": lambda args, context: lambda _: [_node(context, id_) for id_ in args["ids"]],
    "order": _by_id("Order"),
    "orders": _list("orders", "orders"),
    "ordersCount": _count("ordersCount", "orders"),
    "product": _by_id("Product"),
    "productVariant": _by_id("ProductVariant"),
    "productVariants": _list("productVariants", "variants"),
    "productVariantsCount": _count("productVariantsCount", "variants"),
    "products": _list("products", "products"),
    "productsCount": _count("productsCount", "products"),
    "refund": _by_id("Refund"),
    "shop": lambda _args, context: lambda _: context.live.store,
    "webhookSubscription": _by_id("WebhookSubscription"),
    "webhookSubscriptions": _subscriptions,
    "webhookSubscriptionsCount": _count("webhookSubscriptionsCount", "subscriptions"),
}
