"""WebhooksRegistered -> JobQueued(bulk_*): from here on no change can fall between snapshot and webhooks."""

from __future__ import annotations

from bulk_runner.planning import queue_job, set_status
from bulk_runner.shops import Shops
from bulk_runner.store_size import count_objects
from shared.db import load_queries, settle
from shared.events import BULK_JOBS, WebhooksRegistered

queries = load_queries("bulk_runner")


async def on_webhooks_registered(event: WebhooksRegistered, shops: Shops) -> None:
    """Queue the three bulk jobs, with what Shopify says is to be expected of each."""
    expected = await count_objects(await shops.open(event.connection_id))
    async with shops.pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "bulk-runner"):
            return
        await set_status(tx, event.connection_id, "backfilling")
        if event.problem:
            await tx.execute(queries["note_problem"], event.connection_id, event.problem.model_dump())
        for kind, resource in BULK_JOBS.items():
            size = {resource: expected[resource]}
            await queue_job(tx, event.connection_id, event.brand_id, kind, expected=size)
