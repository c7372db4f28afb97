"""BulkReady -> StagedBatch*: a bulk file goes into schema `stage`, batch by batch, and is proven complete.

Each batch is one transaction: rows are copied, the lease is held, the offset moves, the event is written. In
this order, for Postgres ends a transaction that stands still, but not in the middle of a COPY: a process that
is paused there has nothing locked that others need. After a crash another runner goes on at the offset.

The file counts only when its lines, its roots and its bytes are those that Shopify counted; only then comes
the batch that closes the operation. A file with a line that is no JSON, or with too few roots, is had written
once more; a line that is no row is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import structlog

from bulk_runner.audit import finish_audit, stage_audited
from bulk_runner.bulk_operation import Operation, load_operation
from bulk_runner.download import CorruptFileError, DownloadError, Lines, LinkExpiredError, read_lines
from bulk_runner.end_bulk import restart
from bulk_runner.links import why_refused
from bulk_runner.resources.nodes import UNREADABLE, kind_of, unproven
from bulk_runner.set_aside import text_aside
from bulk_runner.shopify_bulk import ask
from bulk_runner.shops import Shops
from shared.db import Connection, affected, load_queries, settle
from shared.dead_letters import set_all_aside
from shared.errors import LeaseLostError
from shared.events import BulkReady, StagedBatch
from shared.lanes import Lanes
from shared.lease import Lease, lease
from shared.outages import OutageError
from shared.outbox import emit
from shared.rows import AuditedRow, Row, count
from shared.secrets import TokenVault
from shared.shopify_errors import refusal
from shared.staging import sift, stage_pieces

log = structlog.get_logger()
queries = load_queries("bulk_runner")

TRIES = 8  # downloads that may break off without getting further
BACKOFF_BASE, BACKOFF_CAP = 0.5, 10.0  # seconds
A_SLICE = 200  # lines parsed without a break, some milliseconds: meanwhile no other store's work goes on


@dataclass(frozen=True)
class _Parsed:
    """A batch of lines as rows by the line's number, and what was no row."""

    rows: list[tuple[int, list[Row]]]
    audited: list[tuple[int, list[AuditedRow]]]
    roots: int
    aside: dict[int, Exception]


async def on_bulk_ready(event: BulkReady, shops: Shops, staging: Lanes) -> None:
    """Stage the operation's file from where the last runner stopped, a batch a turn."""
    async with lease(shops.pool, f"operation:{event.operation_id}") as held:
        if held is None:
            raise OutageError("another runner downloads this file")
        operation = await load_operation(shops.pool, event.operation_id)
        if operation.state != "ready":
            async with shops.pool.acquire() as tx, tx.transaction():
                await settle(tx, event, "bulk-runner")
            return
        try:
            operation = await _download(shops, staging, held, operation)
            why = _incomplete(operation)
        except CorruptFileError as error:
            why = str(error)
        if why:
            await restart(shops, operation, why)
            async with shops.pool.acquire() as tx, tx.transaction():
                await settle(tx, event, "bulk-runner")
            return
        async with shops.pool.acquire() as tx, tx.transaction():
            await held.hold(tx)
            await _close(tx, operation)
            await settle(tx, event, "bulk-runner")
        log.info("bulk.staged", operation=operation.id, lines=operation.lines_done)


def _incomplete(operation: Operation) -> str:
    """What is wrong with the file, if anything is."""
    found = (operation.lines_done, operation.roots_done, operation.bytes_done)
    counted = (operation.object_count, operation.root_object_count, operation.file_size)
    # A line that cannot be read may be a root; but first the file is had written once more.
    maybe_roots = operation.aside_done if operation.attempt > 1 else 0
    whole = (operation.lines_done, operation.bytes_done) == (operation.object_count, operation.file_size)
    if whole and 0 <= operation.root_object_count - operation.roots_done <= maybe_roots:
        return ""
    return f"the file has {found} lines, roots and bytes where Shopify counted {counted}"


async def _download(shops: Shops, staging: Lanes, held: Lease, operation: Operation) -> Operation:
    """Read to the end, through broken connections, as long as it gets further."""
    shop = await shops.open(operation.connection_id)
    failures = 0
    while operation.bytes_done < operation.file_size and failures < TRIES:
        before = operation.bytes_done
        try:
            polled = await ask(shop, operation.gid)
            if polled is None or not polled.url:
                raise LinkExpiredError("the file has no address any more")
            if why := await why_refused(polled.url, shop.url):
                raise refusal("link_refused", shop.name, why)
            async for lines in read_lines(shop.http, polled.url, operation.bytes_done, operation.file_size):
                async with staging.turn(operation.connection_id):
                    operation = await _stage(shops, held, operation, lines)
        except DownloadError as error:
            log.warning(
                "bulk.download_broke", operation=operation.id, offset=operation.bytes_done, error=str(error)
            )
            async with shops.pool.acquire() as tx, tx.transaction():
                await held.hold(tx)
        if operation.bytes_done < operation.file_size:
            failures = failures + 1 if operation.bytes_done == before else 1
            longest = min(BACKOFF_CAP, BACKOFF_BASE * 2**failures)
            await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter
    return operation


