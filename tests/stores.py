"""A store in the sandbox and its copy in Postgres, and whether they are the same, row by row."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from chaos.differences import differences

NUMBERS = itertools.count(1)
TOKEN = "shpat_test"


@dataclass(frozen=True)
class Store:
    """One shop of the sandbox, connected (or about to be) as one brand."""

    services: Any
    shop: str
    brand: str
    http: httpx.AsyncClient
    db: asyncpg.Connection[Any]

    @property
    def control(self) -> str:
        return f"{self.services.sandbox_url}/_sandbox/stores/{self.shop}"

    async def connect(self) -> int:
        """Connect it; returns the connection's id."""
        answer = await self.http.post(
            f"{self.services.ingress_url}/api/connections",
            json={"brandId": self.brand, "shop": self.shop, "accessToken": TOKEN},
            headers=self.services.headers,
        )
        assert answer.status_code == 201, answer.text
        return int(answer.json()["connectionId"])

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """One of the sandbox's controls."""
        answer = await self.http.post(f"{self.control}/{path}", json=body)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def deliver(self, topic: str, body: str, **headers: str) -> int:
        """Sign a body and deliver it as a webhook; returns the answer's status."""
        sent = await self.post("deliver", topic=topic, body=body, headers=headers)
        return int(sent["status"])

    async def status(self) -> str:
        """The connection's sync_status."""
        found = await self.db.fetchval(
            "select sync_status from control.connections where brand_id = $1", self.brand
        )
        return str(found)

    async def is_live(self) -> bool:
        status = await self.status()
        assert status != "attention", await self.db.fetchval(
            "select problem from control.connections where brand_id = $1", self.brand
        )
        return status == "live"

    async def differences(self, *tables: str) -> list[str]:
        """Every way in which our rows differ from the store's."""
        return [str(d) for d in await differences(self.db, self.http, self.control, self.brand, *tables)]

    async def equals(self, *tables: str) -> bool:
        differences = await self.differences(*tables)
        assert not differences, f"{len(differences)} differences, such as {differences[:3]}"
        return True


@asynccontextmanager
async def make_store(services: Any, **wanted: Any) -> AsyncIterator[Store]:
    """A new shop with `orders`, `seed`, `currency`, ... of the sandbox's choosing."""
    number = f"{os.getpid()}-{next(NUMBERS)}"
    shop = f"shop-{number}.myshopify.com"
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(
            f"{services.sandbox_url}/_sandbox/stores",
            json={"shop": shop, "token": TOKEN, "webhook_retry_seconds": 0.2, **wanted},
        )
        assert answer.status_code == 201, answer.text
        db = await asyncpg.connect(services.env["DATABASE_URL"])
        try:
            yield Store(services, shop, f"brand-{number}", http, db)
        finally:
            await db.close()
            await http.delete(f"{services.sandbox_url}/_sandbox/stores/{shop}")
