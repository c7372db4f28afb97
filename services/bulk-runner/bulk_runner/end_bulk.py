"""The ways in which a bulk operation ends badly: again from the start, as two halves, or for good."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from bulk_runner.bulk_operation import Operation
from bulk_runner.shops import Shops
from bulk_runner.windows import Window
from shared.db import Connection, affected, load_queries
from shared.events import BulkProgressed, Problem
from shared.jobs import fail_job
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("bulk_runner")

ATTEMPTS = 4  # runs of one operation that Shopify ended badly
RESTART_WAIT = 2.0  # seconds before an operation that Shopify ended badly runs again, times its attempts


async def restart(shops: Shops, operation: Operation, why: str, *, halve: bool = False) -> None:
    """Run it again from the start, or as two halves of its window, unless it was tried often enough."""
    if operation.attempt >= ATTEMPTS:
        problem = Problem(
            code="bulk_failed",
            message=f"The bulk operation of {operation.resource} failed {operation.attempt} times: {why}.",
            action="Sync again later; if it goes on, look Shopify's status page up.",
        )
        await fail(shops, operation, problem)
        return
    async with shops.pool.acquire() as tx, tx.transaction():
        halves = await _halves(tx, operation) if halve else None
        if halves is None:
            ended = await tx.execute(
                queries["restart_operation"], operation.id, RESTART_WAIT * operation.attempt
            )
        else:
            ended = await tx.execute(queries["split_operation"], operation.id)
        if affected(ended):
            await emit(tx, _runs_again(operation, why, split=halves is not None))
            for window in halves or ():
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
        await free_slot(tx, operation)
    log.warning(
        "bulk.restart", operation=operation.id, attempt=operation.attempt, why=why, halves=bool(halves)
    )


def _runs_again(operation: Operation, why: str, *, split: bool) -> BulkProgressed:
    fields = operation.event_fields() | {"attempt": operation.attempt + 1}
    return BulkProgressed(**fields, shopify_status="", runs_again=why, split=split)


async def _halves(tx: Connection, operation: Operation) -> tuple[Window, Window] | None:
    oldest = await tx.fetchval(queries["oldest_order"], operation.job_id)
    if oldest is None or operation.resource != "orders":
        return None
    return operation.window.halves(oldest, datetime.now(UTC))


async def free_slot(tx: Connection, operation: Operation) -> None:
    """One operation less runs at the shop: whoever waits for a slot need not wait longer."""
    await tx.execute(queries["slot_is_free"], operation.connection_id)
    await tx.execute(queries["wake_scheduler"])


async def fail(shops: Shops, operation: Operation, problem: Problem) -> None:
    """Give it up, and its job with it."""
    log.warning("bulk.failed", operation=operation.id, problem=problem.message)
    async with shops.pool.acquire() as tx, tx.transaction():
        await tx.execute(queries["fail_operation"], operation.id, problem.model_dump())
        await free_slot(tx, operation)
        await fail_job(tx, operation.job_id, problem)
