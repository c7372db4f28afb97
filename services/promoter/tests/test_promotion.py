"""Which copy of an object wins: the rules of stage.promote, on a real Postgres."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promotion import (
    customer,
    deleted,
    line,
    moment,
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

# Newest wins


async def test_a_newer_copy_replaces_an_older_one(store):
    """The copy with the later updated_at is what the table shows, with its source and its time of sending."""
    await store.promote(order(updated=10, lines=(11,)), "recent")
    written = await store.promote(order(updated=20, sent=21, lines=(11,)))

    row = await store.row("orders")
    assert (row["name"], row["updated_at"], row["sent_at"]) == ("v20", moment(20), moment(21))
    assert row["source"] == "webhook"
    assert written["orders"] == 1
    assert written["order_line_items"] == 1


async def test_an_older_copy_changes_nothing(store):
    """A copy with an earlier updated_at is dropped with all its children, though it was sent later."""
    await store.promote(order(updated=20, lines=(11, 12)))
    written = await store.promote(order(updated=10, sent=99, lines=(11, 13), refunds=(21,)))

    assert (await store.row("orders"))["name"] == "v20"
    assert (await store.row("order_line_items", 11))["title"] == "v20"
    assert await store.ids("order_line_items") == [11, 12]
    assert await store.ids("refunds") == []
    assert (written["orders"], written["order_line_items"], written["refunds"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "winner"), [(30, 31, "second"), (31, 30, "first"), (30, 30, "second")]
)
async def test_a_tie_goes_to_the_copy_that_was_sent_later(store, first, second, winner):
    """Two changes within one second have one updated_at; the later sent_at wins, an equal one replaces."""
    await store.promote(order(updated=20, sent=first, name="first"))
    await store.promote(order(updated=20, sent=second, name="second"))
    assert (await store.row("orders"))["name"] == winner


async def test_only_the_newest_of_a_batch_counts(store):
    """An order that comes three times in one batch ends as its newest copy, with that copy's lines alone."""
    await store.promote(
        [
            *order(updated=10, lines=(11, 12), ordinal=1),
            *order(updated=30, lines=(11, 13), ordinal=2),
            *order(updated=20, lines=(11, 14), refunds=(21,), ordinal=3),
        ]
    )
    assert (await store.row("orders"))["name"] == "v30"
    assert (await store.row("order_line_items", 11))["title"] == "v30"
    assert await store.ids("order_line_items") == [11, 13]
    assert await store.ids("refunds") == []


async def test_the_same_copy_twice_in_a_batch_is_one_row(store):
    """Equal in every respect: the later ordinal stands for both, and no line is there twice."""
    await store.promote(
        [*order(updated=10, lines=(11,), ordinal=1), *order(updated=10, lines=(11,), ordinal=2)]
    )
    assert await store.ids("orders") == [1]
    assert await store.ids("order_line_items") == [11]


async def test_promoted_rows_leave_the_landing_zone(store):
    """After a promotion schema stage holds nothing of the batch, and the batch says what it wrote."""
    written = await store.promote(
        [
            *order(updated=1, lines=(11,)),
            *product(updated=1, variants=(31,)),
            customer(updated=1),
            tags(2, 1, ["a"]),
        ]
    )
    for table in ("orders", "order_line_items", "products", "product_variants", "customers", "customer_tags"):
        assert await store.db.fetchval(f"select count(*) from stage.{table}") == 0, table
    batch = await store.db.fetchrow("select promoted_at, written from control.batches")
    assert batch["promoted_at"] is not None
    assert batch["written"] == written
    assert written == {
        "orders": 1,
        "order_line_items": 1,
        "refunds": 0,
        "customers": 1,
        "products": 1,
        "product_variants": 1,
    }


# Children are a set


