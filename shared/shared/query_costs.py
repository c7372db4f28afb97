"""What each query cost before, so that the next one like it knows what to wait for.

Alike are queries with the same document and pages of the same size. What one process learns, Redis tells
the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.cost_bucket import Estimate
from shared.optional_redis import OptionalRedis

UNKNOWN = Estimate(400, 20)  # points; our dearest page needs less (Shopify allows 1000), most cost far less
REMEMBERED_FOR = 7 * 24 * 3600  # seconds; a new API version may price a query anew
KINDS = 2_000  # queries remembered by a process; the product has about thirty


class QueryCosts:
    """Estimates by query; one for all shops of a process."""

    def __init__(self, redis: OptionalRedis) -> None:
        self._redis = redis
        self._known: dict[str, Estimate] = {}

    async def estimate(self, kind: str) -> Estimate:
        """What a query of this kind cost last time, here or elsewhere."""
        if kind not in self._known and (found := await self._redis.ask(lambda redis: _read(redis, kind))):
            self._remember(kind, found)
        return self._known.get(kind, UNKNOWN)

    async def learn(self, kind: str, requested: float, actual: float | None) -> None:
        """Remember; the dearest of a kind counts, because its pages may differ a little."""
        known = self._known.get(kind)
        points = max(requested, known.points if known else 0)
        expected = actual if actual is not None else known.expected if known else requested
        fresh = Estimate(points, min(expected, points))
        self._remember(kind, fresh)
        if known is None or known.points != points:
            await self._redis.ask(lambda redis: _write(redis, kind, fresh))

    def _remember(self, kind: str, estimate: Estimate) -> None:
        if len(self._known) >= KINDS and kind not in self._known:
            del self._known[next(iter(self._known))]
        self._known[kind] = estimate


def kind_of(document: str, variables: Mapping[str, Any]) -> str:
    """A key for queries that cost the same: the document, and whatever sets how much it reads."""
    scale = sorted((name, size) for name, value in variables.items() if (size := _size(value)) is not None)
    return hashlib.sha256(f"{document}\n{scale}".encode()).hexdigest()[:32]


def _size(value: object) -> int | None:
    """A page's size as it is; a list's length in powers of two, so that kinds stay few."""
    match value:
        case bool():
            return None
        case int():
            return value
        case list() | tuple():
            return 1 << max(0, len(value) - 1).bit_length()
        case _:
            return None


async def _read(redis: Redis, kind: str) -> Estimate | None:
    found = await redis.get(_key(kind))
    try:
        return msgspec.json.decode(found, type=Estimate) if found else None
    except msgspec.DecodeError:
        return None


async def _write(redis: Redis, kind: str, estimate: Estimate) -> None:
    await redis.set(_key(kind), msgspec.json.encode(estimate), ex=REMEMBERED_FOR)


def _key(kind: str) -> str:
    return f"backstock:query-cost:{kind}"
