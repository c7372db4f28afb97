"""`GET /api/operations`: every connection as an operator needs it: its state, lag, pace, errors, what helps.

Lag is the age of the oldest batch that is staged and not promoted: 0 when dashboards can read all that came.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from litestar import Controller, Request, Response, get
from litestar.params import Parameter

from shared.db import load_queries
from status.api import Reading
from status.snapshot import Snapshot, read_snapshots
from status.state import Trouble

queries = load_queries("status")

LARGEST_PAGE = 500  # connections
WINDOW = 60  # seconds that throughput looks back
NEWEST = 5_000  # batches; a minute of a busy installation has some hundreds
NOT_STORED = {"Cache-Control": "no-store"}


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    """One connection at this moment."""

    brand_id: str
    shop: str
    state: str
    percent: float
    eta_seconds: int | None
    lag_seconds: float
    last_event_at: datetime | None
    last_webhook_at: datetime | None
    rows_per_second: float
    webhooks_per_minute: int
    dead_letters: int
    error: Trouble | None


class Operations(msgspec.Struct, frozen=True, rename="camel"):
    """A page of connections; `next` is the `after` of the next page, null at the end."""

    as_of: datetime
    connections: list[Operation]
    next: str | None


class OperationsApi(Controller):
    """What the page of connections shows; needs the API key."""

    path = "/api/operations"
    tags = ("operations",)

    @get()
    async def list_connections(
        self,
        request: Request[Any, Any, Any],
        reading: Reading,
        after: Annotated[str, Parameter(max_length=100)] = "",
        limit: Annotated[int, Parameter(ge=1, le=LARGEST_PAGE)] = 100,
    ) -> Response[Operations]:
        """All connections, a page at a time, in the order of their brands."""
        reading.access.check_operator(request)
        rows = await reading.pool.fetch(
            queries["operations"], after.replace("\x00", ""), limit, WINDOW, NEWEST
        )
        brands = [row["brand_id"] for row in rows]
        found = {each.brand_id: each for each in await read_snapshots(reading.pool, brands)}
        now = datetime.now(UTC)
        shown = [_operation(row, found[row["brand_id"]], now) for row in rows if row["brand_id"] in found]
        page = Operations(now, shown, brands[-1] if len(brands) == limit else None)
        return Response(page, headers=NOT_STORED)


def _operation(row: asyncpg.Record, snapshot: Snapshot, now: datetime) -> Operation:
    document = snapshot.document(now)
    return Operation(
        brand_id=row["brand_id"],
        shop=row["shop"],
        state="removed" if row["removed_at"] else document.sync_status,
        percent=document.percent,
        eta_seconds=document.eta_seconds,
        lag_seconds=round(max((now - row["waiting_since"]).total_seconds(), 0.0), 1)
        if row["waiting_since"]
        else 0.0,
        last_event_at=row["last_event_at"],
        last_webhook_at=row["last_webhook_at"],
        rows_per_second=round(float(row["rows"]) / WINDOW, 1),
        webhooks_per_minute=row["webhooks"],
        dead_letters=row["dead_letters"],
        error=document.last_error,
    )