async def test_children_are_replaced_as_a_set(store):
    """Lines that the newer copy no longer has keep their row with the time at which they went."""
    await store.promote(order(updated=10, lines=(11, 12), refunds=(21,)))
    await store.promote(order(updated=20, sent=25, lines=(12, 13), refunds=(22,)))

    assert await store.ids("order_line_items") == [12, 13]
    assert (await store.row("order_line_items", 11))["deleted_at"] == moment(25)
    assert await store.ids("refunds") == [22]
    assert (await store.row("refunds", 21))["deleted_at"] == moment(25)


async def test_a_line_that_comes_back_is_alive_again(store):
    """A removed line that a newer copy has again loses its tombstone."""
    await store.promote(order(updated=10, lines=(11, 12)))
    await store.promote(order(updated=20, lines=(11,)))
    await store.promote(order(updated=30, lines=(11, 12)))
    assert await store.ids("order_line_items") == [11, 12]


async def test_variants_are_replaced_as_a_set(store):
    """A product's variants go the way of an order's lines."""
    await store.promote(product(updated=10, variants=(31, 32)))
    await store.promote(product(updated=20, variants=(32, 33)))
    await store.promote(product(updated=15, variants=(31,)))
    assert await store.ids("product_variants") == [32, 33]
    assert (await store.row("product_variants", 31))["deleted_at"] == moment(20)


async def test_a_webhook_works_the_stock_out(store):
    """Webhooks do not tell a product's stock: it is the sum over the variants that Shopify counts."""
    await store.promote(
        [
            *product(updated=10, total_inventory=7),
            variant(31, ordinal=1, inventory_quantity=7, inventory_tracked=True),
            variant(32, ordinal=1, inventory_quantity=9, inventory_tracked=False),
        ],
        "catch_up",
    )
    assert (await store.row("products"))["total_inventory"] == 7
    await store.promote(
        [
            *product(updated=20),
            variant(31, ordinal=1, inventory_quantity=5),
            variant(32, ordinal=1, inventory_quantity=8),
        ]
    )
    assert (await store.row("products"))["total_inventory"] == 5
    assert (await store.row("product_variants", 32))["inventory_tracked"] is False


async def test_an_older_copy_still_says_which_variants_count(store):
    """A webhook that overtakes the history: the stock is its own, which variants count is the history's."""
    await store.promote(
        [
            *product(updated=20),
            variant(31, ordinal=1, inventory_quantity=5),
            variant(32, ordinal=1, inventory_quantity=8),
        ]
    )
    assert (await store.row("products"))["total_inventory"] == 13
    await store.promote(
        [
            *product(updated=10, total_inventory=7),
            variant(31, ordinal=1, inventory_quantity=7, inventory_tracked=True),
            variant(32, ordinal=1, inventory_quantity=9, inventory_tracked=False),
        ],
        "bulk",
    )
    shown = await store.row("products")
    assert (shown["title"], shown["total_inventory"]) == ("v20", 5)
    assert (await store.row("product_variants", 32))["inventory_quantity"] == 8


# Bulk operations


async def test_bulk_children_may_come_far_behind_their_parent(store):
    """Lines of a later batch belong to the order that an earlier batch of the same operation brought."""
    operation = await store.operation()
    await store.promote_bulk(
        operation, order(1, updated=10, ordinal=None) + order(2, updated=10, ordinal=None)
    )
    await store.promote_bulk(operation, [line(11), line(21, order_id=2)])
    await store.promote_bulk(operation, [line(12)])
    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("order_line_items") == [11, 12, 21]


async def test_bulk_children_are_dropped_once_a_webhook_took_the_order_over(store):
    """The snapshot's lines come after a newer copy by webhook: they are of the past, the webhook's stay."""
    operation = await store.operation()
    await store.promote_bulk(operation, [*order(updated=10, ordinal=None), line(11)])
    await store.promote(order(updated=20, lines=(12, 13)))
    written = await store.promote_bulk(operation, [line(11, title="old"), line(12, title="old"), line(14)])
    await store.promote_bulk(operation, [], closes=True)

    assert written["order_line_items"] == 0
    assert await store.ids("order_line_items") == [12, 13]
    assert (await store.row("order_line_items", 12))["title"] == "v20"


