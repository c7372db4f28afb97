"""Subscriptions are looked at again and again: Shopify deletes one after eight failed deliveries, silently.

What is missing is registered again, and what was missed meanwhile is read: a catch_up from the last look on.
"""

from __future__ import annotations

import asyncio
import random

import asyncpg
import structlog

from ingress.connections import queue_job
from ingress.on_connection_created import register, topics
from shared.db import load_queries
from shared.lease import lease
from shared.outages import through_outages
from shared.shopify import ShopifyUnavailableError, StoreError
from shared.tokens import Tokens

log = structlog.get_logger()
queries = load_queries("ingress")


class WebhookKeeper:
    """Checks the subscriptions of every live store once in `every` seconds."""

    def __init__(self, tokens: Tokens, uri: str, every: float) -> None:
        self.tokens, self.uri, self.every = tokens, uri, every

    async def run(self) -> None:
        """Until cancelled; replicas share the stores by their leases."""
        await through_outages(self._look)

    async def _look(self) -> None:
        await asyncio.sleep(min(self.every, 60.0) * random.uniform(0.5, 1))  # noqa: S311 - replicas spread out
        for row in await self.tokens.pool.fetch(queries["webhooks_to_check"], self.every):
            async with lease(self.tokens.pool, f"webhooks:{row['id']}") as held:
                if held is not None:
                    await self._check(row)

    async def _check(self, row: asyncpg.Record) -> None:
        pool = self.tokens.pool
        known = {w["topic"]: w["gid"] for w in await pool.fetch(queries["subscription_gids"], row["id"])}
        try:
            shop = await self.tokens.shop(row["id"])
            registered, refused = await register(shop, self.uri, topics(row["scopes"]))
        except (StoreError, ShopifyUnavailableError) as error:
            log.warning("webhooks.not_checked", connection=row["id"], error=str(error))
            registered, refused = {}, {}
        lost = [topic for topic, gid in registered.items() if known.get(topic) != gid]
        async with pool.acquire() as tx, tx.transaction():
            await tx.execute(queries["webhooks_checked"], row["id"])
            for topic, gid in registered.items():
                await tx.execute(queries["note_subscription"], row["id"], topic, gid, self.uri)
            if lost:
                await queue_job(tx, row["id"], row["brand_id"], "catch_up", row["webhooks_checked_at"])
        log.info("webhooks.checked", connection=row["id"], registered_again=lost, refused=len(refused))
