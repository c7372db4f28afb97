"""The demo's proof: it reads the sandbox's truth and our tables, and no difference escapes it."""

import io
from decimal import Decimal

import asyncpg
import httpx
import pytest
from rich.console import Console

from backstock.proof import SUMMED, Figures, Row, as_table, compare

SHOP = "proof.myshopify.com"


@pytest.fixture
def truth_url(sandbox_server):
    """A small store of this test's own."""
    stores = f"{sandbox_server}/_sandbox/stores"
    httpx.post(stores, json={"shop": SHOP, "orders": 20, "seed": 3}).raise_for_status()
    yield f"{stores}/{SHOP}/truth"
    httpx.delete(f"{stores}/{SHOP}")


async def test_an_empty_copy_of_a_store_is_not_equal(database_url, truth_url):
    """Every table that Shopify holds rows of is told apart from our empty one."""
    rows = {row.table: row for row in await compare(database_url, "b", truth_url)}
    assert set(rows) == set(SUMMED)
    assert rows["orders"].shopify.count == 20
    assert rows["orders"].shopify.sums["total_price"] > 0
    assert not rows["orders"].equal
    assert rows["orders"].ours == Figures(0, dict.fromkeys(SUMMED["orders"], Decimal(0)))


async def test_only_live_rows_of_the_brand_count(database_url, truth_url):
    """Deleted rows and other brands' rows are not part of the copy."""
    connection = await asyncpg.connect(database_url)
    for brand in ("b", "other"):
        await connection.execute(
            "insert into control.connections (brand_id, shop) values ($1, $1)",
            brand,
        )
    await connection.execute(
        "insert into shopify.products "
        "(connection_id, id, total_inventory, deleted_at, source, sent_at, revision) "
        "select c.id, i, 5, case when i = 2 then now() end, 'bulk', now(), 1 "
        "from control.connections c, generate_series(1, 2) i"
    )
    await connection.close()
    products = next(row for row in await compare(database_url, "b", truth_url) if row.table == "products")
    assert products.ours == Figures(1, {"total_inventory": Decimal(5)})


def test_a_difference_in_any_sum_is_named():
    """Equal counts are not enough, and the table says which column differs."""
    sums = dict.fromkeys(SUMMED["orders"], Decimal("10.00"))
    row = Row("orders", Figures(2, sums), Figures(2, sums | {"total_tax": Decimal("10.01")}))
    assert not row.equal
    assert Row("orders", Figures(2, sums), Figures(2, dict.fromkeys(sums, Decimal(10)))).equal
    screen = io.StringIO()
    Console(file=screen, width=150).print(as_table([row]))
    assert "NOT EQUAL total_tax" in screen.getvalue()
