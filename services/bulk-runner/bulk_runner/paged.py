"""What is read by pages -> StagedBatch*.

    recent_sync   orders of the last days, newest first: what a merchant looks at first
    catch_up      everything that changed since the bulk snapshots began, less an overlap; and the lines of
                  refunds, which bulk operations cannot give; and by its id whatever the last audit found
                  wrong (heal.py)
    bulk_*        all of a resource that a store has little of

Each page is staged in a transaction that holds the job's lease and moves the position; after a crash
another runner goes on at the page that was not committed. What is longer than Shopify pages is read in slices
(slices.py). A node that is no row is set aside with its reason, and the rest of the page goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeAlias

import asyncpg
import structlog

from bulk_runner.heal import read_differences
from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import Page, ReadNode
from bulk_runner.resources.refunds import RefundOf, read_refunds
from bulk_runner.set_aside import set_nodes_aside, sift_nodes
from bulk_runner.shops import Shops
from bulk_runner.slices import START, Order, Place, Search, changed_since, created_since, place_after
from bulk_runner.windows import Window
from shared.db import Connection, Pool, load_queries, settle
from shared.events import JobKind, JobQueued, Resource, Source, StagedBatch
from shared.lease import Lease, lease
from shared.outages import OutageError
from shared.outbox import emit
from shared.rows import Row, count, stage
from shared.scopes import readable
from shared.shopify import Shop

log = structlog.get_logger()
queries = load_queries("bulk_runner")

REFUNDS_A_PAGE = 200  # refunds a commit; they are asked for in smaller groups
OVERLAP = timedelta(minutes=10)  # Shopify's search index may lag behind its own writes by minutes
CLOCK_SKEW = timedelta(
    seconds=5
)  # Shopify's servers need not agree to the second: a webhook of that moment must win ties
DEFAULT_CATCH_UP = timedelta(minutes=30)  # a catch-up that nobody gave a start

ReadPage: TypeAlias = Callable[[Shop, str, str | None, str, Collection[Resource]], Awaitable[Page[Row]]]


@dataclass(frozen=True)
class Reading:
    """One resource to read: the pages that match `search`, from `place` on."""

    resource: Resource | Literal["refunds", "differing_orders", "differing_customers", "differing_products"]
    read: ReadPage
    search: Search = lambda _: ""
    order: Order | None = None  # None: short enough to be read in one slice
    place: Place = START
    source: Source | None = None  # else the job's


Plan: TypeAlias = Callable[[JobQueued, asyncpg.Record], list[Reading]]
SCOPED: dict[str, Resource] = {  # with which resource's scope it is read, and whose objects it is of
    "orders": "orders",
    "customers": "customers",
    "products": "products",
    "refunds": "orders",
    "differing_orders": "orders",
    "differing_customers": "customers",
    "differing_products": "products",
}
DIFFERING: dict[Resource, Literal["differing_orders", "differing_customers", "differing_products"]] = {
    "products": "differing_products",
    "customers": "differing_customers",
    "orders": "differing_orders",
}
SOURCES: dict[JobKind, Source] = {"recent_sync": "recent", "catch_up": "catch_up"}  # else: bulk


async def read_pages(event: JobQueued, shops: Shops, plan: Plan) -> None:
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
        allowed = readable(await shops.scopes(event.connection_id))
        source = SOURCES.get(event.kind, "bulk")
        position: dict[str, Any] = dict(job["position"])
        remaining = _remaining(plan(event, job), position, allowed)
        async for reading, page, following in _pages(shop, remaining, allowed):
            position[reading.resource] = asdict(following) if following else "end"
            async with shops.pool.acquire() as tx, tx.transaction():
                aside = await _stage(tx, event, reading.source or source, page, held)
                if aside:
                    resource = SCOPED[reading.resource]
                    await set_nodes_aside(tx, event, resource, aside, shops.tokens.vault)
                await tx.execute(queries["save_position"], event.job_id, position)
        async with shops.pool.acquire() as tx, tx.transaction():
            # An empty batch ends the job: its Promoted comes after everything before it was promoted.
            await _stage(tx, event, source, Page([], None), held)
            await tx.execute(queries["job_is_staged"], event.job_id)
            await settle(tx, event, "bulk-runner")


def _remaining(plan: list[Reading], position: dict[str, Any], allowed: Collection[Resource]) -> list[Reading]:
    """What may be read, and is left to read after a crash."""
    return [
        replace(reading, place=Place(**position.get(reading.resource, {})))
        for reading in plan
        if position.get(reading.resource) != "end" and SCOPED[reading.resource] in allowed
    ]


def recent_plan(_: JobQueued, job: asyncpg.Record, days: int) -> list[Reading]:
    """The orders of the last days, newest first."""
    since = (job["since"] or job["created_at"]) - timedelta(days=days)
    return [Reading("orders", _newest_orders, created_since(since), "created_at")]


def catch_up_plan(
    event: JobQueued, job: asyncpg.Record, pool: Pool, differing: Collection[Resource] = ()
) -> list[Reading]:
    """What changed since, what bulk operations could not give, and what an audit found wrong."""
    since = (job["since"] or job["created_at"] - DEFAULT_CATCH_UP) - OVERLAP
    changed = changed_since(since)
    return [
        Reading("orders", orders.page, changed, "updated_at"),
        Reading("customers", customers.page, changed, "updated_at"),
        Reading("products", products.page, changed, "updated_at"),
        Reading("refunds", partial(_refund_lines, pool, event.connection_id)),
        *(
            Reading(name, partial(read_differences, pool, event.connection_id, resource), source="audit")
            for resource, name in DIFFERING.items()
            if resource in differing
        ),
    ]


def whole_plan(_: JobQueued, job: asyncpg.Record, resource: Resource) -> list[Reading]:
    """All of a small resource, or only what was created before the moment that the job names."""
    pages: dict[Resource, ReadPage] = {
        "orders": _newest_orders,
        "customers": customers.page,
        "products": products.page,
    }
    whole = Window(None, job["before"]).search
    return [Reading(resource, pages[resource], lambda _: whole)]


async def _newest_orders(
    shop: Shop, search: str, after: str | None, sent_at: str, allowed: Collection[Resource]
) -> Page[Row]:
    return await orders.page(shop, search, after, sent_at, allowed, "CREATED_AT", newest_first=True)


async def _refund_lines(
    pool: Pool,
    connection_id: int,
    shop: Shop,
    _: str,
    after: str | None,
    sent_at: str,
    __: Collection[Resource],
) -> Page[Row]:
    """Lines of refunds that have none yet; the cursor is the last refund's id."""
    found = await pool.fetch(queries["refunds_without_lines"], connection_id, int(after or 0), REFUNDS_A_PAGE)
    refunds = [RefundOf(row["id"], row["order_id"]) for row in found]
    nodes = await read_refunds(shop, refunds, sent_at)
    return Page(nodes, str(refunds[-1].id) if len(refunds) == REFUNDS_A_PAGE else None)


async def _pages(
    shop: Shop, readings: list[Reading], allowed: Collection[Resource]
) -> AsyncIterator[tuple[Reading, Page[Row], Place | None]]:
    """Each page, and the place after it."""
    for reading in readings:
        place: Place | None = reading.place
        while place:
            # Before the request: whatever changes while it is under way was sent later.
            sent_at = await shop.now() - CLOCK_SKEW
            search = reading.search(place.edge)
            page = await reading.read(shop, search, place.after, sent_at.isoformat(), allowed)
            place = place_after(place, page, reading.order, sent_at - OVERLAP)
            yield reading, page, place


async def _stage(
    tx: Connection, event: JobQueued, source: Source, page: Page[Row], held: Lease
) -> list[ReadNode[Row]]:
    """Stage what can be read of the page; returns the other nodes, each with its reason."""
    batch_id = await tx.fetchval(queries["next_batch"])
    staged, aside = await sift_nodes(tx, page.nodes, partial(stage, tx, batch_id))
    counts = count(row for node in staged for row in node.rows)
    await held.hold(tx)  # after the COPY: see on_bulk_ready.py
    await tx.execute(queries["add_batch"], batch_id, event.connection_id, event.job_id, source, counts)
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
    return aside
