"""Every now and then, for every live store: a catch_up, which heals what a missed or late webhook left."""

from __future__ import annotations

import asyncio
import random

import structlog

from shared.db import Pool, load_queries
from shared.events import JobQueued
from shared.outages import through_outages
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("bulk_runner")

AT_ONCE = 20  # stores a look; more wait for the next one, so that a restart does not ask for all together


class Schedule:
    """Queues a catch_up for each store that had none for `every` seconds."""

    def __init__(self, pool: Pool, every: float) -> None:
        self.pool, self.every = pool, every

    async def run(self) -> None:
        """Until cancelled; replicas cannot queue one twice."""
        await through_outages(self._look)

    async def _look(self) -> None:
        await asyncio.sleep(min(self.every / 2, 30.0) * random.uniform(0.5, 1))  # noqa: S311 - replicas spread out
        async with self.pool.acquire() as tx, tx.transaction():
            for row in await tx.fetch(queries["due_catch_ups"], self.every, AT_ONCE):
                connection = await tx.fetchrow(queries["connection"], row["connection_id"])
                if connection:
                    await emit(
                        tx,
                        JobQueued(
                            connection_id=connection["id"],
                            brand_id=connection["brand_id"],
                            job_id=row["id"],
                            kind="catch_up",
                        ),
                    )
