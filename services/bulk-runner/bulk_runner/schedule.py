"""Every now and then, for every live store:

catch_up   heals what a missed or late webhook left: changes
audit      finds what no catch_up can see, a lost deletion above all, and has it healed
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import structlog

from shared.db import Pool, load_queries
from shared.events import JobKind, JobQueued
from shared.outages import through_outages
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("bulk_runner")

AT_ONCE = 20  # stores a look; more wait for the next one, so that a restart does not ask for all together
DUE: dict[JobKind, str] = {"catch_up": "due_catch_ups", "audit": "due_audits"}


@dataclass(frozen=True)
class Schedule:
    """Queues a job of a kind for each store that had none for `every` seconds."""

    pool: Pool
    kind: JobKind
    every: float

    async def run(self) -> None:
        """Until cancelled; replicas cannot queue one twice."""
        await through_outages(self._look)

    async def _look(self) -> None:
        await asyncio.sleep(min(self.every / 2, 30.0) * random.uniform(0.5, 1))  # noqa: S311 - replicas spread out
        async with self.pool.acquire() as tx, tx.transaction():
            for row in await tx.fetch(queries[DUE[self.kind]], self.every, AT_ONCE):
                connection = await tx.fetchrow(queries["connection"], row["connection_id"])
                if connection:
                    await emit(
                        tx,
                        JobQueued(
                            connection_id=connection["id"],
                            brand_id=connection["brand_id"],
                            job_id=row["id"],
                            kind=self.kind,
                        ),
                    )
