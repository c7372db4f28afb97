"""The only way an event leaves a service: a row beside the work, published after the commit.

    emit (in the work's transaction) -> relay -> stream -> inbox of every service that consumes it
                                          ^------ sweeper: sends again what an inbox still lacks

Redis may lose everything at any moment: what was lost is in the outbox, and the sweeper finds it. A stream
that is full gets no more: its events wait in the outbox, so nothing is trimmed that somebody has yet to read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import asyncpg
import structlog
from redis.asyncio import Redis

from shared.db import Connection, Pool, load_queries
from shared.events import EVENTS, Event
from shared.outages import through_outages
from shared.wakeups import Wakeups

log = structlog.get_logger()
queries = load_queries("shared")

STREAM_PREFIX = "backstock:"
STREAM_LENGTH = 100_000  # entries a stream may hold; a few hundred bytes each
RELAY_BATCH = 500  # events a transaction
RELAY_IDLE = 1.0  # seconds between looks when no notification came
SWEEP_EVERY = 5.0  # seconds
RESEND_AFTER = 30.0  # seconds an event may stay unhandled before it is sent again; doubles each time


def stream_name(event: type[Event]) -> str:
    """`backstock:JobQueued`: one stream an event type."""
    return STREAM_PREFIX + event.__name__


async def emit(tx: Connection, *events: Event) -> None:
    """Write events down in the transaction of the work that caused them."""
    rows = [(e.event_id, type(e).__name__, e.model_dump_json(), list(e.consumed_by)) for e in events]
    await tx.executemany(queries["emit"], rows)
    await tx.execute("notify backstock_outbox")


class Relay:
    """Publishes outbox rows; every service runs one, `skip locked` lets them share the work."""

    def __init__(self, pool: Pool, redis: Redis, *, resend_after: float = RESEND_AFTER) -> None:
        self.pool, self.redis, self.resend_after = pool, redis, resend_after
        self._wakeups = Wakeups(pool, "backstock_outbox")

    async def run(self) -> None:
        """Relay and sweep until cancelled, through any failure of Redis or Postgres."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._wakeups.listen, self._relay, self._sweep):
                tasks.create_task(through_outages(work))

    async def _relay(self) -> None:
        if not await self.publish_pending():
            await self._wakeups.wait(RELAY_IDLE)

    async def publish_pending(self) -> int:
        """Send what nobody has sent yet; returns how many events."""
        types = await self._types_with_room()
        async with self.pool.acquire() as tx, tx.transaction():
            rows = await tx.fetch(queries["take_unpublished"], RELAY_BATCH, types)
            if rows:
                await self._send(rows)
                await tx.execute(queries["mark_published"], [row["id"] for row in rows])
        return len(rows)

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_EVERY * random.uniform(0.8, 1.2))  # noqa: S311 - replicas spread out
        await self.sweep()

    async def sweep(self) -> int:
        """Settle what every consumer has handled; send again what one lacks; returns how many again."""
        await self.pool.execute(queries["settle_outbox"])
        if unknown := await self.pool.fetch(queries["unknown_types"], list(EVENTS)):
            log.warning("outbox.of_a_newer_version", types=[row["event_type"] for row in unknown])
        types = await self._types_with_room()
        async with self.pool.acquire() as tx, tx.transaction():
            rows = await tx.fetch(queries["take_unhandled"], RELAY_BATCH, self.resend_after, types)
            if rows:
                log.warning("outbox.sent_again", events=len(rows))
                await self._send(rows)
                await tx.execute(queries["mark_published"], [row["id"] for row in rows])
        return len(rows)

    async def _send(self, rows: Sequence[asyncpg.Record]) -> None:
        async with self.redis.pipeline(transaction=False) as pipe:
            for row in rows:
                stream = stream_name(EVENTS[row["event_type"]])
                # FastStream reads plain JSON in this field as well as its own envelope.
                pipe.xadd(stream, {"__data__": row["payload"]})
            await pipe.execute()

    async def _types_with_room(self) -> list[str]:
        """The event types whose streams take more. The others' consumers are behind, or away.

        Types that only a newer version knows are none of ours to send: they wait for it.
        """
        async with self.redis.pipeline(transaction=False) as pipe:
            for event in EVENTS.values():
                pipe.xlen(stream_name(event))
            lengths = await pipe.execute()
        return [name for name, length in zip(EVENTS, lengths, strict=True) if length < STREAM_LENGTH]