async def test_bulk_children_of_an_order_that_lost_are_dropped(store):
    """The order here is newer than the snapshot's: neither its row nor its lines come in."""
    await store.promote(order(updated=20, lines=(12,)))
    operation = await store.operation()
    await store.promote_bulk(operation, order(updated=10, ordinal=None))
    await store.promote_bulk(operation, [line(11), line(12, title="old")])
    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("order_line_items") == [12]
    assert (await store.row("order_line_items", 12))["title"] == "v20"


async def test_bulk_children_do_not_rise_with_a_deleted_order(store):
    """Between a snapshot's order and its lines the order was deleted: the lines do not come in as alive."""
    operation = await store.operation()
    await store.promote_bulk(operation, order(updated=10, ordinal=None))
    await store.promote([deleted("orders", 1, 20)])
    await store.promote_bulk(operation, [line(11), refund(21)])
    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("orders") == []
    assert await store.ids("order_line_items") == []
    assert await store.ids("refunds") == []


async def test_bulk_variants_do_not_rise_with_a_deleted_product(store):
    """Like an order's lines: a product that is gone by the time has no variants."""
    operation = await store.operation()
    await store.promote_bulk(operation, product(updated=10, ordinal=None))
    await store.promote([deleted("products", 1, 20)])
    await store.promote_bulk(operation, [variant(31)])
    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("product_variants") == []


async def test_the_closing_batch_retires_what_the_file_no_longer_has(store):
    """Until the file is proven nothing is removed; then lines, refunds and variants that it lacks are."""
    await store.promote(order(updated=10, lines=(11, 12), refunds=(21, 22)), "recent")
    await store.promote(product(2, updated=10, variants=(31, 32)), "recent")
    operation = await store.operation()
    await store.promote_bulk(
        operation,
        [
            *order(updated=20, sent=22, ordinal=None),
            refund(22, sent=22),
            *product(2, updated=20, ordinal=None),
        ],
    )
    await store.promote_bulk(operation, [line(12, sent=22), variant(32, product_id=2)])
    assert await store.ids("order_line_items") == [11, 12]

    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("order_line_items") == [12]
    assert (await store.row("order_line_items", 11))["deleted_at"] == moment(22)
    assert await store.ids("refunds") == [22]
    assert await store.ids("product_variants") == [32]


async def test_a_second_run_of_an_operation_replaces_the_first(store):
    """An operation that starts over has a new revision: what only the first run staged is retired."""
    first, second = await store.operation(), await store.operation()
    await store.promote_bulk(first, [*order(updated=10, sent=5, ordinal=None), line(11), line(12)])
    await store.promote_bulk(second, [*order(updated=10, sent=6, ordinal=None), line(12)])
    await store.promote_bulk(second, [line(13)])
    await store.promote_bulk(second, [], closes=True)
    assert await store.ids("order_line_items") == [12, 13]


# Refunds that come alone


async def test_a_refund_may_come_before_its_order(store):
    """The refund is kept at once; a copy of the order from before does not remove it."""
    await store.promote([refund(21, sent=20, created=20), refund_line(41, 21, sent=20, subtotal="3")])
    assert await store.ids("refunds") == [21]

    await store.promote(order(updated=10, lines=(11,)))
    assert await store.ids("refunds") == [21]
    assert await store.ids("refund_line_items") == [41]

    await store.promote(order(updated=20, sent=21, lines=(11,), refunds=(21,)))
    assert await store.ids("refunds") == [21]
    assert await store.total() == Decimal(5)


async def test_a_refund_may_come_after_its_order(store):
    """A refund that the order's copy lists and that comes again alone is still one refund."""
    await store.promote(order(updated=20, lines=(11,), refunds=(21,)))
    await store.promote([refund(21, sent=21, created=20), refund_line(41, 21, sent=21)])
    await store.promote([refund(21, sent=21, created=20), refund_line(41, 21, sent=21)])
    assert await store.ids("refunds") == [21]
    assert await store.ids("refund_line_items") == [41]
    assert await store.total() == Decimal(5)


