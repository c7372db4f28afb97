"""A planned bulk operation -> BulkStarted. It is started once, whatever falls over.

Before Shopify is asked to run the query we look for its marker among the shop's operations: one that was
accepted before we fell is adopted. Who does this holds the operation's lease, still so in the moment of
asking. When the answer gets lost nothing is asked again: the next try looks for the marker.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

import structlog

from bulk_runner import shopify_bulk
from bulk_runner.bulk_operation import Operation, load_operation
from bulk_runner.documents import bulk_document
from bulk_runner.end_bulk import fail
from bulk_runner.shops import Shops
from shared.db import affected, load_queries
from shared.events import BulkProgressed, BulkStarted, Problem
from shared.lease import Lease, lease
from shared.outbox import emit
from shared.scopes import readable
from shared.shopify import Shop, UserErrors

log = structlog.get_logger()
queries = load_queries("bulk_runner")

FIRST_POLL = 0.5  # seconds after the start
SLOT_WAIT_BASE, SLOT_WAIT_CAP = 1.0, 30.0  # seconds until the next try when the shop has no free slot
BUSY = {"OPERATION_IN_PROGRESS", "LIMIT_REACHED"}


@dataclass(frozen=True)
class Started:
    """Shopify has it, under this id."""

    gid: str
    created_at: datetime


@dataclass(frozen=True)
class NoSlot:
    """Five operations of this app run at the shop already."""


@dataclass(frozen=True)
class Refused:
    """Shopify does not run such a query."""

    problem: Problem


async def start(shops: Shops, shop: Shop, operation: Operation) -> None:
    """Run a planned operation, or adopt it. -> BulkStarted"""
    async with lease(shops.pool, f"operation:{operation.id}") as held:
        if held is None:
            return
        operation = await load_operation(shops.pool, operation.id)  # it may be started by now
        if operation.state != "planned":
            return
        match await _adopt(shop, operation) or await _run(shops, shop, operation, held):
            case Started(gid, created_at):
                async with shops.pool.acquire() as tx, tx.transaction():
                    await held.hold(tx)
                    status = await tx.execute(
                        queries["operation_started"], operation.id, gid, created_at, FIRST_POLL
                    )
                    if not affected(status):
                        return
                    await emit(tx, BulkStarted(**operation.event_fields(), gid=gid))
                log.info("bulk.started", operation=operation.id, gid=gid, resource=operation.resource)
            case NoSlot():
                wait = min(SLOT_WAIT_CAP, SLOT_WAIT_BASE * 2**operation.waits)
                async with shops.pool.acquire() as tx, tx.transaction():
                    await tx.execute(queries["operation_waits"], operation.id, wait)
                    if operation.waits == 0:
                        waiting = BulkProgressed(
                            **operation.event_fields(), shopify_status="WAITING", waiting_for_slot=True
                        )
                        await emit(tx, waiting)
                log.info("bulk.no_slot", operation=operation.id, seconds=wait)
            case Refused(problem):
                await fail(shops, operation, problem)
            case unknown:
                assert_never(unknown)


async def _adopt(shop: Shop, operation: Operation) -> Started | None:
    for found in await shopify_bulk.recent(shop):
        if found.query.startswith(operation.marker):
            log.info("bulk.adopted", operation=operation.id, gid=found.id)
            return Started(found.id, found.created_at)
    return None


async def _run(shops: Shops, shop: Shop, operation: Operation, held: Lease) -> Started | NoSlot | Refused:
    allowed = readable(await shops.scopes(operation.connection_id))
    query = bulk_document(
        operation.path, operation.document_name, operation.window.search, operation.marker, allowed
    )
    run = await shopify_bulk.run(shop, query, held.check)
    if run.bulk_operation:
        return Started(run.bulk_operation.id, run.bulk_operation.created_at)
    error = run.user_errors[0] if run.user_errors else UserErrors("no reason given")
    if error.code in BUSY:
        return NoSlot()
    return Refused(
        Problem(
            code="bulk_refused",
            message=f"Shopify refused the bulk query of {operation.resource}: {error.message}",
            action="Report this with the API version.",
        )
    )
