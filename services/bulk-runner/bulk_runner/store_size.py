"""How much a store holds, as Shopify counts it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from bulk_runner.documents import document
from bulk_runner.windows import Window
from shared.events import Resource
from shared.shopify import Shop

PATH = "shopify.graphql"
COUNTS: dict[Resource, str] = {
    "orders": document(PATH, "OrdersCount"),
    "customers": document(PATH, "CustomersCount"),
    "products": document(PATH, "ProductsCount"),
}


class _Count(msgspec.Struct):
    count: int


class OrdersIn(msgspec.Struct, rename="camel"):
    """The answer of OrdersIn."""

    orders_count: _Count


class _Created(msgspec.Struct, rename="camel"):
    created_at: datetime


class _Nodes(msgspec.Struct):
    nodes: list[_Created]


class OldestOrder(msgspec.Struct):
    """The answer of OldestOrder."""

    orders: _Nodes


async def count_objects(shop: Shop, resources: Iterable[Resource]) -> dict[Resource, int]:
    """How many there are of each resource; beyond 25,000 Shopify's figures may be estimates."""
    counts: dict[Resource, int] = {}
    for resource in resources:
        answer = await shop.query(dict[str, _Count], COUNTS[resource])
        counts[resource] = answer[f"{resource}Count"].count
    return counts


async def count_orders(shop: Shop, window: Window) -> int:
    """The orders of a window."""
    answer = await shop.query(OrdersIn, document(PATH, "OrdersIn"), {"search": window.search})
    return answer.orders_count.count


async def oldest_order(shop: Shop) -> datetime:
    """When the first order was created; now, if there is none."""
    answer = await shop.query(OldestOrder, document(PATH, "OldestOrder"))
    return answer.orders.nodes[0].created_at if answer.orders.nodes else datetime.now(UTC)