async def test_a_lone_refund_outlives_a_snapshot_from_before_it(store):
    """The bulk file was written before the refund: its closing batch does not take the refund away."""
    operation = await store.operation()
    await store.promote_bulk(operation, [*order(updated=10, ordinal=None), line(11)])
    await store.promote([refund(21, sent=20, created=20)])
    await store.promote_bulk(operation, [], closes=True)
    assert await store.ids("refunds") == [21]


async def test_a_lone_refund_that_a_newer_order_lacks_is_gone(store):
    """A copy from after the refund that does not list it knows better."""
    await store.promote([refund(21, sent=20, created=20)])
    await store.promote(order(updated=30, lines=(11,)))
    assert await store.ids("refunds") == []


async def test_an_older_lone_refund_does_not_replace_a_newer_one(store):
    """The note was changed: the refund that was sent later stays."""
    await store.promote([refund(21, sent=30, note="new")])
    await store.promote([refund(21, sent=20, note="old")])
    assert (await store.row("refunds", 21))["note"] == "new"


async def test_a_lone_refund_of_a_deleted_order_is_born_deleted(store):
    """The refund's webhook comes after its order's delete: nothing of the order comes back."""
    await store.promote([*order(updated=10, lines=(11,))])
    await store.promote([deleted("orders", 1, 30)])
    await store.promote([refund(21, sent=20, created=20), refund_line(41, 21, sent=20)])
    assert await store.ids("refunds") == []
    assert await store.ids("refund_line_items") == []


async def test_a_lone_refund_and_an_order_share_a_batch(store):
    """Webhooks that come together are one batch: a lone refund is kept beside an order's own."""
    await store.promote(
        [
            *order(updated=10, refunds=(21,), lines=(11,)),
            refund(22, order_id=2, sent=10),
            refund_line(42, 22, order_id=2),
        ]
    )
    assert await store.ids("refunds") == [21, 22]
    assert await store.ids("refund_line_items") == [42]


# Tombstones


async def test_a_delete_takes_the_children_along(store):
    """Order, lines, refunds and refunded lines all carry the moment of the delete."""
    await store.promote(
        [*order(updated=10, lines=(11,), refunds=(21,)), refund_line(41, 21, ordinal=1, sent=10)]
    )
    await store.promote([deleted("orders", 1, 20)])
    for table, id_ in (("orders", 1), ("order_line_items", 11), ("refunds", 21), ("refund_line_items", 41)):
        assert (await store.row(table, id_))["deleted_at"] == moment(20), table


@pytest.mark.parametrize(
    ("resource", "copy"),
    [
        ("orders", lambda updated: order(updated=updated)),
        ("customers", lambda updated: [customer(updated=updated)]),
        ("products", lambda updated: product(updated=updated)),
    ],
)
async def test_a_tombstone_comes_before_its_row_and_only_a_newer_copy_lifts_it(store, resource, copy):
    """A delete of what never arrived blocks older copies and copies of the same moment; a newer one lives."""
    await store.promote([deleted(resource, 1, 20)])
    await store.promote(copy(10))
    await store.promote(copy(20))
    assert await store.ids(resource) == []

    await store.promote(copy(21))
    assert await store.ids(resource) == [1]


async def test_a_late_delete_does_not_hit_a_newer_copy(store):
    """The delete was sent before the copy that is here changed: it is of the past."""
    await store.promote(order(updated=30, lines=(11,)))
    await store.promote([deleted("orders", 1, 20)])
    assert await store.ids("orders") == [1]
    assert await store.ids("order_line_items") == [11]


async def test_a_copy_and_its_delete_in_one_batch_end_deleted(store):
    """Both in one commit: the delete is the last word, whichever row was staged first."""
    await store.promote([deleted("orders", 1, 20), *order(updated=10, lines=(11,))])
    assert await store.ids("orders") == []
    assert await store.ids("order_line_items") == []


# Customers


