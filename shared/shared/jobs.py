"""The rows of `control.jobs`, as far as more than one service touches them."""

from __future__ import annotations

from shared.db import Connection
from shared.events import JobFailed, Problem
from shared.outbox import emit


async def fail_job(tx: Connection, job_id: int, problem: Problem) -> str | None:
    """Mark the job failed, show it at its connection, and say so; returns the state that it was in.

    None: it had ended before, and stays as it is.
    """
    job = await tx.fetchrow(
        "with before as ("
        "select id, state from control.jobs "
        "where id = $1 and state not in ('completed', 'failed', 'canceled') for update"
        ") update control.jobs j set state = 'failed', problem = $2, ended_at = now() "
        "from before b where j.id = b.id returning j.connection_id, j.kind, b.state as before",
        job_id,
        problem.model_dump(),
    )
    if job is None:
        return None
    brand = await tx.fetchval(
        "update control.connections set sync_status = 'attention', problem = $2, updated_at = now() "
        "where id = $1 returning brand_id",
        job["connection_id"],
        problem.model_dump(),
    )
    await emit(
        tx,
        JobFailed(
            connection_id=job["connection_id"],
            brand_id=brand,
            job_id=job_id,
            kind=job["kind"],
            problem=problem,
        ),
    )
    return str(job["before"])
