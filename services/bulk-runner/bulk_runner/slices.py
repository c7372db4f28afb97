"""Reading more by pages than Shopify pages: slices of a listing, each begun where the last one ended. Pure.

Shopify pages no further than 25,000 objects into a listing (docs/shopify.md). Ours are in the order of a
time, so before that a new search begins at the time of the object read last. Objects of that very second are
read twice, which changes nothing: rows are upserted by their id.
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


def place_after(place: Place, page: Page[Row], order: Order | None, largest: int = LARGEST) -> Place | None:
    """Where the page after this one begins; None after the last one."""
    if page.next is None:
        return None
    read = place.read + len(page.nodes)
    edge = _edge(page, order) if order and read >= largest else None
    # A second that fills a slice cannot be cut; its pages go on as far as Shopify lets them.
    return Place(page.next, place.edge, read) if edge in (None, place.edge) else Place(edge=edge)


def _edge(page: Page[Row], order: Order) -> str | None:
    for node in reversed(page.nodes):
        for row in node.rows[:1]:
            moment = getattr(row, order) if isinstance(row, OrderRow | CustomerRow | ProductRow) else None
            if moment:
                return search_time(datetime.fromisoformat(moment))
    return None
