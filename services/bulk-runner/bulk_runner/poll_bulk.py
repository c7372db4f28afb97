"""Bulk operations that are due: planned ones are started, running ones are polled.

    planned --run--> running --COMPLETED--> ready (-> BulkReady) --on_bulk_ready--> staged
       ^                |
       +----------------+ CANCELED, EXPIRED, no file: once more; FAILED, stuck: as two halves of its
                          window, where it can be cut

When an operation is due stands in Postgres, so nothing here remembers anything: any runner may do the next
step of any operation, and a lost process is a late poll.
"""

from __future__ import annotations

import asyncio

import structlog

from bulk_runner import shopify_bulk
from bulk_runner.bulk_operation import Operation, load_operation
from bulk_runner.end_bulk import fail, free_slot, restart
from bulk_runner.shopify_bulk import PolledOperation
from bulk_runner.shops import Shops
from bulk_runner.start_bulk import start
from shared.db import affected, load_queries
from shared.events import BulkProgressed, BulkReady, Problem
from shared.outages import through_outages
from shared.outbox import emit
from shared.shopify import Shop, StoreError
from shared.wakeups import Wakeups

log = structlog.get_logger()
queries = load_queries("bulk_runner")

SLOTS = 5  # bulk queries that one app may run at a shop since API 2026-01
AT_ONCE = 60  # operations one runner starts or polls together; they mostly wait for Shopify
OF_A_STORE = 3  # of these: a store that does not answer leaves the rest to the others
TAKEN_FOR = 5.0  # seconds the others leave a taken operation alone: polling twice does no harm
IDLE = 0.5  # seconds between looks when no notification came
FAST_POLLS = 20  # small operations end within seconds; then the webhook is waited for with patience
POLL_FAST, POLL_SLOW = 0.5, 5.0  # seconds; a poll costs one point


class Scheduler:
    """Does what is due."""

    def __init__(self, shops: Shops, stuck_after: float) -> None:
        self.shops, self.stuck_after = shops, stuck_after
        self._wakeups = Wakeups(shops.pool, "backstock_due")
        self._under_way: set[int] = set()  # operations; while one is waited for, the others are looked at

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(through_outages(self._wakeups.listen))
            tasks.create_task(through_outages(self._look))

    async def _look(self) -> None:
        room = AT_ONCE - len(self._under_way)
        due = await self.shops.pool.fetch(
            queries["take_due"], room, TAKEN_FOR, SLOTS, list(self._under_way), OF_A_STORE
        )
        for row in due:
            self._under_way.add(row["id"])
            self._tasks.create_task(self._try(row["id"]))
        if not due:
            await self._wakeups.wait(IDLE)

    async def _try(self, operation_id: int) -> None:
        try:
            await self._step(operation_id)
        except Exception as error:  # noqa: BLE001 - one store's trouble must not stop the others' steps
            # It stays due: taken again when TAKEN_FOR has passed.
            log.warning("bulk.step_failed", operation=operation_id, error=repr(error))
        finally:
            self._under_way.discard(operation_id)

    async def _step(self, operation_id: int) -> None:
        operation = await load_operation(self.shops.pool, operation_id)
        try:
            shop = await self.shops.open(operation.connection_id)
            if operation.state == "planned":
                await start(self.shops, shop, operation)
            else:
                await poll(self.shops, shop, operation, self.stuck_after)
        except StoreError as error:
            await fail(self.shops, operation, error.problem)


async def poll(shops: Shops, shop: Shop, operation: Operation, stuck_after: float) -> None:
    """Look at a running operation. -> BulkProgressed or BulkReady"""
    polled = await shopify_bulk.ask(shop, operation.gid)
    match polled:
        case None:
            await restart(shops, operation, "Shopify no longer knows it")
        case PolledOperation(status="CREATED" | "RUNNING" | "CANCELING"):
            await _note_progress(shops, operation, polled)
            await _end_if_stuck(shops, shop, operation, stuck_after)
        case PolledOperation(status="COMPLETED", url=None) if int(polled.object_count):
            await restart(shops, operation, "it completed without a file")
        case PolledOperation(status="COMPLETED"):
            await _make_ready(shops, operation, polled)
        case PolledOperation(error_code="ACCESS_DENIED"):
            await fail(shops, operation, _denied(operation))
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


async def _end_if_stuck(shops: Shops, shop: Shop, operation: Operation, stuck_after: float) -> None:
    """Its counters are frozen: ask Shopify to end it, and after as long again no longer wait for that."""
    frozen = operation.frozen_for or 0
    if frozen > stuck_after and not operation.cancel_requested:
        await _cancel(shops, shop, operation)
    elif frozen > 2 * stuck_after:  # it may keep its slot; four others are left
        await restart(shops, operation, "it was stuck, and Shopify did not end it", halve=True)


async def _cancel(shops: Shops, shop: Shop, operation: Operation) -> None:
    log.warning("bulk.stuck", operation=operation.id, gid=operation.gid, seconds=operation.frozen_for)
    if refusal := await shopify_bulk.cancel(shop, operation.gid):  # it may have ended just now
        log.warning("bulk.cancel_refused", operation=operation.id, gid=operation.gid, message=refusal)
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
            await free_slot(tx, operation)
            await emit(
                tx,
                BulkReady(
                    **operation.event_fields(), object_count=objects, root_object_count=roots, file_size=size
                ),
            )
    log.info("bulk.ready", operation=operation.id, objects=objects, bytes=size)
