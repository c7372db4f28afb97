"""A store in the sandbox and its copy in Postgres, and whether they are the same, row by row."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import msgspec

TABLES = (
    "orders",
    "order_line_items",
    "refunds",
    "refund_line_items",
    "customers",
    "products",
    "product_variants",
)
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
        return [d for table in tables or TABLES for d in await self._differences_of(table)]

    async def equals(self, *tables: str) -> bool:
        differences = await self.differences(*tables)
        assert not differences, f"{len(differences)} differences, such as {differences[:3]}"
        return True

    async def _tombstones(self) -> set[int]:
        """A line keeps the id of a deleted product; Shopify empties it, without touching the order."""
        rows = await self.db.fetch(
            "select id from shopify.products where deleted_at is not null "
            "union all select id from shopify.product_variants where deleted_at is not null"
        )
        return {row["id"] for row in rows}

    async def _uncounted(self) -> list[int]:
        rows = await self.db.fetch(
            "select distinct product_id from shopify.product_variants where inventory_tracked is null"
        )
        return [row["product_id"] for row in rows]

    async def _differences_of(self, table: str) -> list[str]:
        answer = await self.http.get(f"{self.control}/truth/{table}")
        theirs = {row["id"]: row for row in map(msgspec.json.decode, answer.content.splitlines())}
        found = await self.db.fetch(
            f"select t.* from shopify.{table} t join control.connections c on c.id = t.connection_id "
            "where c.brand_id = $1 and t.deleted_at is null",
            self.brand,
        )
        ours = {row["id"]: row for row in found}
        missing = [f"{table} {id_} is missing" for id_ in theirs.keys() - ours.keys()]
        extra = [f"{table} {id_} should not be there" for id_ in ours.keys() - theirs.keys()]
        both = theirs.keys() & ours.keys()
        gone = await self._tombstones()
        if table == "products":  # a webhook does not say which variants Shopify counts the stock of
            for id_ in await self._uncounted():
                theirs.get(id_, {}).pop("total_inventory", None)
        return (
            missing
            + extra
            + [d for id_ in both for d in _row_differences(table, theirs[id_], ours[id_], gone)]
        )


def _row_differences(table: str, theirs: dict[str, Any], ours: asyncpg.Record, gone: set[int]) -> list[str]:
    return [
        f"{table} {theirs['id']} {name}: {value!r} at Shopify, {ours[name]!r} here"
        for name, value in theirs.items()
        if name in ours.keys() and not (_same(value, ours[name]) or (value is None and ours[name] in gone))  # noqa: SIM118 - a Record iterates over values
    ]


def _same(theirs: object, ours: object) -> bool:
    if isinstance(ours, Decimal) and theirs is not None:
        return Decimal(str(theirs)) == ours
    if isinstance(ours, datetime) and isinstance(theirs, str):
        return datetime.fromisoformat(theirs).astimezone(UTC) == ours
    return theirs == ours


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
