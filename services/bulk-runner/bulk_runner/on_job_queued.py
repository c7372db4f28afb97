"""JobQueued -> the work itself.

    recent_sync, catch_up     read by pages, here and now
    bulk_*, audit             of what a store has little of: by pages too
                              else planned as bulk operations; poll_bulk.py starts and watches them

A bulk operation costs seconds before its first byte, a page some points of the shop's budget: up to
PAGED_UP_TO objects the pages win (benchmarks/paging_or_bulk.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from bulk_runner.audit import finish_audit, read_by_pages
from bulk_runner.paged import catch_up_plan, read_pages, recent_plan, whole_plan
from bulk_runner.shops import Shops
from bulk_runner.store_size import count_objects, count_orders, oldest_order
from bulk_runner.windows import Window, cut
from shared.db import Connection, load_queries, settle
from shared.events import BULK_JOBS, JobQueued, Resource
from shared.lease import lease
from shared.outages import OutageError
from shared.scopes import readable
from shared.shopify import Shop

queries = load_queries("bulk_runner")


async def on_job_queued(event: JobQueued, shops: Shops, recent_days: int, paged_up_to: int) -> None:
    """Work on the job, or plan it; a job that is over or canceled is left alone."""
    match event.kind:
        case "recent_sync":
            await read_pages(event, shops, partial(recent_plan, days=recent_days))
        case "catch_up":
            rows = await shops.pool.fetch(queries["differing_resources"], event.connection_id)
            differing = [row["resource"] for row in rows]
            await read_pages(event, shops, partial(catch_up_plan, pool=shops.pool, differing=differing))
        case "bulk_orders" | "bulk_customers" | "bulk_products":
            await _load(event, shops, BULK_JOBS[event.kind], paged_up_to)
        case "audit":
            await _audit(event, shops, paged_up_to)


async def _load(event: JobQueued, shops: Shops, resource: Resource, paged_up_to: int) -> None:
    shop = await shops.open(event.connection_id)
    whole = Window(None, await shops.pool.fetchval(queries["job_before"], event.job_id))
    size = await count_orders(shop, whole) if whole.end else event.expected.get(resource)
    if size is None:
        size = (await count_objects(shop, [resource]))[resource]
    if size <= paged_up_to:
        await read_pages(event, shops, partial(whole_plan, resource=resource))
        return
    oldest = await oldest_order(shop) if resource == "orders" else None
    windows = await _windows(shop, size, oldest, whole)
    async with shops.pool.acquire() as tx, tx.transaction():
        if await _start(tx, event, oldest):
            await _plan(tx, event, resource, windows)
            await tx.execute(queries["wake_scheduler"])


async def _start(tx: Connection, event: JobQueued, oldest: datetime | None) -> bool:
    if not await settle(tx, event, "bulk-runner"):
        return False
    if await tx.fetchrow(queries["start_job"], event.job_id) is None:
        return False
    if oldest:
        await tx.execute(queries["save_position"], event.job_id, {"oldest": oldest.isoformat()})
    return True


async def _plan(tx: Connection, event: JobQueued, resource: Resource, windows: list[Window]) -> None:
    for window in windows:
        await tx.execute(
            queries["plan_operation"],
            event.connection_id,
            event.job_id,
            resource,
            window.start,
            window.end,
            1,
        )


async def _windows(shop: Shop, size: int, oldest: datetime | None, whole: Window) -> list[Window]:
    if oldest is None:
        return [whole]
    now = datetime.now(UTC) + timedelta(minutes=1)  # Shopify's clock may be ahead of ours
    return await cut(partial(count_orders, shop), size, oldest, now, whole)


async def _audit(event: JobQueued, shops: Shops, paged_up_to: int) -> None:
    shop = await shops.open(event.connection_id)
    sizes = await count_objects(shop, readable(await shops.scopes(event.connection_id)))
    oldest = await oldest_order(shop) if "orders" in sizes else None
    small = [resource for resource in sizes if sizes[resource] <= paged_up_to]
    plans = {
        resource: await _windows(shop, size, oldest if resource == "orders" else None, Window())
        for resource, size in sizes.items()
        if resource not in small
    }
    async with lease(shops.pool, f"job:{event.job_id}") as held:
        if held is None:
            raise OutageError("another runner works on this job")
        if await shops.pool.fetchrow(queries["start_job"], event.job_id) is None:
            small = []
        for resource in small:
            await read_by_pages(event, shops, held, shop, resource)
        async with shops.pool.acquire() as tx, tx.transaction():
            await held.hold(tx)
            if not await _start(tx, event, oldest):
                return
            for resource, windows in plans.items():
                await _plan(tx, event, resource, windows)
            await tx.execute(queries["wake_scheduler"])
            if not plans:
                await finish_audit(tx, event.job_id, event.connection_id, event.brand_id)
