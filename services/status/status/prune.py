"""Old events are deleted from the outbox; what they said of progress stays in the baseline.

One replica at a time, by a lease, in small transactions. An event goes when every consumer has handled it, so
long ago, and none of them has put it aside: a dead letter can be sent again as long as it is there.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from shared.db import Pool
from shared.lease import Lease, lease
from shared.outages import through_outages
from status.history import delete_events

log = structlog.get_logger()

EVERY = 60.0  # seconds between looks
BATCH = 500  # events a transaction: some tens of milliseconds
REST = 0.05  # seconds between two transactions: others want the disk, too
SECONDS_A_DAY = 86_400.0


class Pruner:
    """Keeps the outbox as long as settings say."""

    def __init__(self, pool: Pool, keep_days: float) -> None:
        self.pool, self.keep = pool, keep_days * SECONDS_A_DAY

    async def run(self) -> None:
        """Until cancelled."""
        await through_outages(self._look)

    async def _look(self) -> None:
        every = min(EVERY, max(self.keep, 1.0))
        await asyncio.sleep(every * random.uniform(0.5, 1))  # noqa: S311 - replicas spread out
        async with lease(self.pool, "prune-events") as held:
            if held is not None:
                await self.prune(held)

    async def prune(self, held: Lease) -> int:
        """Delete what is old enough; returns how many events."""
        total = 0
        while deleted := await self._batch(held):
            total += deleted
            await asyncio.sleep(REST)
        if total:
            log.info("events.pruned", events=total)
        return total

    async def _batch(self, held: Lease) -> int:
        async with self.pool.acquire() as tx, tx.transaction():
            await held.hold(tx)
            return await delete_events(tx, self.keep, BATCH)
