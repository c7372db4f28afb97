"""Is what landed what Shopify holds? Counts and money sums of both sides, table by table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import asyncpg
import httpx
import msgspec
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


ANSWERS_WITHIN = 60.0  # seconds; the truth of a large store is added up on each request

# What is summed of each table; the first one is what the table shows, all of them have to be equal.
SUMMED = {
    "orders": ("total_price", "current_total_price", "total_refunded", "total_tax", "total_discounts"),
    "order_line_items": ("discounted_total", "original_total", "quantity", "current_quantity"),
    "refunds": ("total_refunded",),
    "refund_line_items": ("subtotal", "total_tax", "quantity"),
    "customers": ("amount_spent", "number_of_orders"),
    "products": ("total_inventory",),
    "product_variants": ("price", "inventory_quantity"),
}


class Figures(msgspec.Struct, frozen=True):
    count: int
    sums: dict[str, Decimal]


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
        return [Row(table, theirs[table], await _ours(connection, brand, table)) for table in SUMMED]
    finally:
        await connection.close()


def as_table(rows: Sequence[Row]) -> Table:
    table = Table(title="What Shopify holds and what landed")
    for heading in ("table", "Shopify", "here", "summed", "Shopify's sum", "sum here", ""):
        justify: Literal["left", "right"] = "left" if heading in ("table", "summed", "") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(
            row.table, f"{row.shopify.count:,}", f"{row.ours.count:,}", *_shown_sum(row), _verdict(row)
        )
    return table


async def _theirs(truth_url: str) -> dict[str, Figures]:
    async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
        answer = await client.get(truth_url)
        answer.raise_for_status()
    truth = msgspec.json.decode(answer.content, type=dict[str, Figures])
    return {
        table: Figures(truth[table].count, {name: truth[table].sums[name] for name in columns})
        for table, columns in SUMMED.items()
    }


async def _ours(connection: asyncpg.Connection[asyncpg.Record], brand: str, table: str) -> Figures:
    sums = ", ".join(f"coalesce(sum({name}), 0)::numeric as {name}" for name in SUMMED[table])
    row = await connection.fetchrow(
        f"select count(*), {sums} from shopify.{table} "
        "where deleted_at is null and connection_id = "
        "(select id from control.connections where brand_id = $1 and removed_at is null)",
        brand,
    )
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return Figures(row["count"], {name: row[name] for name in SUMMED[table]})


def _shown_sum(row: Row) -> tuple[str, str, str]:
    name = SUMMED[row.table][0]
    return name, f"{row.shopify.sums[name]:,}", f"{row.ours.sums[name]:,}"


def _verdict(row: Row) -> str:
    if row.equal:
        return "[green]equal[/]"
    wrong = [name for name, total in row.shopify.sums.items() if row.ours.sums[name] != total]
    return f"[bold red]NOT EQUAL[/] {', '.join(wrong)}"
