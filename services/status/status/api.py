"""`/api/sync`: how far each brand is, what has landed, and tokens for widgets.

Reads need the API key or the brand's own token; tokens and the list need the API key.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.params import HeaderParameter, Parameter, QueryParameter
from litestar.types import ASGIApp

from shared.db import Pool, load_queries
from shared.http import problems
from shared.widget_tokens import WidgetTokens
from status.access import Access
from status.data import Data, DataReader
from status.document import Document
from status.hub import REFRESH, Hub, unknown_brand
from status.snapshot import Snapshot, read_snapshot, read_snapshots
from status.sse import EventStream

queries = load_queries("status")

AnyRequest = Request[Any, Any, Any]
BrandId = Annotated[str, Parameter(max_length=100)]
Etag = Annotated[str, HeaderParameter(name="If-None-Match")]

REVALIDATE = {"Cache-Control": "private, no-cache"}
LARGEST_PAGE = 500  # brands


class Token(msgspec.Struct, rename="camel"):
    """A token that reads one brand, and when it ends."""

    token: str
    expires_at: datetime


class Page(msgspec.Struct, rename="camel"):
    """Some brands; `next` is the `after` of the next page, null at the end."""

    brands: list[Document]
    next: str | None


class Reading:
    """What the API reads with."""

    def __init__(self, pool: Pool, access: Access, tokens: WidgetTokens, hub: Hub) -> None:
        self.pool, self.access, self.tokens, self.hub = pool, access, tokens, hub
        self.data = DataReader(pool)

    async def brand(self, request: AnyRequest, brand_id: str) -> Snapshot:
        """The brand's progress; ProblemError if the request may not read it, or it does not exist."""
        self.access.check_reader(request, brand_id)
        return await self._existing(brand_id)

    async def token(self, request: AnyRequest, brand_id: str) -> Token:
        """A new token for a brand that exists."""
        self.access.check_operator(request)
        await self._existing(brand_id)
        return Token(*self.tokens.issue(brand_id))

    async def _existing(self, brand_id: str) -> Snapshot:
        snapshot = await read_snapshot(self.pool, brand_id)
        if snapshot is None:
            raise unknown_brand(brand_id)
        return snapshot


class SyncApi(Controller):
    """What the widget, the dashboard page and operators read."""

    path = "/api/sync"
    tags = ("progress",)

    @get(responses=problems(400, 401, 503))
    async def list_brands(
        self,
        request: AnyRequest,
        reading: Reading,
        after: Annotated[str, Parameter(max_length=100)] = "",
        limit: Annotated[int, Parameter(ge=1, le=LARGEST_PAGE)] = 100,
    ) -> Response[Page]:
        """All brands, a page at a time, in the order of their ids."""
        reading.access.check_operator(request)
        begin = after.replace("\x00", "")  # Postgres takes no such text, so no brand has it
        rows = await reading.pool.fetch(queries["list_brands"], begin, limit)
        found = await read_snapshots(reading.pool, [row["brand_id"] for row in rows])
        now = datetime.now(UTC)
        brands = [snapshot.document(now) for snapshot in sorted(found, key=lambda s: s.brand_id)]
        page = Page(brands, rows[-1]["brand_id"] if len(rows) == limit else None)
        return Response(page, headers=REVALIDATE)

    @get("/{brand_id:str}/status", responses=problems(400, 401, 403, 404, 503))
    async def status(
        self, request: AnyRequest, reading: Reading, brand_id: BrandId, etag: Etag = ""
    ) -> Response[Document | None]:
        """How far the brand's sync is."""
        snapshot = await reading.brand(request, brand_id)
        headers = {**REVALIDATE, "ETag": _etag(snapshot)}
        if headers["ETag"] in (part.strip() for part in etag.split(",")):
            return Response(None, status_code=304, headers=headers)
        return Response(snapshot.document(datetime.now(UTC)), headers=headers)

    @get("/{brand_id:str}/events", media_type="text/event-stream", include_in_schema=False)
    async def events(
        self,
        request: AnyRequest,
        reading: Reading,
        brand_id: BrandId,
        last_event_id: Annotated[str, HeaderParameter(name="Last-Event-ID")] = "",
        seen: Annotated[str, QueryParameter(name="lastEventId")] = "",
    ) -> ASGIApp:
        """The same document by SSE, until the brand is live. `end` says that it is."""
        reading.access.check_reader(request, brand_id)
        return EventStream(reading.hub, brand_id, last_event_id or seen)

    @get("/{brand_id:str}/data", responses=problems(400, 401, 403, 404, 503))
    async def data(self, request: AnyRequest, reading: Reading, brand_id: BrandId) -> Response[Data]:
        """What has landed so far: totals, newest orders, orders over time, best products."""
        snapshot = await reading.brand(request, brand_id)
        data = await reading.data.read(snapshot.connection_id, snapshot.step)
        return Response(data, headers=REVALIDATE)

    @post("/{brand_id:str}/token", responses=problems(400, 401, 404, 503))
    async def token(self, request: AnyRequest, reading: Reading, brand_id: BrandId) -> Response[Token]:
        """A short-lived token that reads this brand and nothing else."""
        token = await reading.token(request, brand_id)
        return Response(token, status_code=201, headers={"Cache-Control": "no-store"})


def _etag(snapshot: Snapshot) -> str:
    """Weak: while a sync runs, times to go change although the version stays."""
    moment = f".{int(time.time() // REFRESH)}" if snapshot.is_running else ""
    return f'W/"{snapshot.id}{moment}"'
