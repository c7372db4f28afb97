"""The points that a shop's queries cost: taken before a query is sent, settled by what its answer says.

take(estimate)      waits for its turn        -> Hold
settle(hold, said)  Shopify's figures count; what was held and not spent goes back

All processes share one bucket a shop in Redis (`cost_bucket.lua`). While Redis is away each goes by what it
knows itself: it may then be throttled, which the client lives with; no query fails because of Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from uuid import uuid4

from redis.asyncio import Redis

from shared.optional_redis import OptionalRedis
from shared.outages import end_if_cancelled
from shared.shopify_metrics import WHY_POINTS, waited

LONGEST_WAIT = 300.0  # seconds for points; then whoever asked had better try again later
ALONE_POLL = 0.25  # seconds between two looks of the one waiter at the head of a process's own line
ASSUMED_SIZE, ASSUMED_RATE = 1000.0, 50.0  # the smallest bucket that Shopify has documented


@dataclass(frozen=True)
class Estimate:
    """What a query will need in the bucket, and what it will probably cost in the end."""

    points: float
    expected: float


@dataclass(frozen=True)
class Figures:
    """The bucket as an answer of Shopify's shows it."""

    left: float
    size: float
    rate: float


@dataclass(frozen=True)
class Said:
    """What came of a query. `spent` is None where nobody knows: then all that was held counts."""

    spent: float | None = None
    figures: Figures | None = None


@dataclass(frozen=True)
class Hold:
    """Points that are ours until the answer is there."""

    id: str
    points: float
    shared: bool
    own_spent: float


@dataclass
class OwnBucket:
    """What one process knows by itself. The reckoning is that of `cost_bucket.lua`."""

    level: float = ASSUMED_SIZE
    size: float = ASSUMED_SIZE
    rate: float = ASSUMED_RATE
    held: float = 0.0
    spent: float = 0.0
    at: float = field(default_factory=time.monotonic)
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    on_wait: Callable[[float], None] = lambda _: None

    async def take(self, points: float) -> float:
        """Waits, first come, first served; returns the points that are held now."""
        async with self.line:
            while (wait := self._missing(points) / self.rate) > 0:
                self.on_wait(wait)
                await asyncio.sleep(min(wait, ALONE_POLL))
            points = min(points, self.size)
            self.held += points
            return points

    def settle(self, hold: Hold, said: Said) -> None:
        """Count what the query cost, and believe Shopify's figures."""
        self._restore()
        cost = hold.points if said.spent is None else said.spent
        self.held -= 0.0 if hold.shared else hold.points
        self.level -= cost
        self.spent += cost
        if figures := said.figures:
            self.size, self.rate = figures.size, max(figures.rate, 1.0)
            # What others here paid since this query was sent may, or may not, be in `left` already.
            least = figures.left - (self.spent - cost - hold.own_spent)
            self.level = min(figures.left, max(self.level, least))

    def _missing(self, points: float) -> float:
        self._restore()
        return min(points, self.size) - (self.level - self.held)

    def _restore(self) -> None:
        now = time.monotonic()
        self.level, self.at = min(self.size, self.level + (now - self.at) * self.rate), now


class Script:
    """`cost_bucket.lua` in whichever Redis answers; one for all shops of a process."""

    def __init__(self, redis: OptionalRedis) -> None:
        self._redis = redis
        text = files("shared").joinpath("cost_bucket.lua").read_text("utf-8")
        self._script = redis.redis.register_script(text) if redis.redis else None

    async def run(self, key: str, *words: object) -> int | None:
        """The script's answer; None while Redis is away."""
        arguments = ["" if word is None else str(word) for word in words]

        async def ask(_redis: Redis) -> int:
            assert self._script  # noqa: S101 - there is one wherever there is a Redis
            return int(await self._script(keys=[key], args=arguments))

        return await self._redis.ask(ask)


class CostBucket:
    """One shop's points."""

    def __init__(self, key: str, script: Script, on_wait: Callable[[float], None] = lambda _: None) -> None:
        """`on_wait` is told how many seconds a query will wait at least."""
        self._key, self._script, self._on_wait = key, script, on_wait
        self._own = OwnBucket(on_wait=on_wait)

    async def take(self, estimate: Callable[[], Awaitable[Estimate]]) -> Hold:
        """Wait until the query can be paid for; TimeoutError if that takes too long.

        The estimate is asked for again while it waits: by then others may know what such a query costs.
        """
        since = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                return await self._take_shared(estimate) or await self._take_own(estimate)
        finally:
            waited.labels(WHY_POINTS).inc(time.monotonic() - since)

    async def settle(self, hold: Hold, said: Said) -> None:
        """Give back what was not spent, and take Shopify's figures over."""
        self._own.settle(hold, said)
        left, size, rate = _three(said.figures)
        await self._script.run(self._key, "settle", hold.id, said.spent, left, size, rate)

    async def _take_shared(self, estimate: Callable[[], Awaitable[Estimate]]) -> Hold | None:
        ticket = uuid4().hex
        while True:
            end_if_cancelled()
            cost = await estimate()
            wait = await self._script.run(self._key, "take", ticket, cost.points, cost.expected)
            if wait is None:
                return None
            if wait == 0:
                return Hold(ticket, cost.points, shared=True, own_spent=self._own.spent)
            self._on_wait(wait / 1000)
            await asyncio.sleep(wait / 1000)

    async def _take_own(self, estimate: Callable[[], Awaitable[Estimate]]) -> Hold:
        points = await self._own.take((await estimate()).points)
        return Hold(uuid4().hex, points, shared=False, own_spent=self._own.spent)


def _three(figures: Figures | None) -> tuple[float | None, float | None, float | None]:
    return (figures.left, figures.size, figures.rate) if figures else (None, None, None)
