"""WebhooksRegistered -> JobQueued(bulk_*): from here on no change can fall between snapshot and webhooks.

A sync that begins anew loads whatever may be read. After more scopes were granted, only what they opened is
loaded: resources that were closed, or the orders that were too old to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from bulk_runner.planning import queue_job, set_status
from bulk_runner.shops import Shops
from bulk_runner.store_size import count_objects
from shared.db import load_queries, settle
from shared.events import BULK_JOBS, JobKind, WebhooksRegistered
from shared.scopes import ALL_ORDERS, VISIBLE_DAYS, lacking, readable

queries = load_queries("bulk_runner")

EDGE = timedelta(days=1)  # how far the orders that opened later reach into those that were visible


@dataclass(frozen=True)
class Load:
    """A bulk job to queue: all of its resource, or only what was created before a moment."""

    kind: JobKind
    before: datetime | None = None


async def on_webhooks_registered(event: WebhooksRegistered, shops: Shops) -> None:
    """Queue the bulk jobs, with what Shopify says is to be expected of each."""
    scopes = await shops.scopes(event.connection_id)
    loaded = [] if event.anew else await shops.pool.fetch(queries["loaded_history"], event.connection_id)
    loads = to_load(scopes, loaded)
    shop = await shops.open(event.connection_id)
    expected = await count_objects(shop, [BULK_JOBS[load.kind] for load in loads])
    async with shops.pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "bulk-runner"):
            return
        if event.problem:
            await tx.execute(queries["note_problem"], event.connection_id, event.problem.model_dump())
        if loads:
            await set_status(tx, event.connection_id, "backfilling")
        for load in loads:
            resource = BULK_JOBS[load.kind]
            await queue_job(
                tx,
                event.connection_id,
                event.brand_id,
                load.kind,
                before=load.before,
                lacking=lacking(scopes),
                expected={resource: expected[resource]},
            )


def to_load(scopes: list[str], loaded: list[asyncpg.Record]) -> list[Load]:
    """What may be read and was not read yet."""
    before = {row["kind"]: row for row in loaded}
    resources = readable(scopes)
    loads = [
        Load(kind) for kind, resource in BULK_JOBS.items() if resource in resources and kind not in before
    ]
    orders = before.get("bulk_orders")
    opened = set(orders["lacking"]) & set(scopes) if orders and "orders" in resources else set()
    if orders and opened == {ALL_ORDERS}:
        loads.append(Load("bulk_orders", orders["created_at"] - timedelta(days=VISIBLE_DAYS) + EDGE))
    elif opened:  # orders name their customers and products only to who may read those
        loads.append(Load("bulk_orders"))
    return loads
