"""StagedBatch -> Promoted: rows go from schema `stage` to schema `shopify`, all of a batch at once.

Where Postgres refuses a row, nothing of the turn is done, and it is taken again object by object: what is
refused is set aside, the rest goes on (set_aside.py).

The rules (newest wins, children as a set, tombstones) are SQL: `stage.promote` in 0003_stage.sql.
A store's batches are promoted one at a time, and a turn ends after a few of them: then it is another store's.
"""

from __future__ import annotations

import asyncpg
import structlog

from promoter.set_aside import promote_by_object
from shared.db import Connection, Pool, load_queries, settle
from shared.events import Promoted, StagedBatch
from shared.outages import OutageError
from shared.outbox import emit
from shared.secrets import TokenVault
from shared.staging import REFUSALS

log = structlog.get_logger()
queries = load_queries("promoter")

FEW = 50  # rows: up to here kept plans are worth more than fresh ones (planning costs some milliseconds)
A_TURN = 3  # batches; a large one takes some tenths of a second
AGAIN_AFTER = 0.5  # seconds until the next try when another promoter has the store


async def on_staged_batch(event: StagedBatch, pool: Pool, vault: TokenVault) -> None:
    """Promote the batch, after those of the same bulk operation that came before it."""
    try:
        is_done = await _take_turn(event, pool)
    except REFUSALS as error:
        log.warning("batch.refused", batch=event.batch_id, error=type(error).__name__)
        is_done = await _take_turn(event, pool, vault)
    if not is_done:
        raise OutageError("batches before this one come first", after=AGAIN_AFTER)


async def _take_turn(event: StagedBatch, pool: Pool, vault: TokenVault | None = None) -> bool:
    """Promote as many batches as a turn has, with a vault object by object; False if some are left."""
    async with pool.acquire() as tx, tx.transaction():
        if not await tx.fetchval(queries["lock_connection"], event.connection_id):
            raise OutageError("another promoter has this store", after=AGAIN_AFTER)
        waiting = await tx.fetch(queries["waiting_batches"], event.batch_id, A_TURN + 1)
        for batch in waiting[:A_TURN]:
            await _promote(tx, event, batch, vault)
        is_done = len(waiting) <= A_TURN
        if is_done:
            await settle(tx, event, "promoter")
    return is_done


async def _promote(
    tx: Connection, event: StagedBatch, batch: asyncpg.Record, vault: TokenVault | None
) -> None:
    if batch["source"] == "audit":
        await tx.execute(queries["trust_audit"], batch["id"])
    if batch["source"] != "webhook" or sum(batch["rows"].values()) > FEW:
        await tx.execute(queries["plan_anew"])
    aside = await promote_by_object(tx, event.connection_id, batch, vault) if vault else {}
    written = await tx.fetchval(queries["promote"], batch["id"])
    await emit(
        tx,
        Promoted(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            batch_id=batch["id"],
            source=batch["source"],
            rows={table: rows - aside.get(table, 0) for table, rows in batch["rows"].items()},
            written=written,
            job_id=batch["job_id"],
            kind=batch["kind"],
            resource=batch["resource"],
        ),
    )
    log.info("batch.promoted", batch=batch["id"], source=batch["source"], written=written)
