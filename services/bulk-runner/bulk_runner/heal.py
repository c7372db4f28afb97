"""What an audit found missing, different or too many, object by object: read again by its id -> rows.

    it lives                                   -> a fresh copy with its children; newer rows of ours win
    gone, and the audit did not see it either  -> asked once more; then a tombstone as old as the audit

No single wrong answer deletes: the audit's list, the object by its id and the object once more must agree,
and the token must still be allowed to see it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import msgspec
import structlog

from bulk_runner.documents import document
from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import NULL, Page, ReadNode, Ref
from shared.db import Pool, load_queries
from shared.events import Resource
from shared.rows import DeletionRow, Row
from shared.scopes import ALL_ORDERS, SCOPE_OF, VISIBLE_DAYS
from shared.shopify import Shop

log = structlog.get_logger()
queries = load_queries("bulk_runner")

AT_ONCE = 25  # objects a page: with 20 children each about 100 points
EDGE = timedelta(days=1)  # an order this close to being too old to be seen counts as too old

ByIds: TypeAlias = Callable[[Shop, Sequence[int], str, Collection[Resource]], Awaitable[list[ReadNode[Row]]]]
BY_IDS: dict[Resource, ByIds] = {
    "orders": orders.by_ids,
    "customers": customers.by_ids,
    "products": products.by_ids,
}
TYPES: dict[Resource, str] = {"orders": "Order", "customers": "Customer", "products": "Product"}


class _Scope(msgspec.Struct):
    handle: str


class _Installation(msgspec.Struct, rename="camel"):
    access_scopes: list[_Scope]


class StillThere(msgspec.Struct, rename="camel"):
    """The answer of StillThere; None for what is gone."""

    nodes: list[Ref | None]
    current_app_installation: _Installation


async def read_differences(
    pool: Pool,
    connection_id: int,
    resource: Resource,
    shop: Shop,
    _: str,
    after: str | None,
    sent_at: str,
    allowed: Collection[Resource],
) -> Page[Row]:
    """The next objects that differ, as they are at Shopify now; the cursor is the last one's id."""
    found = await pool.fetch(queries["differences"], connection_id, resource, int(after or 0), AT_ONCE)
    ids = [row["id"] for row in found]
    nodes = await BY_IDS[resource](shop, ids, sent_at, allowed) if ids else []
    living = {node.root for node in nodes}
    # Whose node it is that has no id, nobody can say: then none of them counts as gone.
    unseen = [row for row in found if row["unseen"] and living.isdisjoint((row["id"], None))]
    gone = await _confirmed(shop, resource, unseen) if unseen else []
    log.info("audit.healed", resource=resource, read=len(living), gone=len(gone))
    for row in gone:
        deletion = DeletionRow(row["taken_at"].isoformat(), resource, row["id"])
        nodes.append(ReadNode(NULL, [deletion], row["id"]))
    return Page(nodes, str(ids[-1]) if len(ids) == AT_ONCE else None)


async def _confirmed(shop: Shop, resource: Resource, unseen: list[asyncpg.Record]) -> list[asyncpg.Record]:
    """Those that Shopify does not know, asked once more, and would show us if it did."""
    ids = [f"gid://shopify/{TYPES[resource]}/{row['id']}" for row in unseen]
    answer = await shop.query(StillThere, document("shopify.graphql", "StillThere"), {"ids": ids})
    scopes = {scope.handle for scope in answer.current_app_installation.access_scopes}
    absent = [row for row, node in zip(unseen, answer.nodes, strict=True) if node is None]
    return [row for row in absent if _in_sight(resource, row["created_at"], scopes)]


def _in_sight(resource: Resource, created_at: datetime | None, scopes: Collection[str]) -> bool:
    if SCOPE_OF[resource] not in scopes:
        return False
    if resource != "orders" or ALL_ORDERS in scopes:
        return True
    return created_at is not None and created_at > datetime.now(UTC) - timedelta(days=VISIBLE_DAYS) + EDGE
