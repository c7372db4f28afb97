"""Who may work on something, and the proof of it in every transaction.

A lease is a row with an owner, an end and an epoch. Each taking raises the epoch; each batch of work
holds the row under its epoch in its own transaction. A worker that was paused past its lease finds
another epoch there, touches no row, and stops: LeaseLostError. While a worker lives, a heartbeat renews its
lease, so that waiting for Shopify loses it to nobody. What no transaction guards is done only after a look at
the clock (`check`): whoever was paused past its lease does not begin it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.db import Connection, Pool, affected, load_queries
from shared.errors import LeaseLostError
from shared.outages import OUTAGES, end_if_cancelled

queries = load_queries("shared")

LEASE_SECONDS = (
    12.0  # how late somebody else goes on after a crash; a heartbeat renews it three times as often
)
OWNER = f"{socket.gethostname()}:{os.getpid()}"


@dataclass
class Lease:
    """The right to work on `key`, as long as `hold` succeeds."""

    key: str
    epoch: int
    _until: float = field(repr=False)  # by our own clock, which goes on while we are paused

    async def hold(self, tx: Connection) -> None:
        """Renew inside the transaction that the lease guards; LeaseLostError if it is somebody else's."""
        status = await tx.execute(queries["hold_lease"], self.key, self.epoch, LEASE_SECONDS)
        if affected(status) != 1:
            raise self._lost()

    def check(self) -> None:
        """LeaseLostError if somebody else may have it by now; for what cannot be taken back."""
        if time.monotonic() >= self._until:
            raise self._lost()

    async def renew(self, pool: Pool) -> None:
        """Once more for LEASE_SECONDS, unless it is somebody else's."""
        until = time.monotonic() + LEASE_SECONDS
        status = await pool.execute(queries["hold_lease"], self.key, self.epoch, LEASE_SECONDS)
        self._until = until if affected(status) else 0.0

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(f"the lease on {self.key} was lost at epoch {self.epoch}")


@asynccontextmanager
async def lease(pool: Pool, key: str) -> AsyncIterator[Lease | None]:
    """Take the lease on `key`, or yield None while somebody else has it."""
    until = time.monotonic() + LEASE_SECONDS
    epoch = await pool.fetchval(queries["take_lease"], key, OWNER, LEASE_SECONDS)
    if epoch is None:
        yield None
        return
    taken = Lease(key, epoch, until)
    heartbeat = asyncio.create_task(_renew(pool, taken))
    try:
        yield taken
    finally:
        heartbeat.cancel()
        await asyncio.wait({heartbeat})  # not `await heartbeat`: our own cancellation must not get lost in it
        await pool.execute(queries["release_lease"], key, epoch)


async def _renew(pool: Pool, taken: Lease) -> None:
    while True:
        end_if_cancelled()
        await asyncio.sleep(LEASE_SECONDS / 3)
        with contextlib.suppress(*OUTAGES):  # the next beat may get through
            await taken.renew(pool)