async def test_a_webhook_keeps_what_it_leaves_out(store):
    """A customer's webhook has neither tags nor totals: those of the last whole copy stay."""
    whole = {"tags": ["a", "b"], "number_of_orders": 4, "amount_spent": "12.50", "currency": "EUR"}
    await store.promote([customer(updated=10, **whole)], "bulk")
    await store.promote([customer(updated=20)])

    row = await store.row("customers")
    assert row["first_name"] == "v20"
    assert (row["tags"], row["number_of_orders"]) == (["a", "b"], 4)
    assert (row["amount_spent"], row["currency"]) == (Decimal("12.50"), "EUR")


async def test_totals_come_before_their_customer(store):
    """A purchasing summary of an unknown customer is kept; the customer's webhook fills in the rest."""
    await store.promote([summary(1, 15, 2, "30.00")])
    await store.promote([customer(updated=10)])
    row = await store.row("customers")
    assert (row["first_name"], row["number_of_orders"], row["amount_spent"]) == ("v10", 2, Decimal("30.00"))


async def test_the_newest_totals_win_whatever_the_age_of_the_rest(store):
    """Totals have their own time: an older summary, and an older snapshot's totals, change nothing."""
    await store.promote([summary(1, 30, 3, "30"), summary(1, 20, 2, "20")])
    await store.promote([summary(1, 10, 1, "10")])
    await store.promote([customer(updated=25, sent=25, number_of_orders=2, amount_spent="20")], "bulk")
    row = await store.row("customers")
    assert (row["first_name"], row["number_of_orders"], row["amount_spent"]) == ("v25", 3, Decimal(30))

    await store.promote([customer(updated=25, sent=40, number_of_orders=4, amount_spent="40")], "catch_up")
    assert (await store.row("customers"))["amount_spent"] == Decimal(40)


async def test_tags_come_and_go_in_the_order_of_events(store):
    """Tags that were added and removed are applied by their time, sorted as Shopify does, each once."""
    await store.promote([customer(updated=10, tags=["VIP", "b"])], "bulk")
    await store.promote([tags(1, 30, [], ["b"]), tags(1, 20, ["b", "a", "VIP"])])
    assert (await store.row("customers"))["tags"] == ["a", "VIP"]


async def test_old_tags_do_not_come_back(store):
    """A tag event from before the copy that is here is in that copy already."""
    await store.promote([customer(updated=30, tags=["a"])], "catch_up")
    await store.promote([tags(1, 20, ["b"], ["a"])])
    assert (await store.row("customers"))["tags"] == ["a"]
    await store.promote([customer(updated=31, sent=31)])
    assert (await store.row("customers"))["tags"] == ["a"]


async def test_tag_events_that_pass_each_other_lose_no_tag(store):
    """A later event that arrives first does not hide an earlier one about another tag."""
    await store.promote([customer(updated=10, tags=["a", "b"])], "bulk")
    await store.promote([tags(1, 30, ["c"])])
    await store.promote([tags(1, 20, ["d"], ["b"])])
    assert (await store.row("customers"))["tags"] == ["a", "c", "d"]


async def test_tags_come_before_their_customer(store):
    """Tags of an unknown customer wait with it, and an older snapshot that has all tags replaces them."""
    await store.promote([tags(1, 20, ["b"])])
    assert (await store.row("customers"))["tags"] == ["b"]
    await store.promote([customer(updated=15, sent=25, tags=["a", "b"])], "bulk")
    assert (await store.row("customers"))["tags"] == ["a", "b"]


# Privacy


