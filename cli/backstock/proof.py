"""Is what landed what Shopify holds? Counts and money sums of both sides, table by table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
import msgspec
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Compared:
    """A table of ours, the truth's name for it, and the money column that is summed, if it has one."""

    table: str
    label: str
    money: str | None


COMPARED = (
    Compared("orders", "orders", "total_price"),
    Compared("order_line_items", "lineItems", "discounted_total"),
    Compared("refunds", "refunds", "total_refunded"),
    Compared("customers", "customers", "amount_spent"),
    Compared("products", "products", None),
    Compared("product_variants", "variants", "price"),
)


class Figures(msgspec.Struct, frozen=True):
    count: int
    sum: Decimal | None = None


@dataclass(frozen=True)
class Row:
    table: str
    shopify: Figures
    ours: Figures

    @property
    def equal(self) -> bool:
        return self.shopify == self.ours


async def compare(database_url: str, brand: str, truth_url: str) -> list[Row]:
    """One row per table; both sides are read now."""
    theirs = await _theirs(truth_url)
    connection = await asyncpg.connect(database_url)
    try:
        return [Row(c.table, theirs[c.label], await _ours(connection, brand, c)) for c in COMPARED]
    finally:
        await connection.close()


def as_table(rows: Sequence[Row]) -> Table:
    table = Table(title="What Shopify holds and what landed")
    for heading in ("table", "Shopify", "here", "Shopify's sum", "sum here", ""):
        table.add_column(heading, justify="left" if heading in ("table", "") else "right", no_wrap=True)
    for row in rows:
        verdict = "[green]equal[/]" if row.equal else "[bold red]NOT EQUAL[/]"
        counts = f"{row.shopify.count:,}", f"{row.ours.count:,}"
        table.add_row(row.table, *counts, _money(row.shopify), _money(row.ours), verdict)
    return table


async def _theirs(truth_url: str) -> dict[str, Figures]:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(truth_url)
        answer.raise_for_status()
    document = msgspec.json.decode(answer.content, type=dict[str, Any])
    return {c.label: msgspec.convert(document[c.label], Figures, strict=False) for c in COMPARED}


async def _ours(connection: asyncpg.Connection[asyncpg.Record], brand: str, compared: Compared) -> Figures:
    total = f"coalesce(sum({compared.money}), 0)" if compared.money else "null::numeric"
    row = await connection.fetchrow(
        f"select count(*) as count, {total} as sum from shopify.{compared.table} "
        "where deleted_at is null and connection_id = "
        "(select id from control.connections where brand_id = $1 and removed_at is null)",
        brand,
    )
    return msgspec.convert(dict(row or {}), Figures)


def _money(figures: Figures) -> str:
    return "" if figures.sum is None else f"{figures.sum:,.2f}"
