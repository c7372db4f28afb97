"""A row that Postgres refuses when it is promoted: its object is set aside, all else of the batch goes on."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from cryptography.fernet import Fernet
from promotion import (
    customer,
    deleted,
    line,
    new_store,
    order,
    product,
    redacted,
    refund,
    refund_line,
    summary,
    tags,
    variant,
)

from chaos.differences import TABLES
from promoter import set_aside
from promoter.on_staged_batch import on_staged_batch
from shared.db import connect
from shared.errors import PermanentError
from shared.events import StagedBatch
from shared.rows import count, stage
from shared.secrets import TokenVault

VAULT = TokenVault((Fernet.generate_key().decode(),))
NO_RICH = "alter table shopify.orders add constraint no_rich check (total_price < 1000)"
FEW_PIECES = "alter table shopify.order_line_items add constraint few_pieces check (quantity < 100)"
EMAIL = "rich@example.com"


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def staged(store, rows, *, source="webhook", operation=None, closes=False):
    """Stage a batch as services do; returns its event."""
    store.batches += 1
    batch = await store.db.fetchval(
        "insert into control.batches "
        "(connection_id, job_id, operation_id, seq, source, rows, closes_operation, revision) "
        "select $1, o.job_id, o.id, $2, $3, $4, $5, coalesce(o.revision, nextval('control.revisions')) "
        "from (select 1) one left join control.bulk_operations o on o.id = $6 returning id",
        store.connection_id,
        store.batches,
        source,
        count(rows),
        closes,
        operation,
    )
    await stage(store.db, batch, rows)
    return StagedBatch(
        connection_id=store.connection_id, brand_id="b", batch_id=batch, source=source, rows=count(rows)
    )


async def letters(store):
    return await store.db.fetch("select * from control.dead_letters order by id")


async def left_in_stage(store):
    tables = await store.db.fetch(
        "select relname from pg_class where relnamespace = 'stage'::regnamespace and relkind = 'r'"
    )
    return {
        row["relname"]
        for row in tables
        if await store.db.fetchval(f"select exists (select from stage.{row['relname']})")
    }


async def test_a_refused_order_does_not_sink_its_batch(store, pool):
    """It is set aside with its rows and its reason; the other orders land, and the brand shows attention."""
    await store.db.execute(NO_RICH)
    await store.db.execute("update control.connections set sync_status = 'live'")

    def whole(id_, **values):
        return order(id_, updated=10, lines=(10 + id_,), refunds=(20 + id_,), ordinal=id_, **values)

    rows = [row for id_ in range(1, 8) for row in whole(id_, total_price="5.10")]
    rich = [
        *whole(8, total_price="1000.000000000000000001", email=EMAIL),
        refund_line(48, 28, order_id=8, ordinal=8),
    ]
    event = await staged(store, [*rows[:9], *rich, *rows[9:]])
    await on_staged_batch(event, pool, VAULT)

    assert await store.ids("orders") == list(range(1, 8))
    assert await store.ids("order_line_items") == list(range(11, 18))
    assert await store.ids("refunds") == list(range(21, 28))
    assert await store.ids("refund_line_items") == []
    (letter,) = await letters(store)
    assert (letter["event_type"], letter["service"]) == ("staged row orders", "promoter")
    assert (letter["context"]["resource"], letter["context"]["root"]) == ("orders", 8)
    assert "no_rich" in letter["error"]
    assert EMAIL not in letter["error"]
    assert letter["payload"] == ""
    text = VAULT.unseal(letter["sealed"]).decode()
    assert '"total_price": 1000.000000000000000001' in text
    held = json.loads(text)
    assert {table: [row["id"] for row in rows] for table, rows in held.items()} == {
        "orders": [8],
        "order_line_items": [18],
        "refunds": [28],
        "refund_line_items": [48],
    }
    connection = await store.db.fetchrow("select sync_status, problem from control.connections")
    assert (connection["sync_status"], connection["problem"]["code"]) == ("attention", "set_aside")

    promoted = json.loads(
        await store.db.fetchval("select payload from control.outbox where event_type = 'Promoted'")
    )
    assert promoted["rows"] == {"orders": 7, "order_line_items": 7, "refunds": 7, "refund_line_items": 0}
    assert promoted["written"]["orders"] == 7
    batch = await store.db.fetchrow("select promoted_at, written from control.batches")
    assert batch["promoted_at"]
    assert batch["written"] == promoted["written"]
    assert await left_in_stage(store) == set()


async def test_the_same_object_is_one_letter(store, pool):
    """Refused again and again, an order has one letter, with its newest rows."""
    await store.db.execute(NO_RICH)
    for time, price in ((10, "2000"), (20, "3000")):
        await on_staged_batch(await staged(store, order(updated=time, total_price=price)), pool, VAULT)
    (letter,) = await letters(store)
    assert json.loads(VAULT.unseal(letter["sealed"]))["orders"][0]["total_price"] == 3000


async def test_a_stock_beyond_every_number_is_refused_with_its_product(store, pool):
    """The sum of two variants' stock is no bigint: that product is set aside, the others have their stock."""
    most = 2**63 - 1
    rows = [
        *product(1, updated=10, variants=(31,), ordinal=1),
        *product(2, updated=10, ordinal=2),
        *(variant(id_, product_id=2, ordinal=2, inventory_quantity=most) for id_ in (32, 33)),
        *product(3, updated=10, variants=(34,), ordinal=3),
    ]
    await on_staged_batch(await staged(store, rows), pool, VAULT)
    assert await store.ids("products") == [1, 3]
    assert await store.ids("product_variants") == [31, 34]
    assert (await store.row("products", 3))["total_inventory"] == 3
    (letter,) = await letters(store)
    assert letter["context"]["root"] == 2
    assert str(most) not in letter["error"]


