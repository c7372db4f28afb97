"""Streams keep what somebody has yet to handle, and nothing else.

    consumed_by of the event -> where each group stands -> everything older than the slowest of them goes

An entry is needed while it is not delivered to every group that the event names, or is delivered and not
acknowledged. A group that is not there yet has read nothing, so its stream stays whole. Every service does
this, for it asks Redis only: whoever comes second finds nothing to do.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import structlog
from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.db import Pool, load_queries
from shared.events import EVENTS, Event
from shared.outages import through_outages
from shared.outbox import stream_name

log = structlog.get_logger()
queries = load_queries("shared")

TRIM_EVERY = 10.0  # seconds
COUNTED_UP_TO = 100_000  # a backlog is alarming long before
FORGET_CONSUMER_MS = 3_600_000  # a consumer name idle this long, with nothing pending, is a dead process

stream_length = Gauge("backstock_stream_length", "Entries in a stream of Redis.", ["stream"])
stream_lag = Gauge(
    "backstock_stream_lag", "Entries that a group has yet to take or to acknowledge.", ["stream", "group"]
)
unsettled = Gauge("backstock_outbox_unsettled", f"Events not handled by all yet, up to {COUNTED_UP_TO}.")
dead_letters = Gauge("backstock_dead_letters_open", f"Open dead letters, up to {COUNTED_UP_TO}.")


class Trimmer:
    """Cuts the streams, forgets dead consumers and tells how far behind everybody is."""

    def __init__(self, pool: Pool, redis: Redis) -> None:
        self.pool, self.redis = pool, redis

    async def run(self) -> None:
        """Until cancelled, through any failure of Redis or Postgres."""
        await through_outages(self._round)

    async def _round(self) -> None:
        await asyncio.sleep(TRIM_EVERY * random.uniform(0.8, 1.2))  # noqa: S311 - replicas spread out
        await self.trim()
        await self._count_backlog()

    async def trim(self) -> int:
        """Cut every stream once; returns how many entries went."""
        gone = 0
        for event in EVENTS.values():
            try:
                gone += await self._trim(event)
            except ResponseError as error:
                if "no such key" not in str(error).lower():  # not sent yet, or lost with Redis
                    raise
        return gone

    async def _trim(self, event: type[Event]) -> int:
        name = stream_name(event)
        groups = {_text(group["name"]): group for group in await self.redis.xinfo_groups(name)}
        length = await self.redis.xlen(name)
        stream_length.labels(event.__name__).set(length)
        for group, state in groups.items():
            behind = state.get("lag")  # None where Redis cannot tell, after deletions
            lag = state["pending"] + (length if behind is None else behind)
            stream_lag.labels(event.__name__, group).set(lag)
            await self._forget_dead_consumers(name, group)
        if not groups.keys() >= set(event.consumed_by):
            return 0
        needed = [await self._oldest_needed(name, groups[service]) for service in event.consumed_by]
        gone: int = await self.redis.xtrim(name, minid=min(needed, key=_order), approximate=False)
        return gone

    async def _oldest_needed(self, name: str, group: dict[str, Any]) -> str:
        """The first entry that the group has not acknowledged, or the last one that it was given."""
        pending = await self.redis.xpending(name, group["name"])
        return _text(pending["min"] or group["last-delivered-id"])

    async def _forget_dead_consumers(self, name: str, group: str) -> None:
        for consumer in await self.redis.xinfo_consumers(name, group):
            if consumer["pending"] == 0 and consumer["idle"] > FORGET_CONSUMER_MS:
                await self.redis.xgroup_delconsumer(name, group, consumer["name"])

    async def _count_backlog(self) -> None:
        row = await self.pool.fetchrow(queries["backlog"], COUNTED_UP_TO)
        assert row is not None  # noqa: S101 - an aggregate always has a row
        unsettled.set(row["unsettled"])
        dead_letters.set(row["dead_letters"])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
