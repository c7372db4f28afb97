"""JobQueued -> the work itself.

recent_sync, catch_up   read by pages, here and now
bulk_*, audit           planned as bulk operations; poll_bulk.py starts and watches them
"""

from __future__ import annotations

from bulk_runner.paged import read_pages
from bulk_runner.shops import Shops
from shared.db import load_queries, settle
from shared.events import BULK_JOBS, JobQueued, Resource

queries = load_queries("bulk_runner")


async def on_job_queued(event: JobQueued, shops: Shops, recent_days: int) -> None:
    """Work on the job, or plan it; a job that is over or canceled is left alone."""
    match event.kind:
        case "recent_sync" | "catch_up":
            await read_pages(event, shops, recent_days)
        case "bulk_orders" | "bulk_customers" | "bulk_products":
            await _plan(event, shops, (BULK_JOBS[event.kind],))
        case "audit":
            await _plan(event, shops, ("orders", "customers", "products"))


async def _plan(event: JobQueued, shops: Shops, resources: tuple[Resource, ...]) -> None:
    async with shops.pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "bulk-runner"):
            return
        if await tx.fetchrow(queries["start_job"], event.job_id) is None:
            return
        for resource in resources:
            await tx.fetchval(queries["plan_operation"], event.connection_id, event.job_id, resource, "")
        await tx.execute(queries["wake_scheduler"])