async def test_of_two_rows_that_exclude_each_other_one_stays(store, pool):
    """What is refused because of another row of the batch is found as well."""
    await store.db.execute("create unique index on shopify.orders (connection_id, name)")
    rows = [row for id_ in range(1, 6) for row in order(id_, updated=10, name=f"#{id_ % 4}", ordinal=id_)]
    await on_staged_batch(await staged(store, rows), pool, VAULT)
    assert len(await store.ids("orders")) == 4
    assert [letter["context"]["root"] for letter in await letters(store)] == [5]


async def test_a_privacy_request_counts_though_an_order_beside_it_is_refused(store, pool):
    """It belongs to no object, and is never set aside."""
    await store.db.execute(NO_RICH)
    await store.promote(order(1, updated=10, email=EMAIL))
    rows = [
        *order(2, updated=20, total_price="2000", ordinal=2),
        redacted(30, None, [1]),
        deleted("orders", 3, 30),
    ]
    await on_staged_batch(await staged(store, rows), pool, VAULT)
    assert (await store.row("orders", 1))["email"] is None
    assert (await store.row("orders", 3))["deleted_at"]
    assert await store.ids("orders") == [1]


@pytest.mark.parametrize("request_is", ["promoted", "staged", "removed"])
async def test_nothing_is_set_aside_of_whom_a_privacy_request_was_about(store, pool, request_is):
    """The request is done, or waits, or the store is gone: of the refused order only the reason is kept."""
    await store.db.execute(NO_RICH)
    event = await staged(store, order(1001, updated=10, total_price="2000", email=EMAIL))
    if request_is == "removed":
        await store.db.execute("update control.connections set removed_at = now()")
    else:
        request = await store.stage([redacted(30, 7, [1001])])
        if request_is == "promoted":
            await store.promote_staged(request)
    await on_staged_batch(event, pool, VAULT)
    (letter,) = await letters(store)
    assert (letter["sealed"], letter["payload"], letter["mentions"]) == (None, "", [])
    assert letter["dropped_at"]
    assert "no_rich" in letter["error"]
    assert await store.db.fetchval("select problem from control.connections") is None


