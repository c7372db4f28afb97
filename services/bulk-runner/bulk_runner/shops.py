"""From a connection to its shop's Admin API."""

from __future__ import annotations

from dataclasses import dataclass

from shared.db import Pool
from shared.shopify import Shop
from shared.tokens import Tokens


@dataclass(frozen=True)
class Shops:
    """Opens shops with tokens that stay valid."""

    pool: Pool
    tokens: Tokens

    async def open(self, connection_id: int) -> Shop:
        """The shop of a connection; StoreError if it was disconnected or has to be connected again."""
        return await self.tokens.shop(connection_id)
