"""Who may work on something, and the proof of it in every transaction.

A lease is a row with an owner, an end and an epoch. Each taking raises the epoch; each batch of work
holds the row under its epoch in its own transaction. A worker that was paused past its lease finds
another epoch there, touches no row, and stops: LeaseLostError.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.db import Connection, Pool, affected, load_queries
from shared.errors import LeaseLostError

queries = load_queries("shared")

LEASE_SECONDS = 30.0  # a batch takes well under a second; longer only delays the take-over after a crash
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
    try:
        yield Lease(key, epoch)
    finally:
        await pool.execute(queries["release_lease"], key, epoch)
