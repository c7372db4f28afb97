"""Rows through COPY into schema stage: every value comes out as it went in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.rows import TABLES, CustomerTagsRow, DeletionRow, OrderRow, RedactionRow, count, stage

SENT = "2026-11-20T10:00:00.123456+00:00"


@pytest.fixture
async def db(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def order(**values):
    known = {"sent_at": SENT, "id": 1, "updated_at": SENT}
    return OrderRow(**{**dict.fromkeys(OrderRow._fields), **known, **values})


async def staged(db, batch, row):
    await stage(db, batch, [row])
    return await db.fetchrow(f"select * from stage.{TABLES[type(row)]} where batch_id = $1", batch)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.none() | TEXTS, st.none() | st.lists(TEXTS, max_size=5))
async def test_texts_come_out_as_they_went_in(db, name, note, tags):
    """Tabs, line ends, backslashes, quotes, braces, \\N, NULL as a word: only NUL has a stand-in."""
    await db.execute("truncate stage.orders")
    row = await staged(db, 1, order(name=name, note=note, tags=tags))

    def kept(text):
        return text.replace("\x00", "\ufffd")

    assert row["name"] == kept(name)
    assert row["note"] == (None if note is None else kept(note))
    assert row["tags"] == (None if tags is None else [kept(tag) for tag in tags])


@pytest.mark.parametrize(
    "text", ["\\N", "\\.", "NULL", "{}", '{"a"}', "", " ", "a\\tb", "\r\n", "'; drop table"]
)
async def test_words_of_copys_own_language_are_texts(db, text):
    """What COPY or an array could take for a sign is a text like any other, alone and in a list."""
    row = await staged(db, 1, order(name=text, tags=[text, text]))
    assert row["name"] == text
    assert row["tags"] == [text, text]


async def test_numbers_times_and_flags_are_exact(db):
    """Ids up to 2^63 - 1, money with any number of decimals, times to the microsecond, null as null."""
    row = await staged(
        db,
        7,
        order(
            id=2**63 - 1,
            total_price="12345678901234567890.123456789",
            total_tax="0.10",
            updated_at="2021-12-31T19:00:00-05:00",
            test=True,
            taxes_included=False,
            ordinal=0,
        ),
    )
    assert row["id"] == 2**63 - 1
    assert row["total_price"] == Decimal("12345678901234567890.123456789")
    assert str(row["total_tax"]) == "0.10"
    assert row["updated_at"] == datetime(2022, 1, 1, tzinfo=UTC)
    assert row["sent_at"] == datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC)
    assert (row["test"], row["taxes_included"], row["ordinal"], row["batch_id"]) == (True, False, 0, 7)
    assert row["customer_id"] is None
    assert row["tags"] is None


async def test_every_kind_of_row_goes_to_its_table(db):
    """A batch may mix kinds; each lands in its own table, and the count says how many."""
    rows = [
        order(),
        DeletionRow(SENT, "orders", 2),
        CustomerTagsRow(SENT, 3, ["a"], []),
        RedactionRow(SENT, None, [4, 2**62], whole_shop=True),
        order(id=5),
    ]
    assert count(rows) == {"orders": 2, "deletions": 1, "customer_tags": 1, "redactions": 1}
    await stage(db, 9, rows)
    redaction = await db.fetchrow("select * from stage.redactions")
    assert (redaction["order_ids"], redaction["whole_shop"]) == ([4, 2**62], True)
    for table, number in count(rows).items():
        assert await db.fetchval(f"select count(*) from stage.{table} where batch_id = 9") == number


async def test_a_value_that_is_none_fails_the_whole_batch(db):
    """Postgres checks what Python passes on as text: a wrong date leaves nothing of the batch behind."""
    with pytest.raises(asyncpg.DataError):
        async with db.transaction():
            await stage(db, 1, [order(id=1), order(id=2, created_at="2026-13-01")])
    assert await db.fetchval("select count(*) from stage.orders") == 0


async def test_a_large_batch_is_sent_in_pieces(db):
    """Far more than one COPY message: every row arrives."""
    rows = [order(id=n, note="x" * 1000) for n in range(2000)]
    await stage(db, 1, rows)
    assert await db.fetchval("select count(distinct id) from stage.orders where length(note) = 1000") == 2000


async def test_no_rows_are_no_work(db):
    """An empty batch touches no table."""
    await stage(db, 1, [])
    assert count([]) == {}
