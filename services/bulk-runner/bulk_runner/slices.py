"""Reading more by pages than Shopify pages: slices of a listing, each begun where the last one ended. Pure.

Shopify pages no further than 25,000 objects into a listing (docs/shopify.md). Ours are in the order of a
time, so before that a new search begins at the time of the objects read last. What is of that very time is
read twice, which changes nothing: rows are upserted by their id.

A listing by `updated_at` stands in the order that Shopify's search index knows, which may lag behind the
objects: one that was changed a minute ago may stand where it stood years ago. So of a page the earliest time
counts, and only if it is older than any lag: then its object stands where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from bulk_runner.resources.nodes import Page
from bulk_runner.windows import search_time
from shared.rows import CustomerRow, OrderRow, ProductRow, Row

LARGEST = 20_000  # objects; a slice ends at the first page beyond

Root = OrderRow | CustomerRow | ProductRow
Order: TypeAlias = Literal["created_at", "updated_at"]
Search: TypeAlias = Callable[[str | None], str]  # from a slice's beginning, None for the first, on


@dataclass(frozen=True)
class Place:
    """Where reading goes on: at the cursor `after` of the slice from `edge` on, of which `read` are done."""

    after: str | None = None
    edge: str | None = None
    read: int = 0


START = Place()


def changed_since(since: datetime) -> Search:
    """What was changed since then, the earliest change first."""
    return lambda edge: f"updated_at:>='{edge or search_time(since)}'"


def created_since(since: datetime) -> Search:
    """What was created since then, the newest first."""
    first = f"created_at:>='{search_time(since)}'"
    return lambda edge: f"{first} created_at:<='{edge}'" if edge else first


def place_after(
    place: Place, page: Page[Row], order: Order | None, settled: datetime, largest: int = LARGEST
) -> Place | None:
    """Where the page after this one begins; None after the last one.

    `settled`: what was changed before then stands where it belongs.
    """
    if page.next is None:
        return None
    read = place.read + len(page.nodes)
    edge = _edge(page, order, settled) if order and read >= largest else None
    # What cannot be cut, such as a second that fills a slice, is paged as far as Shopify lets us.
    return Place(page.next, place.edge, read) if edge in (None, place.edge) else Place(edge=edge)


def _edge(page: Page[Row], order: Order, settled: datetime) -> str | None:
    roots = [row for node in page.nodes for row in node.rows if isinstance(row, Root)]
    times = [datetime.fromisoformat(moment) for row in roots if (moment := getattr(row, order))]
    earliest = min(times, default=None)
    if earliest is None or (order == "updated_at" and earliest > settled):
        return None
    return search_time(earliest)
