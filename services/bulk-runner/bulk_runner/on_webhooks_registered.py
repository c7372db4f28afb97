"""WebhooksRegistered -> JobQueued(bulk_*): from here on no change can fall between snapshot and webhooks.

A sync that begins anew loads whatever may be read. After more scopes were granted, only what they opened is
loaded: resources that were closed, or the orders that were too old to be seen.
"""

from __future__ import annotations

from bulk_runner.loads import queue_loads, to_load
from bulk_runner.shops import Shops
from bulk_runner.store_size import count_objects
from shared.db import load_queries, settle
from shared.events import BULK_JOBS, WebhooksRegistered

queries = load_queries("bulk_runner")


async def on_webhooks_registered(event: WebhooksRegistered, shops: Shops) -> None:
    """Queue the bulk jobs, with what Shopify says is to be expected of each."""
    if (
        await shops.pool.fetchrow(queries["connection"], event.connection_id) is None
    ):  # disconnected meanwhile
        async with shops.pool.acquire() as tx, tx.transaction():
            await settle(tx, event, "bulk-runner")
        return
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
        await queue_loads(tx, event.connection_id, event.brand_id, loads, scopes, expected)