async def test_a_redaction_erases_and_older_copies_cannot_bring_it_back(store):
    """Personal data of the customer and of the named orders goes; a copy that was sent before stays out."""
    person = {"email": "a@example.com", "phone": "+1", "note": "n"}
    await store.promote([customer(updated=10, last_name="L", **person)])
    await store.promote(order(1, updated=10, **person) + order(2, updated=10, **person))
    await store.promote([refund(7, sent=10, note="n")])
    await store.promote([redacted(50, 1, [1])])
    assert (await store.row("refunds", 7))["note"] is None

    await store.promote([customer(updated=40, sent=45, last_name="L", **person)], "bulk")
    await store.promote(
        [*order(1, updated=40, sent=45, **person), refund(8, sent=45, ordinal=1, note="n")], "bulk"
    )
    await store.promote([refund(9, sent=46, note="n")])

    row = await store.row("customers")
    assert [row[c] for c in ("first_name", "last_name", "email", "phone", "note")] == [None] * 5
    row = await store.row("orders", 1)
    assert [row[c] for c in ("email", "phone", "note", "redacted_at")] == [None, None, None, moment(50)]
    assert (await store.row("orders", 2))["email"] == "a@example.com"
    assert [(await store.row("refunds", id_))["note"] for id_ in (7, 8, 9)] == [None] * 3


async def test_a_redaction_may_come_before_what_it_is_about(store):
    """Copies from before a request bring everything but personal data; until they come nobody sees a row."""
    await store.promote([redacted(50, 1, [1])])
    assert await store.ids("customers") == await store.ids("orders") == []

    await store.promote([customer(updated=40, sent=45, email="a@example.com")], "bulk")
    await store.promote(
        order(updated=40, sent=45, lines=(11,), email="a@example.com", note="ring twice"), "bulk"
    )
    assert await store.ids("customers") == await store.ids("orders") == [1]
    assert (await store.row("customers"))["email"] is None
    assert (await store.row("orders"))["email"] is None
    assert (await store.row("orders"))["note"] is None


async def test_a_shop_redaction_deletes_one_store_only(db):
    """Every row of the store is gone for good; another store's rows with the same ids are untouched."""
    mine, other = await new_store(db), await new_store(db)
    for store in (mine, other):
        await store.promote(
            [
                *order(updated=10, lines=(11,), refunds=(21,)),
                refund_line(41, 21, ordinal=1),
                customer(updated=10),
                *product(updated=10, variants=(31,)),
            ]
        )
    await mine.promote([redacted(20, shop=True)])
    for table in TABLES:
        counts = "select count(*) from shopify.{} where connection_id = $1"
        assert await db.fetchval(counts.format(table), mine.connection_id) == 0, table
        assert await db.fetchval(counts.format(table), other.connection_id) == 1, table


async def test_what_was_staged_before_a_shop_redaction_does_not_come_back(store):
    """A batch that waits for its promotion is emptied of what Shopify sent before the request."""
    before = [*order(updated=10, lines=(11,), refunds=(21,)), customer(updated=10), *product(updated=10)]
    waiting = [await store.stage(before), await store.stage([customer(2, updated=30)])]
    await store.promote([redacted(20, shop=True)])
    for batch in waiting:
        await store.promote_staged(batch)
    assert {table: await store.ids(table) for table in TABLES} == {table: [] for table in TABLES} | {
        "customers": [2]
    }


async def test_two_stores_with_the_same_ids_never_touch_each_other(db):
    """Newer copies, deletes, closings and redactions of one store leave the other as it was."""
    mine, other = await new_store(db), await new_store(db)
    rows = [
        *order(updated=10, lines=(11, 12), refunds=(21,), email="a@example.com"),
        refund_line(41, 21, ordinal=1),
        customer(updated=10, tags=["a"], number_of_orders=1, amount_spent="1", email="a@example.com"),
        *product(updated=10, variants=(31, 32)),
    ]
    for store in (mine, other):
        await store.promote(rows, "recent")
    before = [
        await db.fetch(f"select * from shopify.{t} where connection_id = $1 order by id", other.connection_id)
        for t in TABLES
    ]

    await mine.promote(order(updated=20, lines=(11,)) + product(updated=20, variants=(31,)))
    operation = await mine.operation()
    await mine.promote_bulk(operation, [*order(updated=30, ordinal=None), *product(updated=30, ordinal=None)])
    await mine.promote_bulk(operation, [], closes=True)
    await mine.promote([tags(1, 40, ["z"]), summary(1, 40, 9, "9"), redacted(40, 1, [1])])
    await mine.promote([deleted("orders", 1, 50), deleted("products", 1, 50), deleted("customers", 1, 50)])

    after = [
        await db.fetch(f"select * from shopify.{t} where connection_id = $1 order by id", other.connection_id)
        for t in TABLES
    ]
    assert after == before


