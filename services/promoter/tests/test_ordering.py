"""Any interleaving ends in Shopify's final state: children go with their parent."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promotion import customer, deleted, new_store, order, product, redacted, refund, refund_line, tags

ANY_ORDER = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def promote_in_batches(store, messages, together):
    """Each message is its rows; `together` says which wait for the next one and share its batch."""
    waiting: list = []
    for rows, joined in zip(messages, together, strict=True):
        waiting += rows
        if not joined:
            await store.promote(waiting)
            waiting = []
    if waiting:
        await store.promote(waiting)


@st.composite
def shuffled(draw, messages):
    """The messages, some of them twice, in any order and any batches."""
    again = draw(st.lists(st.sampled_from(messages), max_size=3))
    messages = draw(st.permutations([*messages, *again]))
    return messages, draw(st.lists(st.booleans(), min_size=len(messages), max_size=len(messages)))


@st.composite
def refunded_orders(draw):
    """An order that is refunded a few times; perhaps redacted, perhaps deleted in the end."""
    refunds = tuple(range(21, 21 + draw(st.integers(0, 3))))
    messages = [order(updated=10, ordinal=0)]
    for n, id_ in enumerate(refunds, start=1):
        time = 10 + 10 * n
        messages.append(order(updated=time, refunds=refunds[:n], ordinal=n))
        messages.append([refund(id_, sent=time, created=time), refund_line(100 + id_, id_, sent=time)])
    if draw(st.booleans()):
        messages.append([redacted(5, None, [1])])
    if gone := draw(st.booleans()):
        messages.append([deleted("orders", 1, 90)])
    return refunds, gone, *draw(shuffled(messages))


@ANY_ORDER
@given(refunded_orders())
async def test_lines_of_refunds_end_with_their_refunds(db, history):
    """Orders, refunds with their lines, a redaction, a deletion in any order: no orphan."""
    refunds, gone, messages, together = history
    store = await new_store(db)
    await promote_in_batches(store, messages, together)
    assert await store.ids("orders") == ([] if gone else [1])
    assert await store.ids("refunds") == ([] if gone else list(refunds))
    assert await store.ids("refund_line_items") == ([] if gone else [100 + id_ for id_ in refunds])


@st.composite
def products(draw):
    """A product whose variants change; perhaps deleted in the end. Two changes may share a second."""
    sets = draw(st.lists(st.frozensets(st.sampled_from((31, 32, 33)), min_size=1), min_size=1, max_size=4))
    times = draw(st.lists(st.integers(10, 15), min_size=len(sets), max_size=len(sets)).map(sorted))
    messages = [
        product(updated=time, sent=20 + n, variants=tuple(sorted(variants)), ordinal=n, title=str(n))
        for n, (time, variants) in enumerate(zip(times, sets, strict=True))
    ]
    if gone := draw(st.booleans()):
        messages.append([deleted("products", 1, 90)])
    return sets[-1], len(sets) - 1, gone, *draw(shuffled(messages))


@ANY_ORDER
@given(products())
async def test_variants_end_with_their_product(db, history):
    """Copies and a deletion of a product in any order: the newest copy's variants and no others."""
    variants, newest, gone, messages, together = history
    store = await new_store(db)
    await promote_in_batches(store, messages, together)
    assert await store.ids("products") == ([] if gone else [1])
    assert await store.ids("product_variants") == ([] if gone else sorted(variants))
    if not gone:
        assert (await store.row("products"))["title"] == str(newest)


@st.composite
def tagged_customers(draw):
    """A customer whose tags come and go one after the other, each told by a webhook of its own.

    Copies of some moments have the tags of then (or, like webhooks, none); there may have been tags before.
    """
    held = set(draw(st.frozensets(st.sampled_from("abc"))))
    messages = []
    if held:
        messages.append([customer(updated=5, tags=sorted(held))])
    for time in range(10, 10 + 10 * draw(st.integers(1, 6)), 10):
        changed = draw(st.frozensets(st.sampled_from("abc"), min_size=1))
        messages.append([tags(1, time, sorted(changed - held), sorted(changed & held))])
        held ^= changed
        match draw(st.sampled_from(("nothing", "copy", "copy without tags"))):
            case "copy":
                messages.append([customer(updated=time + 1, tags=sorted(held))])
            case "copy without tags":
                messages.append([customer(updated=time + 1)])
    return held, *draw(shuffled(messages))


@ANY_ORDER
@given(tagged_customers())
async def test_tags_end_as_their_last_changes_left_them(db, history):
    """Additions and removals of the same tags, and copies, in any order: the last word on each counts."""
    held, messages, together = history
    store = await new_store(db)
    await promote_in_batches(store, messages, together)
    assert (await store.row("customers"))["tags"] == sorted(held)


async def test_lines_go_and_return_with_their_refund(db):
    """A newer order without a refund retires its lines as well; a newer one with it revives them."""
    store = await new_store(db)
    await store.promote([*order(updated=10, refunds=(21,)), refund_line(121, 21, sent=10)])
    await store.promote(order(updated=20))
    assert await store.ids("refund_line_items") == []
    await store.promote(order(updated=30, refunds=(21,)))
    assert await store.ids("refund_line_items") == [121]


async def test_lines_that_wait_for_a_redacted_order_come_alive_with_it(db):
    """A privacy request and a refund come before the order: the lines are seen when the order is."""
    store = await new_store(db)
    await store.promote([redacted(5, None, [1])])
    await store.promote([refund(21, sent=20, created=20), refund_line(121, 21, sent=20)])
    assert await store.ids("refund_line_items") == []
    await store.promote(order(updated=20, refunds=(21,)))
    assert await store.ids("refund_line_items") == [121]


async def test_a_deletion_counts_though_a_privacy_request_came_first(db):
    """What a request leaves is no tombstone: a copy from before the deletion does not bring the row back."""
    store = await new_store(db)
    await store.promote([redacted(5, None, [1])])
    await store.promote([deleted("orders", 1, 90)])
    await store.promote(order(updated=10))
    assert await store.ids("orders") == []
