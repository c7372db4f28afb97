"""The only way an event leaves a service: a row beside the work, published after the commit.

    emit (in the work's transaction) -> relay -> stream -> inbox of every service that consumes it
                                          ^------ sweeper: sends again what an inbox still lacks

Redis may lose everything at any moment: what was lost is in the outbox, and the sweeper finds it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.db import Connection, Pool, load_queries
from shared.events import EVENTS, Event

log = structlog.get_logger()
queries = load_queries("shared")

STREAM_PREFIX = "backstock:"
STREAM_LENGTH = 100_000  # entries kept a stream; what is trimmed too early, the sweeper sends again
RELAY_BATCH = 500  # events a transaction
RELAY_IDLE = 1.0  # seconds between looks when no notification came
SWEEP_EVERY = 5.0  # seconds
RESEND_AFTER = 30.0  # seconds an event may stay unhandled before it is sent again; doubles each time
BACKOFF_CAP = 5.0  # seconds between tries while Redis or Postgres is away

Work: TypeAlias = Callable[[], Awaitable[None]]


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
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Relay and sweep until cancelled, through any failure of Redis or Postgres."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forever(self._listen))
            tasks.create_task(self._forever(self._relay))
            tasks.create_task(self._forever(self._sweep))

    async def _forever(self, work: Work) -> None:
        delay = 0.1
        while True:
            try:
                await work()
                delay = 0.1
            except (
                RedisError,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                TimeoutError,
            ) as error:
                log.warning(
                    "relay.retry",
                    step=getattr(work, "__name__", "?"),
                    error=repr(error),
                    seconds=round(delay, 2),
                )
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
                delay = min(delay * 2, BACKOFF_CAP)

    async def _listen(self) -> None:
        async with self.pool.acquire() as connection:
            await connection.add_listener("backstock_outbox", self._on_notify)
            try:
                while not connection.is_closed():
                    await connection.execute("select 1", timeout=5)  # a dead connection must be noticed
                    await asyncio.sleep(5)
            finally:
                if not connection.is_closed():
                    await connection.remove_listener("backstock_outbox", self._on_notify)

    def _on_notify(self, *_: object) -> None:
        self._news.set()

    async def _relay(self) -> None:
        self._news.clear()
        if await self.publish_pending():
            return
        try:
            async with asyncio.timeout(RELAY_IDLE):
                await self._news.wait()
        except TimeoutError:
            pass

    async def publish_pending(self) -> int:
        """Send what nobody has sent yet; returns how many events."""
        async with self.pool.acquire() as tx, tx.transaction():
            rows = await tx.fetch(queries["take_unpublished"], RELAY_BATCH)
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
        async with self.pool.acquire() as tx, tx.transaction():
            rows = await tx.fetch(queries["take_unhandled"], RELAY_BATCH, self.resend_after)
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
                pipe.xadd(stream, {"__data__": row["payload"]}, maxlen=STREAM_LENGTH, approximate=True)
            await pipe.execute()
