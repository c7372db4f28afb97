"""Every way in which the rows here differ from the rows that a sandbox's store says there should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import asyncpg
import httpx
import msgspec

from backstock.proof import SUMMED

TABLES = tuple(SUMMED)

LINKS = ("product_id", "variant_id")
Row = Mapping[str, Any]  # a table's columns are of many types
Database: TypeAlias = "asyncpg.Connection[Any]"


@dataclass(frozen=True)
class Difference:
    """One row, or one value of it, that is not as it should be."""

    kind: Literal["lost", "stale", "resurrected"]
    text: str

    def __str__(self) -> str:
        return self.text


async def differences(
    db: Database, http: httpx.AsyncClient, control: str, brand: str, *tables: str
) -> list[Difference]:
    """Compare the tables (all unless named) of a brand with the store whose controls are at `control`."""
    found: list[Difference] = []
    for table in tables or TABLES:
        answer = await http.get(f"{control}/truth/{table}")
        theirs = {row["id"]: row for row in map(msgspec.json.decode, answer.content.splitlines())}
        found += await _of_table(db, brand, table, theirs)
    return found


async def _of_table(db: Database, brand: str, table: str, theirs: dict[int, Any]) -> list[Difference]:
    rows = await db.fetch(
        f"select t.* from shopify.{table} t join control.connections c on c.id = t.connection_id "
        "where c.brand_id = $1 and t.deleted_at is null",
        brand,
    )
    ours = {row["id"]: row for row in rows}
    alive = await _alive(db)
    if table == "products":  # a webhook does not say which variants Shopify counts the stock of
        for id_ in await _uncounted(db):
            theirs.get(id_, {}).pop("total_inventory", None)
    missing = [Difference("lost", f"{table} {id_} is missing") for id_ in theirs.keys() - ours.keys()]
    extra = [
        Difference("resurrected", f"{table} {id_} should not be there") for id_ in ours.keys() - theirs.keys()
    ]
    both = theirs.keys() & ours.keys()
    return missing + extra + [d for id_ in both for d in _of_row(table, theirs[id_], ours[id_], alive)]


async def _alive(db: Database) -> set[int]:
    """A line keeps the id of a product that is no more; Shopify empties it, without touching the order."""
    rows = await db.fetch(
        "select id from shopify.products where deleted_at is null "
        "union all select id from shopify.product_variants where deleted_at is null"
    )
    return {row["id"] for row in rows}


async def _uncounted(db: Database) -> list[int]:
    rows = await db.fetch(
        "select distinct product_id from shopify.product_variants where inventory_tracked is null"
    )
    return [row["product_id"] for row in rows]


def _of_row(table: str, theirs: Row, ours: Row, alive: set[int]) -> list[Difference]:
    return [
        Difference("stale", f"{table} {theirs['id']} {name}: {value!r} at Shopify, {ours[name]!r} here")
        for name, value in theirs.items()
        if name in ours.keys()  # noqa: SIM118 - a Record iterates over values
        and not _same(value, ours[name])
        and not (name in LINKS and value is None and ours[name] not in alive)
    ]


def _same(theirs: object, ours: object) -> bool:
    if isinstance(ours, Decimal) and theirs is not None:
        return Decimal(str(theirs)) == ours
    if isinstance(ours, datetime) and isinstance(theirs, str):
        return datetime.fromisoformat(theirs).astimezone(UTC) == ours
    return theirs == ours
