"""Who may work on something, and the proof of it in every transaction.

A lease is a row with an owner, an end and an epoch. Each taking raises the epoch; each batch of work
holds the row under its epoch in its own transaction. A worker that was paused past its lease finds
another epoch there, touches no row, and stops: LeaseLostError. While a worker lives, a heartbeat renews its
lease, so that waiting for Shopify loses it to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.db import Connection, Pool, affected, load_queries
from shared.errors import LeaseLostError
from shared.outages import OUTAGES, end_if_cancelled

queries = load_queries("shared")

LEASE_SECONDS = (
    12.0  # how late somebody else goes on after a crash; a heartbeat renews it three times as often
)
OWNER = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True)
class Lease:
    """The right to work on `key`, as long as `hold` succeeds."""

    key: str
    epoch: int

    async def hold(self, tx: Connection) -> None:
        """Renew inside the transaction that the lease guards; LeaseLostError if it is somebody else's."""
        status = await tx.execute(queries["hold_lease"], self.key, self.epoch, LEASE_SECONDS)
        if affected(status) != 1:
            raise LeaseLostError(f"the lease on {self.key} was lost at epoch {self.epoch}")


@asynccontextmanager
async def lease(pool: Pool, key: str) -> AsyncIterator[Lease | None]:
    """Take the lease on `key`, or yield None while somebody else has it."""
    epoch = await pool.fetchval(queries["take_lease"], key, OWNER, LEASE_SECONDS)
    if epoch is None:
        yield None
        return
    heartbeat = asyncio.create_task(_renew(pool, key, epoch))
    try:
        yield Lease(key, epoch)
    finally:
        heartbeat.cancel()
        await asyncio.wait({heartbeat})  # not `await heartbeat`: our own cancellation must not get lost in it
        await pool.execute(queries["release_lease"], key, epoch)


async def _renew(pool: Pool, key: str, epoch: int) -> None:
    while True:
        end_if_cancelled()
        await asyncio.sleep(LEASE_SECONDS / 3)
        with contextlib.suppress(*OUTAGES):  # the next beat may get through
            await pool.execute(queries["hold_lease"], key, epoch, LEASE_SECONDS)