# Any order, any batching

LINES = st.frozensets(st.sampled_from((11, 12, 13)), min_size=1)


@st.composite
def histories(draw):
    """The life of an order, and everything that Shopify says of it, in any order and any batches.

    Each change has its webhook (and a refund its own besides), delivered once or twice; pages and a bulk
    snapshot show some version, the snapshot's lines apart from its order; at the end it may be deleted.
    """
    versions, messages, time = [], [], 100.0
    refunds: tuple[int, ...] = ()
    for number in range(draw(st.integers(1, 4))):
        time += draw(st.sampled_from((0.1, 1, 7)))  # 0.1: the same second
        lone = draw(st.booleans())
        if lone:
            refunds = (*refunds, 21 + number)
        version = {
            "updated": int(time),
            "lines": tuple(sorted(draw(LINES))),
            "refunds": refunds,
            "name": f"{number}",
        }
        versions.append(version)
        times = draw(st.integers(1, 2))
        messages += [("webhook", {**version, "sent": time})] * times
        if lone:
            messages += [("refund", {"id_": refunds[-1], "sent": time, "created": int(time)})] * times
        if draw(st.booleans()):
            messages.append(("page", {**version, "sent": time + 0.05}))
    if gone := draw(st.booleans()):
        messages += [("delete", {"sent": time + 2})] * draw(st.integers(1, 2))
    messages = list(draw(st.permutations(messages)))
    if draw(st.booleans()):
        snapshot = draw(st.sampled_from(versions))
        places = sorted(draw(st.lists(st.integers(0, len(messages)), min_size=3, max_size=3)))
        for place, part in reversed(list(zip(places, ("parent", "children", "closing"), strict=True))):
            messages.insert(place, (part, {**snapshot, "sent": snapshot["updated"] + 0.01}))
    together = draw(st.lists(st.booleans(), min_size=len(messages), max_size=len(messages)))
    return versions[-1], gone, messages, together


def webhook_rows(kind, said, ordinal):
    """What a webhook of that kind brings; nothing for what is read."""
    match kind:
        case "webhook":
            return order(**said, ordinal=ordinal)
        case "refund":
            return [refund(**said)]
        case "delete":
            return [deleted("orders", 1, said["sent"])]
    return []


async def read(store, operation, kind, said):
    """A page, or the next part of a bulk file, is a batch of its own."""
    sent = said["sent"]
    match kind:
        case "page":
            await store.promote(order(**said), "recent")
        case "parent":
            head = order(**{**said, "lines": (), "refunds": ()}, ordinal=None)
            await store.promote_bulk(operation, [*head, *(refund(i, sent=sent) for i in said["refunds"])])
        case "children":
            lines = [line(i, sent=sent, title=said["name"]) for i in said["lines"]]
            await store.promote_bulk(operation, lines)
        case "closing":
            await store.promote_bulk(operation, [], closes=True)
    return []


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(histories())
async def test_any_interleaving_ends_in_the_newest_state(db, history):
    """However copies of an order are mixed, repeated, delayed and batched, the newest remains."""
    newest, gone, messages, together = history
    store = await new_store(db)
    operation = await store.operation()
    waiting: list = []
    for ordinal, ((kind, said), joined) in enumerate(zip(messages, together, strict=True)):
        waiting += webhook_rows(kind, said, ordinal) or await read(store, operation, kind, said)
        if not joined:
            await store.promote(waiting)
            waiting = []
    await store.promote(waiting)

    assert await store.ids("orders") == ([] if gone else [1])
    assert await store.ids("order_line_items") == ([] if gone else list(newest["lines"]))
    assert await store.ids("refunds") == ([] if gone else list(newest["refunds"]))
    if not gone:
        assert (await store.row("orders"))["name"] == newest["name"]
        titles = [(await store.row("order_line_items", i))["title"] for i in newest["lines"]]
        assert titles == [newest["name"]] * len(titles)


