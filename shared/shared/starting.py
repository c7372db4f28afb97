"""Services start in any order: one whose Postgres, Redis or migrations are not there yet waits for them.

answers -> go on        does not answer, not migrated -> again, until the time is up -> NotThereError
a wrong setting -> SettingError at once: waiting would not mend it
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from shared.errors import BackstockError, NotThereError

log = structlog.get_logger()

T = TypeVar("T")

BACKOFF_BASE, BACKOFF_CAP = 0.2, 2.0  # seconds


class StoppedError(BackstockError):
    """The process was told to end while it waited."""


class Patience:
    """`seconds` for everything that a process needs at its start, together."""

    def __init__(self, seconds: float, stop: asyncio.Event) -> None:
        self.over, self.stop = time.monotonic() + seconds, stop

    async def wait_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, once there is one; NotThereError when the time is up, StoppedError at a signal."""
        failures = 0
        while True:
            try:
                return await ask()
            except NotThereError as error:
                longest = min(BACKOFF_CAP, BACKOFF_BASE * 2**failures)
                pause = min(longest * random.uniform(0.5, 1), self.over - time.monotonic())  # noqa: S311 - jitter
                if pause <= 0:
                    raise
                if not failures:
                    log.warning("service.waits", why=str(error))
                failures += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self.stop.wait()
                if self.stop.is_set():
                    raise StoppedError(str(error)) from None