async def _stage(shops: Shops, held: Lease, operation: Operation, lines: Lines) -> Operation:
    parsed = await _parse(operation, lines)
    further = replace(
        operation,
        bytes_done=lines.end,
        lines_done=operation.lines_done + len(lines.lines),
        roots_done=operation.roots_done + parsed.roots,
        aside_done=operation.aside_done + len(parsed.aside),
        batches_done=operation.batches_done + 1,
    )
    async with shops.pool.acquire() as tx, tx.transaction():
        if operation.is_audit:
            put = partial(stage_audited, tx, operation.job_id, operation.id)
            refused = await sift(tx, parsed.audited, put)
            if unread := [lines.lines[n - operation.lines_done - 1] for n in (*parsed.aside, *refused)]:
                await put([unproven(operation.resource, line) for line in unread])
            await held.hold(tx)
        else:
            batch_id = await tx.fetchval(queries["next_batch"])
            staged, refused = await stage_pieces(tx, batch_id, parsed.rows)
            await held.hold(tx)
            await _add_batch(tx, operation, batch_id, count(staged), bytes_done=lines.end)
        if aside := parsed.aside | refused:
            await _set_aside(tx, operation, lines, aside, shops.tokens.vault)
        await _checkpoint(tx, further)
    return further


async def _parse(operation: Operation, lines: Lines) -> _Parsed:
    parsed = _Parsed([], [], 0, {})
    sent_at = operation.sent_at
    roots = 0
    for number, line in enumerate(lines.lines, operation.lines_done + 1):
        if number % A_SLICE == 0:
            await asyncio.sleep(0)
        try:
            kind = kind_of(line, operation.lines)
            roots += kind.is_root
            node = kind.decoder.decode(line)
            if operation.is_audit:
                parsed.audited.append((number, kind.audited(node)))
            else:
                parsed.rows.append((number, kind.rows(node, sent_at)))
        except UNREADABLE as error:
            if operation.attempt == 1 and not _is_json(line):
                raise CorruptFileError(f"line {number} of the file is no JSON") from error
            parsed.aside[number] = error
    return replace(parsed, roots=roots)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except UNREADABLE:
        return False
    return True


async def _add_batch(
    tx: Connection,
    operation: Operation,
    batch_id: int,
    counts: dict[str, int],
    *,
    bytes_done: int,
    closes: bool = False,
) -> None:
    await tx.execute(
        queries["add_operation_batch"],
        batch_id,
        operation.connection_id,
        operation.job_id,
        operation.id,
        operation.batches_done,
        operation.revision,
        counts,
        closes,
    )
    fields: dict[str, Any] = operation.event_fields() | {"bytes_done": bytes_done}
    await emit(tx, StagedBatch(**fields, batch_id=batch_id, source="bulk", rows=counts))


async def _set_aside(
    tx: Connection, operation: Operation, lines: Lines, aside: dict[int, Exception], vault: TokenVault
) -> None:
    texts = []
    for number, error in sorted(aside.items()):
        line = lines.lines[number - operation.lines_done - 1]
        texts.append(text_aside(operation, line, error, number))
        log.warning("bulk.line_set_aside", operation=operation.id, line=number, error=type(error).__name__)
    job_id = None if operation.is_audit else operation.job_id
    await set_all_aside(tx, texts, "bulk-runner", operation.connection_id, vault, job_id)


async def _checkpoint(tx: Connection, operation: Operation) -> None:
    status = await tx.execute(
        queries["checkpoint"],
        operation.id,
        operation.bytes_done,
        operation.lines_done,
        operation.roots_done,
        operation.batches_done,
        operation.aside_done,
    )
    if affected(status) != 1:
        raise LeaseLostError(f"bulk operation {operation.id} was canceled")


async def _close(tx: Connection, operation: Operation) -> None:
    """The whole file is staged and proven: end the operation, and the job if it was the last."""
    await tx.fetchrow(queries["lock_job"], operation.job_id)
    if not operation.is_audit:
        batch_id = await tx.fetchval(queries["next_batch"])
        await _add_batch(tx, operation, batch_id, {}, bytes_done=operation.bytes_done, closes=True)
        await _checkpoint(tx, replace(operation, batches_done=operation.batches_done + 1))
    await tx.execute(queries["operation_is_staged"], operation.id)
    if not await tx.fetchval(queries["all_operations_staged"], operation.job_id):
        return
    if operation.is_audit:
        await finish_audit(tx, operation.job_id, operation.connection_id, operation.brand_id)
    else:
        await tx.execute(queries["job_is_staged"], operation.job_id)
