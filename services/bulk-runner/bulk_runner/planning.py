"""What comes next: jobs are queued here, in the transaction of what led to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from shared.db import Connection, load_queries
from shared.events import JobKind, JobQueued, Resource
from shared.outbox import emit
from shared.trouble import reconsider

queries = load_queries("bulk_runner")


async def queue_job(
    tx: Connection,
    connection_id: int,
    brand_id: str,
    kind: JobKind,
    *,
    since: datetime | None = None,
    round_: int = 1,
    before: datetime | None = None,
    lacking: Sequence[str] = (),
    expected: Mapping[Resource, int] | None = None,
) -> None:
    """Queue a job, or let one of its kind that is under way take its place. -> JobQueued"""
    job = await tx.fetchrow(queries["queue_job"], connection_id, kind, since, round_, before, list(lacking))
    if job and job["is_new"]:
        await emit(
            tx,
            JobQueued(
                connection_id=connection_id,
                brand_id=brand_id,
                job_id=job["id"],
                kind=kind,
                expected=dict(expected or {}),
            ),
        )


async def set_status(tx: Connection, connection_id: int, status: str) -> None:
    """Where the sync stands, for everybody who asks Postgres. Queue first what makes it stand there."""
    await tx.execute(queries["set_sync_status"], connection_id, status, None)
    await reconsider(tx, connection_id)
