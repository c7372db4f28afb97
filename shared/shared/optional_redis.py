"""Redis for things that work better with it and must work without: None, soon, while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.shopify_metrics import without_redis

log = structlog.get_logger()

T = TypeVar("T")

WITHIN = 1.0  # seconds; a healthy one answers in a millisecond, a busy process may be late itself
AWAY_FOR = 3.0  # seconds that it is left alone after it did not answer


class OptionalRedis:
    """Asks Redis if there is one and it has answered lately."""

    def __init__(self, redis: Redis | None) -> None:
        self.redis = redis
        self._ask_again_at = 0.0
        self._is_away = False

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T | None:
        """The answer; None where there is none."""
        if self.redis is None or time.monotonic() < self._ask_again_at:
            return None
        try:
            async with asyncio.timeout(WITHIN):
                answer = await question(self.redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._went_away(error)
            return None
        if self._is_away:
            self._is_away = False
            log.info("shopify.points_shared_again")
        return answer

    def _went_away(self, error: Exception) -> None:
        without_redis.inc()
        self._ask_again_at = time.monotonic() + AWAY_FOR
        if not self._is_away:
            self._is_away = True
            log.warning("shopify.points_not_shared", error=type(error).__name__)
