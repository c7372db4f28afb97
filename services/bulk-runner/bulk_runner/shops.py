"""From a connection to its shop's Admin API."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db import Pool, load_queries
from shared.secrets import TokenVault
from shared.shopify import Shop, Shopify, StoreError

queries = load_queries("bulk_runner")


@dataclass(frozen=True)
class Shops:
    """Opens shops with their stored tokens."""

    pool: Pool
    shopify: Shopify
    vault: TokenVault

    async def open(self, connection_id: int) -> Shop:
        """The shop of a connection; StoreError if it was disconnected."""
        row = await self.pool.fetchrow(queries["connection"], connection_id)
        if row is None or row["access_token"] is None:
            raise StoreError("disconnected", "The store is no longer connected.", "Connect it again.")
        return self.shopify.shop(row["shop"], self.vault.decrypt(row["access_token"]))