async def test_the_batches_of_a_file_close_though_a_line_is_refused(store, pool):
    """Lines that come after their order go aside together; other orders have theirs, and old lines go."""
    await store.db.execute(FEW_PIECES)
    await store.promote(
        [*order(1, updated=5, lines=(11, 19), ordinal=1), *order(2, updated=5, lines=(29,), ordinal=2)]
    )
    operation = await store.operation()
    heads = [row for id_ in (1, 2, 3) for row in order(id_, updated=10, ordinal=None)]
    lines = [
        *(line(id_, order_id=1, sent=10) for id_ in (11, 12)),
        line(21, order_id=2, sent=10)._replace(quantity=100),
        line(22, order_id=2, sent=10),
        line(31, order_id=3, sent=10),
    ]
    bulk = {"source": "bulk", "operation": operation}
    await staged(store, heads, **bulk)
    await staged(store, lines, **bulk)
    await on_staged_batch(await staged(store, [], closes=True, **bulk), pool, VAULT)

    assert await store.ids("orders") == [1, 2, 3]
    assert await store.ids("order_line_items") == [11, 12, 31]
    (letter,) = await letters(store)
    assert letter["context"]["root"] == 2
    job = await store.db.fetchval("select job_id from control.bulk_operations where id = $1", operation)
    assert letter["job_id"] == job  # the next load of all orders settles it
    assert await store.db.fetchval("select bool_and(promoted_at is not null) from control.batches")


async def test_a_batch_of_which_too_much_is_refused_fails_whole(store, pool, monkeypatch):
    """Then it is not the rows that are wrong: nothing is promoted, nothing set aside, the message fails."""
    monkeypatch.setattr(set_aside, "MOST_REFUSED", 2)
    await store.db.execute(NO_RICH)
    rows = [row for id_ in range(1, 9) for row in order(id_, updated=10, total_price="2000", ordinal=id_)]
    rows += order(9, updated=10, total_price="1", ordinal=9)
    event = await staged(store, rows)
    with pytest.raises(PermanentError, match=r"too many rows.*no_rich"):
        await on_staged_batch(event, pool, VAULT)
    assert await store.ids("orders") == []
    assert await letters(store) == []
    assert await store.db.fetchval("select count(*) from stage.orders") == 9


async def test_object_by_object_is_the_same_as_all_at_once(db, pool):
    """Whatever a batch holds, promoted either way it ends in the same rows and the same counts."""
    whole, parts = await new_store(db), await new_store(db)
    batches = [
        [
            *order(1, updated=10, lines=(11, 12), refunds=(21,), ordinal=1),
            refund_line(41, 21, order_id=1, ordinal=1),
            *order(2, updated=10, lines=(13,), ordinal=2),
            customer(1, updated=10, tags=["a"], number_of_orders=1, amount_spent="1"),
            *product(1, updated=10, variants=(31, 32), ordinal=3),
        ],
        [
            *order(1, updated=30, lines=(11,), ordinal=1),
            *order(1, updated=20, lines=(12, 14), ordinal=2),
            refund(22, order_id=2, sent=20, created=20),
            refund_line(42, 22, order_id=2, sent=20),
            customer(1, updated=20),
            tags(1, 25, ["b"], ["a"]),
            summary(2, 25, 3, "30.10"),
            *product(1, updated=20, variants=(32, 33), ordinal=3),
            deleted("products", 2, 20),
            deleted("orders", 2, 40),
            redacted(50, 1, [1]),
        ],
    ]
    for rows in batches:
        written = await whole.promote(rows)
        event = await staged(parts, rows)
        async with pool.acquire() as tx, tx.transaction():
            batch = await tx.fetchrow(
                "select b.*, null as kind from control.batches b where id = $1", event.batch_id
            )
            assert await set_aside.promote_by_object(tx, parts.connection_id, batch, VAULT) == {}
            assert await tx.fetchval("select stage.promote($1)", event.batch_id) == written
    for table in TABLES:
        columns = await db.fetchval(
            "select string_agg(column_name, ', ' order by column_name) from information_schema.columns "
            "where table_schema = 'shopify' and table_name = $1 "
            "and column_name not in ('connection_id', 'synced_at', 'revision')",
            table,
        )
        found = [
            await db.fetch(
                f"select {columns} from shopify.{table} where connection_id = $1 order by id", s.connection_id
            )
            for s in (whole, parts)
        ]
        assert found[0] == found[1], table
        assert found[0], table
    assert (await parts.row("customers", 2))["amount_spent"] == Decimal("30.10")
