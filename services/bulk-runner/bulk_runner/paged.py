"""recent_sync and catch_up: pages -> StagedBatch*.

    recent_sync   orders of the last days, newest first: what a merchant looks at first
    catch_up      everything that changed since the bulk snapshots began, less an overlap; and the lines of
                  refunds, which bulk operations cannot give

Each page is staged in a transaction that holds the job's lease and moves the cursor; after a crash
another runner goes on at the page that was not committed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeAlias

import asyncpg
import structlog

from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import Page
from bulk_runner.resources.refunds import RefundOf, refund_line_rows
from bulk_runner.shops import Shops
from shared.db import Connection, Pool, load_queries, settle
from shared.events import JobQueued, Resource, Source, StagedBatch
from shared.lease import lease
from shared.outages import OutageError
from shared.outbox import emit
from shared.rows import count, stage
from shared.shopify import Shop

log = structlog.get_logger()
queries = load_queries("bulk_runner")

REFUNDS_A_PAGE = 200  # refunds a commit; they are asked for in smaller groups
OVERLAP = timedelta(minutes=10)  # Shopify's search index may lag behind its own writes by minutes
CLOCK_SKEW = timedelta(
    seconds=5
)  # our clock may be ahead of Shopify's: a webhook of that moment must win ties
DEFAULT_CATCH_UP = timedelta(minutes=30)  # a catch-up that nobody gave a start

ReadPage: TypeAlias = Callable[[Shop, str, str | None, str], Awaitable[Page]]


@dataclass(frozen=True)
class _Reading:
    """One resource to read: the pages that match `search`, from `after` on."""

    resource: Resource | Literal["refunds"]
    read: ReadPage
    search: str
    after: str | None


async def read_pages(event: JobQueued, shops: Shops, recent_days: int) -> None:
    """Read and stage page by page under the job's lease."""
    async with lease(shops.pool, f"job:{event.job_id}") as held:
        if held is None:
            raise OutageError("another runner works on this job")
        job = await shops.pool.fetchrow(queries["start_job"], event.job_id)
        if job is None:
            async with shops.pool.acquire() as tx, tx.transaction():
                await settle(tx, event, "bulk-runner")
            return
        shop = await shops.open(event.connection_id)
        source: Source = "recent" if event.kind == "recent_sync" else "catch_up"
        position: dict[str, Any] = dict(job["position"])
        async for reading, page in _pages(shop, _plan(event, job, recent_days, shops.pool)):
            position[reading.resource] = page.next or "end"
            async with shops.pool.acquire() as tx, tx.transaction():
                await held.hold(tx)
                await _stage(tx, event, source, page)
                await tx.execute(queries["save_position"], event.job_id, position)
        async with shops.pool.acquire() as tx, tx.transaction():
            await held.hold(tx)
            # An empty batch ends the job: its Promoted comes after everything before it was promoted.
            await _stage(tx, event, source, Page([], None))
            await tx.execute(queries["job_is_staged"], event.job_id)
            await settle(tx, event, "bulk-runner")


def _plan(event: JobQueued, job: asyncpg.Record, recent_days: int, pool: Pool) -> list[_Reading]:
    position: dict[str, str] = job["position"]
    if event.kind == "recent_sync":
        since = (job["since"] or job["created_at"]) - timedelta(days=recent_days)
        plan: list[tuple[Resource | Literal["refunds"], ReadPage, str]] = [
            ("orders", _newest_orders, f"created_at:>='{_iso(since)}'")
        ]
    else:
        since = (job["since"] or job["created_at"] - DEFAULT_CATCH_UP) - OVERLAP
        search = f"updated_at:>='{_iso(since)}'"
        plan = [
            ("orders", orders.page, search),
            ("customers", customers.page, search),
            ("products", products.page, search),
            ("refunds", partial(_refund_lines, pool, event.connection_id), ""),
        ]
    return [
        _Reading(resource, read, search, position.get(resource))
        for resource, read, search in plan
        if position.get(resource) != "end"
    ]


async def _newest_orders(shop: Shop, search: str, after: str | None, sent_at: str) -> Page:
    return await orders.page(shop, search, after, sent_at, "CREATED_AT", newest_first=True)


async def _refund_lines(
    pool: Pool, connection_id: int, shop: Shop, _: str, after: str | None, sent_at: str
) -> Page:
    """Lines of refunds that have none yet; the cursor is the last refund's id."""
    found = await pool.fetch(queries["refunds_without_lines"], connection_id, int(after or 0), REFUNDS_A_PAGE)
    refunds = [RefundOf(row["id"], row["order_id"]) for row in found]
    rows = await refund_line_rows(shop, refunds, sent_at)
    return Page(rows, str(refunds[-1].id) if len(refunds) == REFUNDS_A_PAGE else None)


async def _pages(shop: Shop, readings: list[_Reading]) -> AsyncIterator[tuple[_Reading, Page]]:
    for reading in readings:
        after, more = reading.after, True
        while more:
            # Before the request: whatever changes while it is under way was sent later.
            sent_at = (datetime.now(UTC) - CLOCK_SKEW).isoformat()
            page = await reading.read(shop, reading.search, after, sent_at)
            yield reading, page
            after, more = page.next, page.next is not None


async def _stage(tx: Connection, event: JobQueued, source: Source, page: Page) -> None:
    counts = count(page.rows)
    batch_id = await tx.fetchval(queries["add_batch"], event.connection_id, event.job_id, source, counts)
    await stage(tx, batch_id, page.rows)
    await emit(
        tx,
        StagedBatch(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            batch_id=batch_id,
            source=source,
            rows=counts,
            job_id=event.job_id,
            kind=event.kind,
        ),
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
