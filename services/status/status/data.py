"""GET /api/sync/{brandId}/data: what has landed so far, for the dashboard page; nothing personal.

Counting a large store costs Postgres something while the same store is being written. So an answer is kept
for as long as it took to make, times twenty: reading may use at most a twentieth of one core for a brand.
A step of the sync ends that: beside "live" nobody may read how many orders were here a minute ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby

import asyncpg
from msgspec import Struct

from shared.db import Pool, load_queries
from status.measure import Status

queries = load_queries("status")

NEWEST = 10  # orders
BEST = 5  # products
BEST_DAYS = 30  # best products are those of the last month
DAYS = 365
KEEP_AT_LEAST = 0.5  # seconds
KEEP_FACTOR = 20
KEEP_AT_MOST = 120.0  # seconds
BRANDS_KEPT = 200  # answers in memory


class Totals(Struct, frozen=True, rename="camel"):
    """Counts and the value of all orders."""

    orders: int
    customers: int
    products: int
    order_value: Decimal
    currency: str | None
    oldest_order_at: datetime | None


class OrderLine(Struct, frozen=True, rename="camel"):
    """An order in a list."""

    id: str  # a string: JavaScript's numbers end at 2^53
    name: str | None
    created_at: datetime
    total_price: Decimal | None
    currency: str | None
    financial_status: str | None
    fulfillment_status: str | None
    items: int


class Period(Struct, frozen=True, rename="camel"):
    """The orders of a day or a month."""

    start: date
    orders: int
    value: Decimal


class Day(Struct, frozen=True):
    """All orders of a day of UTC."""

    start: date
    orders: int
    value: Decimal
    currency: str | None
    first_at: datetime


class TopProduct(Struct, frozen=True, rename="camel"):
    """A product and what was sold of it."""

    product_id: str
    title: str | None
    quantity: int
    value: Decimal


class Data(Struct, frozen=True, rename="camel"):
    """What the dashboard page shows."""

    as_of: datetime
    totals: Totals
    newest_orders: list[OrderLine]
    orders_per_day: list[Period]
    orders_per_month: list[Period]
    top_products: list[TopProduct]


@dataclass
class _Kept:
    data: Data
    until: float
    step: Status


class DataReader:
    """Reads what has landed, no more often than it can be afforded."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._kept: dict[int, _Kept] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    async def read(self, connection_id: int, step: Status) -> Data:
        """What has landed of a connection; everybody who asks at once gets one answer."""
        lock = self._locks.setdefault(connection_id, asyncio.Lock())
        async with lock:
            kept = self._kept.get(connection_id)
            if kept is None or kept.until < time.monotonic() or kept.step != step:
                kept = await self._fetch(connection_id, step)
                self._keep(connection_id, kept)
        return kept.data

    def _keep(self, connection_id: int, kept: _Kept) -> None:
        self._kept.pop(connection_id, None)
        self._kept[connection_id] = kept
        while len(self._kept) > BRANDS_KEPT:
            oldest = next(iter(self._kept))
            self._kept.pop(oldest)
            self._locks.pop(oldest, None)

    async def _fetch(self, connection_id: int, step: Status) -> _Kept:
        began = time.monotonic()
        async with self.pool.acquire() as connection:
            data = await _read(connection, connection_id, datetime.now(UTC))
        now = time.monotonic()
        keep = min(max((now - began) * KEEP_FACTOR, KEEP_AT_LEAST), KEEP_AT_MOST)
        return _Kept(data, now + keep, step)


async def _read(
    connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], connection_id: int, now: datetime
) -> Data:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    counts = await connection.fetchrow(queries["counts"], connection_id)
    newest = await connection.fetch(queries["newest_orders"], connection_id, NEWEST)
    days = [Day(**dict(row)) for row in await connection.fetch(queries["orders_per_day"], connection_id)]
    best_from = today - timedelta(days=BEST_DAYS - 1)
    best = await connection.fetch(queries["top_products"], connection_id, best_from, BEST)
    first_day = (today - timedelta(days=DAYS - 1)).date()
    return Data(
        as_of=now,
        totals=totals(days, **dict(counts or {})),
        newest_orders=[OrderLine(**{**row, "id": str(row["id"])}) for row in newest],
        orders_per_day=[Period(day.start, day.orders, day.value) for day in days if day.start >= first_day],
        orders_per_month=by_month(days),
        top_products=[TopProduct(**{**row, "product_id": str(row["product_id"])}) for row in best],
    )


def totals(days: Sequence[Day], *, customers: int, products: int) -> Totals:
    """The sum of all days; one pass over the orders has to do for everything that is shown of them."""
    return Totals(
        orders=sum(day.orders for day in days),
        customers=customers,
        products=products,
        order_value=sum((day.value for day in days), Decimal(0)),
        currency=next((day.currency for day in reversed(days) if day.currency), None),
        oldest_order_at=min((day.first_at for day in days), default=None),
    )


def by_month(days: Sequence[Day]) -> list[Period]:
    """The same orders by months of UTC; months without any are left out."""
    months = groupby(days, key=lambda day: day.start.replace(day=1))
    return [
        Period(start, sum(day.orders for day in group), sum((day.value for day in group), Decimal(0)))
        for start, group in ((start, list(group)) for start, group in months)
    ]
