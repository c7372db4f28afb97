"""From a connection to its shop's Admin API."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db import Pool, load_queries
from shared.shopify import Shop
from shared.tokens import Tokens

queries = load_queries("bulk_runner")


@dataclass(frozen=True)
class Shops:
    """Opens shops with tokens that stay valid."""

    pool: Pool
    tokens: Tokens

    async def open(self, connection_id: int) -> Shop:
        """The shop of a connection; StoreError if it was disconnected or has to be connected again."""
        return await self.tokens.shop(connection_id)

    async def scopes(self, connection_id: int) -> list[str]:
        """What the merchant has granted."""
        row = await self.pool.fetchrow(queries["connection"], connection_id)
        return list(row["scopes"]) if row else []
