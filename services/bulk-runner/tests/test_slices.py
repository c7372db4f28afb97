"""A listing longer than Shopify pages is read whole, slice by slice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import ge, le

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_runner.resources.nodes import Page, ReadNode
from bulk_runner.slices import START, changed_since, created_since, place_after
from shared.rows import CustomerRow

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
DEEPEST = 12  # objects that this Shopify pages
LARGEST = 8  # of a slice, at its last page
FIRST = 3  # objects a page
NOW = 1_000  # the second in which all is read
LAG = 100  # seconds by which the index may be late
SETTLED = SINCE + timedelta(seconds=NOW - LAG)


def moment(second):
    return (SINCE + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(id_, second):
    at = moment(second)
    row = CustomerRow(
        **dict.fromkeys(CustomerRow._fields) | {"id": id_, "sent_at": at, "created_at": at, "updated_at": at}
    )
    return ReadNode(b"{}", [row], id_)


class Shopify:
    """Objects, each changed (and created) at its second, listed in that order or the other way round.

    Those of `changed` were changed just now, which the index does not know yet.
    """

    def __init__(self, seconds, *, newest_first, changed=()):
        self.listed = [
            (moment(second), node(id_, NOW if id_ in changed else second))
            for id_, second in enumerate(seconds)
        ]
        self.listed.sort(key=lambda entry: (entry[0], entry[1].root), reverse=newest_first)
        self.inside = le if newest_first else ge

    def page(self, search, after):
        edge = search.rpartition("'")[0].rpartition("'")[2]
        if search.count("'") == 2 and self.inside is le:
            edge = "9999"
        found = [node for indexed, node in self.listed if self.inside(indexed, edge)]
        start = int(after or 0)
        assert start < DEEPEST, "Shopify pages no further"
        end = start + FIRST
        return Page(found[start:end], str(end) if end < len(found) else None)


def read_all(shopify, search, order):
    place, read, slices = START, [], 1
    while place:
        assert len(read) < 1_000, "it does not end"
        page = shopify.page(search(place.edge), place.after)
        read += [n.root for n in page.nodes]
        before, place = place, place_after(place, page, order, SETTLED, LARGEST)
        slices += bool(place) and place.edge != before.edge
    return read, slices


@pytest.mark.parametrize(
    ("order", "search", "newest_first"),
    [("updated_at", changed_since(SINCE), False), ("created_at", created_since(SINCE), True)],
)
@given(
    seconds=st.lists(st.integers(0, 40), max_size=80).filter(lambda s: max(map(s.count, s), default=0) < 4)
)
def test_every_object_is_read_and_no_slice_is_too_deep(order, search, newest_first, seconds):
    """However the objects lie in time, and however many share a second (fewer than a slice has)."""
    read, slices = read_all(Shopify(seconds, newest_first=newest_first), search, order)
    assert set(read) == set(range(len(seconds)))
    assert slices > 1 or len(seconds) <= DEEPEST


@given(
    seconds=st.lists(st.integers(0, 60), min_size=DEEPEST, max_size=40, unique=True).map(sorted),
    first=st.integers(0, DEEPEST),
    many=st.integers(0, DEEPEST),
)
def test_an_index_that_is_late_hides_nothing(seconds, first, many):
    """Neighbours changed just now stand where they stood before: nothing is passed by because of them."""
    changed = range(first, first + many)
    shopify = Shopify(seconds, newest_first=False, changed=changed)
    try:
        read, _ = read_all(shopify, changed_since(SINCE), "updated_at")
    except AssertionError as refused:  # pages of nothing else cannot be cut
        assert "pages no further" in str(refused)  # noqa: PT017 - one of two good ends
        assert len(changed) >= FIRST
    else:
        assert set(read) == set(range(len(seconds)))


def test_a_second_that_fills_a_slice_ends_in_a_refusal_and_not_in_a_circle():
    """Nothing can be cut there; that Shopify refuses to go on is seen by who waits for the job."""
    with pytest.raises(AssertionError, match="pages no further"):
        read_all(Shopify([5] * 40, newest_first=False), changed_since(SINCE), "updated_at")


def test_nodes_that_cannot_be_read_do_not_hide_where_a_slice_ends():
    """The last one that can be read says where the next slice begins."""
    unread = ReadNode(b"{", [], None, ValueError("no JSON"))
    place = place_after(START, Page([node(1, 5), unread], "cursor"), "updated_at", SETTLED, largest=2)
    assert place is not None
    assert (place.after, place.edge) == (None, moment(5))
    nothing = place_after(START, Page([unread, unread], "cursor"), "updated_at", SETTLED, largest=2)
    assert nothing is not None
    assert (nothing.after, nothing.read) == ("cursor", 2)