CUSTOMER_MESSAGES = st.lists(
    st.tuples(st.sampled_from(("copy", "partial", "totals")), st.integers(1, 30)),
    min_size=1,
    max_size=8,
    unique_by=lambda message: message[1],
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CUSTOMER_MESSAGES, st.lists(st.booleans(), min_size=8, max_size=8))
async def test_a_customers_name_and_totals_each_end_with_their_newest(db, messages, together):
    """Whole copies, webhooks without totals, summaries, in any order: each figure is the newest."""
    store = await new_store(db)
    waiting: list = []
    for (kind, time), joined in zip(messages, together, strict=False):
        match kind:
            case "copy":
                waiting.append(customer(updated=time, number_of_orders=time, amount_spent=str(time)))
            case "partial":
                waiting.append(customer(updated=time))
            case "totals":
                waiting.append(summary(1, time, time, str(time)))
        if not joined:
            await store.promote(waiting)
            waiting = []
    if waiting:
        await store.promote(waiting)

    row = await store.row("customers")
    named = [time for kind, time in messages if kind != "totals"]
    assert row["first_name"] == (f"v{max(named)}" if named else None)
    counted = [time for kind, time in messages if kind != "partial"]
    assert row["number_of_orders"] == (max(counted) if counted else None)


async def test_plans_made_for_empty_tables_do_not_last(store):
    """A session that promoted a few webhooks of a new store promotes its history in good time, too."""
    for number in range(8):  # so often, and the session keeps its plans
        await store.promote(order(number, updated=1, lines=(number,), refunds=(number,)))
        await store.promote_bulk(
            await store.operation(), order(number, updated=2, lines=(number,), refunds=(number,)), closes=True
        )
    history = [
        row
        for number in range(100, 4100)
        for row in order(
            number, updated=3, lines=(2 * number, 2 * number + 1), refunds=(number,), ordinal=None
        )
    ]
    operation, began = await store.operation(), monotonic()
    await store.promote_bulk(operation, history)
    await store.promote_bulk(operation, [], closes=True)
    await store.promote_bulk(await store.operation(), history, closes=True)
    assert monotonic() - began < 20  # it was minutes


async def test_a_small_store_beside_a_huge_one_is_looked_up_by_key(db, store):
    """Statistics know only the huge store: a page of the other reads some rows for each of its own."""
    await db.execute(
        "insert into shopify.orders (connection_id, id, updated_at, sent_at, source, revision) "
        "select $1, i, now(), now(), 'bulk', 1 from generate_series(1, 30000) i",
        store.connection_id,
    )
    await db.execute(
        "insert into shopify.order_line_items (connection_id, id, order_id, sent_at, source, revision) "
        "select connection_id, id, id, sent_at, source, revision from shopify.orders"
    )
    await db.execute("analyze shopify.orders, shopify.order_line_items")
    small = await new_store(db)
    for page in range(6):
        await small.promote(orders_of(page), "recent")
    before = await rows_read(db)
    await small.promote(orders_of(2, updated=2), "recent")
    assert await rows_read(db) - before < 50 * len(orders_of(2))


def orders_of(page, updated=1):
    """Fifty orders of one line each."""
    return [
        row
        for i in range(50)
        for row in order(1 + page * 50 + i, updated=updated, lines=(page * 50 + i,), ordinal=i)
    ]


async def rows_read(db):
    """Of the tables of orders, so far."""
    await db.execute("select pg_stat_force_next_flush()")
    read: int = await db.fetchval(
        "select sum(idx_tup_fetch + seq_tup_read) from pg_stat_user_tables "
        "where relid in ('shopify.orders'::regclass, 'shopify.order_line_items'::regclass)"
    )
    return read
