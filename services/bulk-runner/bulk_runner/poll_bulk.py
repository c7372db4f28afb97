"""Bulk operations that are due: planned ones are started, running ones are polled.

    planned --run--> running --COMPLETED--> ready (-> BulkReady) --on_bulk_ready--> staged
       ^                |
       +----------------+ CANCELED, EXPIRED, no file: once more; FAILED, stuck: as two halves of its
                          window, where it can be cut; ATTEMPTS at the most

When an operation is due stands in Postgres, so nothing here remembers anything: any runner may do the next
step of any operation, and a lost process is a late poll. An operation is started once: before that we look
for its marker among the shop's operations, and adopt what we find.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

import msgspec
import structlog

from bulk_runner.bulk_operation import Operation, load_operation
from bulk_runner.documents import bulk_document, document
from bulk_runner.shops import Shops
from bulk_runner.windows import Window
from shared.db import Connection, affected, load_queries
from shared.events import BulkProgressed, BulkReady, BulkStarted, Problem
from shared.jobs import fail_job
from shared.lease import lease
from shared.outages import through_outages
from shared.outbox import emit
from shared.scopes import readable
from shared.shopify import Shop, StoreError, UserErrors
from shared.wakeups import Wakeups

log = structlog.get_logger()
queries = load_queries("bulk_runner")

ATTEMPTS = 4  # runs of one operation that Shopify ended badly
SLOTS = 5  # bulk queries that one app may run at a shop since API 2026-01
AT_ONCE = 20  # operations one runner starts or polls together
TAKEN_FOR = 5.0  # seconds the others leave a taken operation alone; a second poll does no harm, a second
# start is kept off by the lease
IDLE = 0.5  # seconds between looks when no notification came
FAST_POLLS = 20  # small operations end within seconds; then the webhook is waited for with patience
POLL_FAST, POLL_SLOW = 0.5, 5.0  # seconds; a poll costs one point
SLOT_WAIT_BASE, SLOT_WAIT_CAP = 1.0, 30.0  # seconds until the next try when the shop has no free slot
RESTART_WAIT = 2.0  # seconds before an operation that Shopify ended badly runs again, times its attempts
BUSY = {"OPERATION_IN_PROGRESS", "LIMIT_REACHED"}


class _NewOperation(msgspec.Struct, rename="camel"):
    id: str
    created_at: datetime


class _Run(msgspec.Struct, rename="camel"):
    user_errors: list[UserErrors]
    bulk_operation: _NewOperation | None = None


class RunBulk(msgspec.Struct, rename="camel"):
    """The answer of RunBulk."""

    bulk_operation_run_query: _Run


class PolledOperation(msgspec.Struct, rename="camel"):
    """A bulk operation as Shopify shows it; counters are strings there."""

    id: str
    status: str
    created_at: datetime
    object_count: str
    root_object_count: str
    error_code: str | None = None
    file_size: str | None = None
    url: str | None = None


class PollBulk(msgspec.Struct, rename="camel"):
    """The answer of PollBulk; None if Shopify does not know the id."""

    bulk_operation: PolledOperation | None


class _Canceled(msgspec.Struct, rename="camel"):
    user_errors: list[UserErrors]


class CancelBulk(msgspec.Struct, rename="camel"):
    """The answer of CancelBulk."""

    bulk_operation_cancel: _Canceled


class _FoundOperation(msgspec.Struct, rename="camel"):
    id: str
    query: str
    created_at: datetime
    status: str


class _Found(msgspec.Struct):
    nodes: list[_FoundOperation]


class RecentBulks(msgspec.Struct, rename="camel"):
    """The answer of RecentBulks."""

    bulk_operations: _Found


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


class Scheduler:
    """Does what is due."""

    def __init__(self, shops: Shops, stuck_after: float) -> None:
        self.shops, self.stuck_after = shops, stuck_after
        self._wakeups = Wakeups(shops.pool, "backstock_due")

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(through_outages(self._wakeups.listen))
            tasks.create_task(through_outages(self._look))

    async def _look(self) -> None:
        due = await self.shops.pool.fetch(queries["take_due"], AT_ONCE, TAKEN_FOR, SLOTS)
        await asyncio.gather(*(self._step(row["id"]) for row in due))
        if not due:
            await self._wakeups.wait(IDLE)

    async def _step(self, operation_id: int) -> None:
        operation = await load_operation(self.shops.pool, operation_id)
        try:
            shop = await self.shops.open(operation.connection_id)
            if operation.state == "planned":
                await start(self.shops, shop, operation)
            else:
                await poll(self.shops, shop, operation, self.stuck_after)
        except StoreError as error:
            await _fail(self.shops, operation, error.problem)
        except Exception as error:  # noqa: BLE001 - one store's trouble must not stop the others' steps
            # It stays due: taken again when TAKEN_FOR has passed.
            log.warning("bulk.step_failed", operation=operation.id, error=repr(error))


async def start(shops: Shops, shop: Shop, operation: Operation) -> None:
    """Run a planned operation, or adopt it. -> BulkStarted"""
    async with lease(shops.pool, f"operation:{operation.id}") as held:
        if held is None:
            return
        match await _adopt(shop, operation) or await _run(shops, shop, operation):
            case Started(gid, created_at):
                async with shops.pool.acquire() as tx, tx.transaction():
                    await held.hold(tx)
                    status = await tx.execute(
                        queries["operation_started"], operation.id, gid, created_at, POLL_FAST
                    )
                    if affected(status):
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
                await _fail(shops, operation, problem)
            case unknown:
                assert_never(unknown)


async def _adopt(shop: Shop, operation: Operation) -> Started | None:
    answer = await shop.query(RecentBulks, document("shopify.graphql", "RecentBulks"))
    for found in answer.bulk_operations.nodes:
        if found.query.startswith(operation.marker):
            log.info("bulk.adopted", operation=operation.id, gid=found.id)
            return Started(found.id, found.created_at)
    return None


async def _run(shops: Shops, shop: Shop, operation: Operation) -> Started | NoSlot | Refused:
    allowed = readable(await shops.scopes(operation.connection_id))
    query = bulk_document(
        operation.path, operation.document_name, operation.window.search, operation.marker, allowed
    )
    answer = await shop.query(RunBulk, document("shopify.graphql", "RunBulk"), {"query": query})
    run = answer.bulk_operation_run_query
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


async def ask(shop: Shop, gid: str) -> PolledOperation | None:
    """How Shopify says the operation stands."""
    answer = await shop.query(PollBulk, document("shopify.graphql", "PollBulk"), {"id": gid})
    return answer.bulk_operation


async def poll(shops: Shops, shop: Shop, operation: Operation, stuck_after: float) -> None:
    """Look at a running operation. -> BulkProgressed or BulkReady"""
    polled = await ask(shop, operation.gid)
    match polled:
        case None:
            await restart(shops, operation, "Shopify no longer knows it")
        case PolledOperation(status="CREATED" | "RUNNING" | "CANCELING"):
            await _note_progress(shops, operation, polled)
            if (operation.frozen_for or 0) > stuck_after and not operation.cancel_requested:
                await _cancel(shops, shop, operation)
        case PolledOperation(status="COMPLETED", url=None) if int(polled.object_count):
            await restart(shops, operation, "it completed without a file")
        case PolledOperation(status="COMPLETED"):
            await _make_ready(shops, operation, polled)
        case PolledOperation(error_code="ACCESS_DENIED"):
            await _fail(shops, operation, _denied(operation))
        case PolledOperation(status="CANCELED") if not operation.cancel_requested:
            await restart(shops, operation, "it was canceled, not by us")
        case PolledOperation(status="EXPIRED"):
            await restart(shops, operation, "its file expired")
        case PolledOperation():  # FAILED, or canceled by us because it was stuck: too much at once, perhaps
            why = polled.error_code or polled.status
            await restart(shops, operation, f"Shopify ended it as {why}", halve=True)


def _denied(operation: Operation) -> Problem:
    return Problem(
        code="access_denied",
        message=f"Shopify denied the bulk operation of {operation.resource}.",
        action="Grant the app its scopes, or renew its token, and connect the store again.",
    )


async def _cancel(shops: Shops, shop: Shop, operation: Operation) -> None:
    """Its counters are frozen: ask Shopify to end it. It holds its slot until it has ended."""
    log.warning("bulk.stuck", operation=operation.id, gid=operation.gid, seconds=operation.frozen_for)
    await shop.query(CancelBulk, document("shopify.graphql", "CancelBulk"), {"id": operation.gid})
    await shops.pool.execute(queries["request_cancel"], operation.id, POLL_FAST)


async def _note_progress(shops: Shops, operation: Operation, polled: PolledOperation) -> None:
    objects, roots = int(polled.object_count), int(polled.root_object_count)
    interval = POLL_FAST if operation.polls < FAST_POLLS else POLL_SLOW
    moved = (objects, polled.status) != (operation.object_count, operation.shopify_status)
    async with shops.pool.acquire() as tx, tx.transaction():
        await tx.execute(queries["operation_polled"], operation.id, polled.status, objects, roots, interval)
        if moved:
            await emit(
                tx,
                BulkProgressed(
                    **operation.event_fields(),
                    shopify_status=polled.status,
                    object_count=objects,
                    root_object_count=roots,
                ),
            )


async def _make_ready(shops: Shops, operation: Operation, polled: PolledOperation) -> None:
    objects, roots = int(polled.object_count), int(polled.root_object_count)
    size = int(polled.file_size or 0)
    async with shops.pool.acquire() as tx, tx.transaction():
        status = await tx.execute(queries["operation_ready"], operation.id, objects, roots, size)
        if affected(status):
            await _free_slot(tx, operation)
            await emit(
                tx,
                BulkReady(
                    **operation.event_fields(), object_count=objects, root_object_count=roots, file_size=size
                ),
            )
    log.info("bulk.ready", operation=operation.id, objects=objects, bytes=size)


async def restart(shops: Shops, operation: Operation, why: str, *, halve: bool = False) -> None:
    """Run it again from the start, or as two halves of its window, unless it was tried often enough."""
    if operation.attempt >= ATTEMPTS:
        problem = Problem(
            code="bulk_failed",
            message=f"The bulk operation of {operation.resource} failed {operation.attempt} times: {why}.",
            action="Sync again later; if it goes on, look Shopify's status page up.",
        )
        await _fail(shops, operation, problem)
        return
    async with shops.pool.acquire() as tx, tx.transaction():
        halves = await _halves(tx, operation) if halve else None
        if halves is None:
            await tx.execute(queries["restart_operation"], operation.id, RESTART_WAIT * operation.attempt)
        elif affected(await tx.execute(queries["split_operation"], operation.id)):
            for window in halves:
                await tx.execute(
                    queries["plan_operation"],
                    operation.connection_id,
                    operation.job_id,
                    operation.resource,
                    window.start,
                    window.end,
                    operation.attempt + 1,
                )
        if operation.is_audit:
            await tx.execute(queries["forget_audited_of"], operation.job_id, operation.id)
        await _free_slot(tx, operation)
    log.warning(
        "bulk.restart", operation=operation.id, attempt=operation.attempt, why=why, halves=bool(halves)
    )


async def _halves(tx: Connection, operation: Operation) -> tuple[Window, Window] | None:
    oldest = await tx.fetchval(queries["oldest_order"], operation.job_id)
    if oldest is None or operation.resource != "orders":
        return None
    return operation.window.halves(oldest, datetime.now(UTC))


async def _free_slot(tx: Connection, operation: Operation) -> None:
    await tx.execute(queries["slot_is_free"], operation.connection_id)
    await tx.execute(queries["wake_scheduler"])


async def _fail(shops: Shops, operation: Operation, problem: Problem) -> None:
    log.warning("bulk.failed", operation=operation.id, problem=problem.message)
    async with shops.pool.acquire() as tx, tx.transaction():
        await tx.execute(queries["fail_operation"], operation.id, problem.model_dump())
        await _free_slot(tx, operation)
        await fail_job(tx, operation.job_id, problem)
