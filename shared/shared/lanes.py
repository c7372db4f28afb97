"""Whose turn it is: what a process does at once is shared by the stores, however much one of them asks.

    at once ..... the process's own limit
    each ........ how much of that one store may have
    waiting ..... messages of one store that stand in line here; more are put back, to make room in the reader
    gives way ... whether a store is to leave processors to others: then it rests after each turn

Only `each` of a store line up for what the process does at once, and that line is first come, first served:
a store with a thousand messages gets its turn as often as one with a single message. A rest is REST times as
long as the turn before it, so a store that gives way still goes on with a fifth of its speed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from shared.outages import OutageError

SOONEST = 1.0  # seconds until a message that was put back may come again
LATEST = 10.0  # seconds; within a message's lease
RETURNS_A_SECOND = 50  # messages that were put back; each costs a claim
REST = 4  # times as long as the turn
LONGEST_REST = 10.0  # seconds, whatever the turn took: nobody is starved
SHORT = 0.05  # seconds; a turn that took no longer owes no rest: asking whether it does would cost as much
LOOK_EVERY = 0.5  # seconds; a rest ends when there is nobody to rest for

GivesWay: TypeAlias = Callable[[int], Awaitable[bool]]


@dataclass
class _Lane:
    room: asyncio.Semaphore
    inside: int = 0  # that have or wait for a turn


class Lanes:
    """Turns for one kind of work in one process."""

    def __init__(
        self, *, at_once: int, each: int, waiting: int | None = None, gives_way: GivesWay | None = None
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._each = each
        self._most = None if waiting is None else each + waiting
        self._lanes: dict[int, _Lane] = {}
        self._next_return = 0.0
        self._gives_way = gives_way
        self._rests: dict[int, float] = {}  # connection -> when it has rested, if it is to

    @asynccontextmanager
    async def turn(self, connection_id: int) -> AsyncIterator[None]:
        """Wait for a turn and have it; OutageError, to be put back, if too many of the store wait already."""
        lane = self._lanes.get(connection_id) or _Lane(asyncio.Semaphore(self._each))
        if self._most is not None and lane.inside >= self._most and (later := self._later()):
            raise OutageError("others of this store are first", after=later)
        self._lanes[connection_id] = lane
        lane.inside += 1
        try:
            async with lane.room:
                await self._rest(connection_id)
                async with self._slots:
                    began = time.monotonic()
                    try:
                        yield
                    finally:
                        self._owe(connection_id, began)
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[connection_id]

    def _owe(self, connection_id: int, began: float) -> None:
        """Note the rest that belongs to a turn: all places of the store together keep to their share."""
        now = time.monotonic()
        if self._gives_way is None or (took := now - began) < SHORT:
            return
        self._rests = {id_: until for id_, until in self._rests.items() if until > now}
        self._rests[connection_id] = now + min(LONGEST_REST, took * REST * self._each)

    async def _rest(self, connection_id: int) -> None:
        """Leave the processors to others, if there are any; no place in the line is held meanwhile."""
        while (left := self._rests.get(connection_id, 0.0) - time.monotonic()) > 0:
            if self._gives_way is None or not await self._gives_way(connection_id):
                return
            await asyncio.sleep(min(left, LOOK_EVERY))

    def _later(self) -> float | None:
        """Seconds until it may come again; None if so many are away that it had better wait here."""
        now = time.monotonic()
        returns = max(now + SOONEST, self._next_return + 1 / RETURNS_A_SECOND)
        if returns > now + LATEST:
            return None
        self._next_return = returns
        return returns - now
