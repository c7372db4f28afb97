"""Promoted -> JobCompleted, when it was the job's last batch."""

from __future__ import annotations

from shared.db import Connection, load_queries
from shared.events import JobCompleted, Promoted
from shared.outbox import emit

queries = load_queries("bulk_runner")


async def on_promoted(event: Promoted, tx: Connection) -> None:
    """Complete the job if all of it is staged and nothing waits for the promoter."""
    if event.job_id is None:
        return
    await tx.fetchrow(queries["lock_job"], event.job_id)
    kind = await tx.fetchval(queries["complete_job"], event.job_id)
    if kind:
        await emit(
            tx,
            JobCompleted(
                connection_id=event.connection_id, brand_id=event.brand_id, job_id=event.job_id, kind=kind
            ),
        )
