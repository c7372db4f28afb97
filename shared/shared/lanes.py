"""Whose turn it is: what a process does at once is shared by the stores, however much one of them asks.

    at once ... the process's own limit
    each ...... how much of that one store may have
    waiting ... messages of one store that stand in line here; more are put back, to make room in the reader

Only `each` of a store line up for what the process does at once, and that line is first come, first served:
a store with a thousand messages gets its turn as often as one with a single message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.outages import OutageError

SOONEST = 1.0  # seconds until a message that was put back may come again
LATEST = 10.0  # seconds; within a message's lease
RETURNS_A_SECOND = 50  # messages that were put back; each costs a claim


@dataclass
class _Lane:
    room: asyncio.Semaphore
    inside: int = 0  # that have or wait for a turn


class Lanes:
    """Turns for one kind of work in one process."""

    def __init__(self, *, at_once: int, each: int, waiting: int | None = None) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._each = each
        self._most = None if waiting is None else each + waiting
        self._lanes: dict[int, _Lane] = {}
        self._next_return = 0.0

    @asynccontextmanager
    async def turn(self, connection_id: int) -> AsyncIterator[None]:
        """Wait for a turn and have it; OutageError, to be put back, if too many of the store wait already."""
        lane = self._lanes.get(connection_id) or _Lane(asyncio.Semaphore(self._each))
        if self._most is not None and lane.inside >= self._most and (later := self._later()):
            raise OutageError("others of this store are first", after=later)
        self._lanes[connection_id] = lane
        lane.inside += 1
        try:
            async with lane.room, self._slots:
                yield
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[connection_id]

    def _later(self) -> float | None:
        """Seconds until it may come again; None if so many are away that it had better wait here."""
        now = time.monotonic()
        returns = max(now + SOONEST, self._next_return + 1 / RETURNS_A_SECOND)
        if returns > now + LATEST:
            return None
        self._next_return = returns
        return returns - now
