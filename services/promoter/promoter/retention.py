"""What nobody needs any more goes: a little at a time, by one process at a time, under a lease.

The promoter does it, for nobody can call it from outside: only its role may delete these rows. Events are
deleted by status, which keeps their sum.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from shared.db import Pool, affected, load_queries
from shared.lease import lease
from shared.outages import through_outages

log = structlog.get_logger()
queries = load_queries("promoter")

EVERY = 600.0  # seconds between two rounds
ROWS = 5_000  # a statement: far below its time-out, and no long locks
STATEMENTS = 20  # of one kind a round: what is left waits for the next one
KEPT_DAYS = {  # days
    "forget_inbox": 7.0,
    "forget_deliveries": 7.0,  # Shopify repeats a delivery for four hours
    "forget_letters": 30.0,
    "forget_batches": 90.0,
    "forget_audits": 90.0,
    "forget_operations": 90.0,  # after their batches, before their jobs
    "forget_jobs": 90.0,
    "forget_leases": 90.0,
}


class Retention:
    """Deletes what is old, in every process's turn."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def run(self) -> None:
        """Until cancelled; replicas share the work by the lease."""
        await through_outages(self._round)

    async def _round(self) -> None:
        await asyncio.sleep(EVERY * random.uniform(0.5, 1))  # noqa: S311 - replicas spread out
        async with lease(self.pool, "retention") as held:
            if held is not None:
                await self.forget()

    async def forget(self) -> dict[str, int]:
        """One bounded round; returns how many rows went, by statement."""
        gone = {name: await self._forget(name, days) for name, days in KEPT_DAYS.items()}
        if any(gone.values()):
            log.info("retention.forgotten", **gone)
        return gone

    async def _forget(self, name: str, days: float) -> int:
        total = 0
        for _ in range(STATEMENTS):
            gone = affected(await self.pool.execute(queries[name], days, ROWS))
            total += gone
            if gone < ROWS:
                break
        return total
