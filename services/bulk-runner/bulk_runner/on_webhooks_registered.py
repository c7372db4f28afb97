"""WebhooksRegistered -> JobQueued(bulk_*): from here on no change can fall between snapshot and webhooks."""

from __future__ import annotations

import msgspec

from bulk_runner.documents import document
from bulk_runner.planning import queue_job, set_status
from bulk_runner.shops import Shops
from shared.db import load_queries, settle
from shared.events import BULK_JOBS, Resource, WebhooksRegistered

queries = load_queries("bulk_runner")


class _Count(msgspec.Struct):
    count: int


class Counts(msgspec.Struct, rename="camel"):
    """How much the store holds, as Shopify counts it."""

    orders_count: _Count
    customers_count: _Count
    products_count: _Count


async def on_webhooks_registered(event: WebhooksRegistered, shops: Shops) -> None:
    """Queue the three bulk jobs, with what Shopify says is to be expected of each."""
    shop = await shops.open(event.connection_id)
    counts = await shop.query(Counts, document("shopify.graphql", "Counts"))
    expected: dict[Resource, int] = {
        "orders": counts.orders_count.count,
        "customers": counts.customers_count.count,
        "products": counts.products_count.count,
    }
    async with shops.pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "bulk-runner"):
            return
        await set_status(tx, event.connection_id, "backfilling")
        if event.problem:
            await tx.execute(queries["note_problem"], event.connection_id, event.problem.model_dump())
        for kind, resource in BULK_JOBS.items():
            size = {resource: expected[resource]}
            await queue_job(tx, event.connection_id, event.brand_id, kind, expected=size)
