"""A wait that Shopify imposes -> ShopWaits, so that whoever watches the store sees why nothing moves.

The client tells of every wait; only long ones that end later than what was told before are worth an event.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from shared.db import Pool, load_queries
from shared.events import ShopWaits
from shared.outages import through_outages
from shared.outbox import emit
from shared.shopify import Why

log = structlog.get_logger()
queries = load_queries("bulk_runner")

SHORTEST_TOLD = 1.5  # seconds; shorter waits are how reading goes along a limit, and over when they are shown
LATER_BY = timedelta(seconds=1)  # than what was told last
SHOPS_KEPT = 10_000  # in memory


class Waits:
    """Hears of waits and writes them down beside the work, never in its way."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._told: dict[str, datetime] = {}
        self._news: dict[str, tuple[datetime, Why]] = {}
        self._is_news = asyncio.Event()

    def hear(self, shop: str, seconds: float, why: Why) -> None:
        """The shop is left alone for so long."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        told = self._told.get(shop)
        if seconds < SHORTEST_TOLD or (told and until < told + LATER_BY):
            return
        if len(self._told) >= SHOPS_KEPT:
            self._told.clear()
        self._told[shop] = until
        self._news[shop] = until, why
        self._is_news.set()

    async def run(self) -> None:
        """Write down what is heard, until cancelled."""
        await through_outages(self._tell)

    async def _tell(self) -> None:
        await self._is_news.wait()
        self._is_news.clear()
        news, self._news = self._news, {}
        for shop, (until, why) in news.items():  # lost in an outage: the next wait is told
            async with self.pool.acquire() as tx, tx.transaction():
                row = await tx.fetchrow(queries["connection_of_shop"], shop)
                if row:
                    who = {"connection_id": row["id"], "brand_id": row["brand_id"]}
                    await emit(tx, ShopWaits(**who, until=until, reason=why))
            log.info("shop.waits", shop=shop, until=until.isoformat(), reason=why)
