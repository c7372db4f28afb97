"""A connection's progress anew from its events, while everything runs.

The row of progress is locked, so no event is counted while the history is read: what was committed before is
in the inbox and is read, what comes later finds the new state. The same state is left as it is, to the byte;
another one gets a new epoch, so that every client takes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from shared.db import Pool, load_queries
from status.history import lock_baseline, read_history
from status.measure import status
from status.on_event import drawn, lock_progress, new_epoch, with_percent, write_progress

queries = load_queries("status")


@dataclass(frozen=True)
class Rebuilt:
    """What came of it. `folded` of the `events` had been deleted and were read as their sum."""

    brand_id: str
    events: int
    folded: int
    changed: bool
    percent: float
    sync_status: str


async def rebuild_all(
    pool: Pool, wanted_scopes: Sequence[str], *, brand_id: str | None = None, reset: bool = False
) -> AsyncIterator[Rebuilt]:
    """Every connection, or one brand's, one after the other."""
    for row in await pool.fetch(queries["connections"], brand_id):
        yield await rebuild(pool, row["id"], wanted_scopes, reset=reset)


async def rebuild(
    pool: Pool, connection_id: int, wanted_scopes: Sequence[str], *, reset: bool = False
) -> Rebuilt:
    """Read the history again; percent stays at the highest that was shown, unless `reset`.

    LookupError if there is no such connection.
    """
    async with pool.acquire() as tx, tx.transaction():
        rows = await lock_progress(tx, [connection_id])
        if not rows:
            raise LookupError(f"there is no connection {connection_id}")
        row = rows[0]
        folded = await lock_baseline(tx, connection_id)
        history = await read_history(tx, connection_id, folded)
        progress = with_percent(history.progress, 0.0 if reset else row.shown_percent)
        anew = drawn(row, new_epoch(), row.version + 1, progress, wanted_scopes)
        changed = msgspec.json.decode(row.state) != msgspec.json.decode(msgspec.json.encode(anew.progress))
        if changed:
            await write_progress(tx, [anew])
    return Rebuilt(
        row.brand_id,
        history.events,
        folded.events,
        changed,
        anew.progress.percent,
        status(anew.progress),
    )
