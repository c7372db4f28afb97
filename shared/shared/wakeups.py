"""Being told by Postgres that there is something to do, instead of asking all the time."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg

from shared.db import Pool
from shared.outages import end_if_cancelled

CHECK_CONNECTION = 5.0  # seconds; a connection that died in silence must be noticed


class Wakeups:
    """LISTENs on a channel; `wait` returns at a notification, or after a while all the same."""

    def __init__(self, pool: Pool, channel: str) -> None:
        self.pool, self.channel = pool, channel
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Hold a connection that listens until it breaks; the caller starts it again."""
        async with self.pool.acquire() as connection:
            await connection.add_listener(self.channel, self._on_notify)
            self._news.set()  # whatever was said while nobody listened
            try:
                while not connection.is_closed():
                    end_if_cancelled()
                    await asyncio.sleep(CHECK_CONNECTION)
                    await connection.execute("select 1", timeout=CHECK_CONNECTION)
            finally:
                # Postgres may have dropped the connection: that must not hide why we stop.
                with contextlib.suppress(asyncpg.InterfaceError):
                    await connection.remove_listener(self.channel, self._on_notify)

    async def wait(self, seconds: float) -> None:
        """Until the next notification, `seconds` at the most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def _on_notify(self, *_: object) -> None:
        self._news.set()
