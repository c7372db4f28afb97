"""StagedBatch -> Promoted: rows go from schema `stage` to schema `shopify`, all of a batch or nothing.

The rules (newest wins, children as a set, tombstones) are SQL: `stage.promote` in 0003_stage.sql.
A store's batches are promoted one at a time, and a turn ends after a few of them: then it is another store's.
"""

from __future__ import annotations

import asyncpg
import structlog

from shared.db import Connection, Pool, load_queries, settle
from shared.events import Promoted, StagedBatch
from shared.outages import OutageError
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("promoter")

FEW = 50  # rows: up to here kept plans are worth more than fresh ones (planning costs some milliseconds)
A_TURN = 3  # batches; a large one takes some tenths of a second
AGAIN_AFTER = 0.5  # seconds until the next try when another promoter has the store


async def on_staged_batch(event: StagedBatch, pool: Pool) -> None:
    """Promote the batch, after those of the same bulk operation that came before it."""
    async with pool.acquire() as tx, tx.transaction():
        if not await tx.fetchval(queries["lock_connection"], event.connection_id):
            raise OutageError("another promoter has this store", after=AGAIN_AFTER)
        waiting = await tx.fetch(queries["waiting_batches"], event.batch_id, A_TURN + 1)
        for batch in waiting[:A_TURN]:
            await _promote(tx, event, batch)
        if len(waiting) <= A_TURN:
            await settle(tx, event, "promoter")
    if len(waiting) > A_TURN:
        raise OutageError("batches before this one come first", after=AGAIN_AFTER)


async def _promote(tx: Connection, event: StagedBatch, batch: asyncpg.Record) -> None:
    if batch["source"] == "audit":
        await tx.execute(queries["trust_audit"], batch["id"])
    if batch["source"] != "webhook" or sum(batch["rows"].values()) > FEW:
        await tx.execute(queries["plan_anew"])
    written = await tx.fetchval(queries["promote"], batch["id"])
    await emit(
        tx,
        Promoted(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            batch_id=batch["id"],
            source=batch["source"],
            rows=batch["rows"],
            written=written,
            job_id=batch["job_id"],
            kind=batch["kind"],
            resource=batch["resource"],
        ),
    )
    log.info("batch.promoted", batch=batch["id"], source=batch["source"], written=written)
