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


def moment(second):
    return (SINCE + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(id_, second):
    at = moment(second)
    row = CustomerRow(
        **dict.fromkeys(CustomerRow._fields) | {"id": id_, "sent_at": at, "created_at": at, "updated_at": at}
    )
    return ReadNode(b"{}", [row], id_)


class Shopify:
    """Objects, each changed (and created) at its second, listed in that order or the other way round."""

    def __init__(self, seconds, *, newest_first):
        self.nodes = [node(id_, second) for id_, second in enumerate(seconds)]
        self.nodes.sort(key=lambda n: (n.rows[0].created_at, n.root), reverse=newest_first)
        self.inside = le if newest_first else ge

    def page(self, search, after):
        edge = search.rpartition("'")[0].rpartition("'")[2]
        if search.count("'") == 2 and self.inside is le:
            edge = "9999"
        found = [n for n in self.nodes if self.inside(n.rows[0].created_at, edge)]
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
        before, place = place, place_after(place, page, order, LARGEST)
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


def test_a_second_that_fills_a_slice_ends_in_a_refusal_and_not_in_a_circle():
    """Nothing can be cut there; that Shopify refuses to go on is seen by who waits for the job."""
    with pytest.raises(AssertionError, match="pages no further"):
        read_all(Shopify([5] * 40, newest_first=False), changed_since(SINCE), "updated_at")


def test_nodes_that_cannot_be_read_do_not_hide_where_a_slice_ends():
    """The last one that can be read says where the next slice begins."""
    unread = ReadNode(b"{", [], None, ValueError("no JSON"))
    place = place_after(START, Page([node(1, 5), unread], "cursor"), "updated_at", largest=2)
    assert place is not None
    assert (place.after, place.edge) == (None, moment(5))
    nothing = place_after(START, Page([unread, unread], "cursor"), "updated_at", largest=2)
    assert nothing is not None
    assert (nothing.after, nothing.read) == ("cursor", 2)
