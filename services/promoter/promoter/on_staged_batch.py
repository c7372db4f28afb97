"""StagedBatch -> Promoted: rows go from schema `stage` to schema `shopify`, all of a batch or nothing.

The rules (newest wins, children as a set, tombstones) are SQL: `stage.promote` in 0003_stage.sql.
"""

from __future__ import annotations

import structlog

from shared.db import Connection, load_queries
from shared.events import Promoted, StagedBatch
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("promoter")

FEW = 50  # rows: up to here kept plans are worth more than fresh ones (planning costs some milliseconds)


async def on_staged_batch(event: StagedBatch, tx: Connection) -> None:
    """Promote the batch, after those of the same bulk operation that came before it."""
    await tx.execute(queries["lock_connection"], event.connection_id)
    for batch in await tx.fetch(queries["waiting_batches"], event.batch_id):
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
