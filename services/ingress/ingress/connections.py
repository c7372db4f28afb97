"""The management API: connect a store, list, read, sync again, disconnect. -> ConnectionCreated

All calls need `Authorization: Bearer $BACKSTOCK_API_KEY`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import asyncpg
import msgspec
import structlog
from litestar import Controller, delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import Parameter

from ingress.connecting import BRAND, BrandTakenError, connect, refused, remove, unavailable, valid_brand
from ingress.signatures import shop_domain
from shared.answers import ProblemError
from shared.db import Connection, load_queries
from shared.errors import PermanentError
from shared.events import JobKind, JobQueued
from shared.grants import Grant
from shared.http import bearer, is_api_key, problems, unauthorized
from shared.outbox import emit
from shared.scopes import lacking
from shared.shopify import ShopifyUnavailableError, StoreError
from shared.tokens import Tokens

log = structlog.get_logger()
queries = load_queries("ingress")

JOB_KINDS: tuple[JobKind, ...] = JobKind.__args__  # type: ignore[attr-defined]
LONGEST_TOKEN = 500  # characters; Shopify's have about 40


class NewConnection(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of `POST /api/connections`."""

    brand_id: str
    shop: str
    access_token: str | None = None


class SyncRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/sync/{brandId}`."""

    jobs: list[str]


class QueuedJob(msgspec.Struct, rename="camel"):
    """A job that was queued, or the one of its kind that is under way already."""

    job_id: int
    kind: str


class SyncAccepted(msgspec.Struct, rename="camel"):
    """The answer of `POST /api/sync/{brandId}`."""

    brand_id: str
    jobs: list[QueuedJob]


class ConnectionDocument(msgspec.Struct, rename="camel"):
    """A connection as the API shows it; never its token."""

    connection_id: int
    brand_id: str
    shop: str
    metadata: dict[str, Any]
    sync_status: str
    scopes: list[str]
    problem: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None


def document(row: asyncpg.Record) -> ConnectionDocument:
    """A row of control.connections as a document."""
    fields = {name: row[name] for name in ConnectionDocument.__struct_fields__ if name != "connection_id"}
    return ConnectionDocument(connection_id=row["id"], **fields)


class Management:
    """What the API works with."""

    def __init__(self, tokens: Tokens, api_key: str) -> None:
        self.pool, self.tokens, self.api_key = tokens.pool, tokens, api_key

    async def grant(self, shop: str, access_token: str | None) -> Grant:
        """The token that was given or, without one, what the app's own credentials give at the shop."""
        if access_token is not None:
            return Grant("custom", _valid_token(access_token))
        try:
            return await self.tokens.endpoint.by_credentials(shop)
        except StoreError as error:
            raise refused(error) from error
        except ShopifyUnavailableError as error:
            raise unavailable(shop) from error


async def queue_job(
    tx: Connection, connection_id: int, brand_id: str, kind: JobKind, since: datetime | None = None
) -> int:
    """Queue a job, unless one of its kind is under way; returns its id, or that one's.

    `since`: changes from here on are to be read by a catch_up; None: from the last one on.
    """
    job = await tx.fetchrow(queries["queue_job"], connection_id, kind, since, lacking(()))
    if job is None:
        raise LookupError(connection_id)
    if job["is_new"]:
        await emit(tx, JobQueued(connection_id=connection_id, brand_id=brand_id, job_id=job["id"], kind=kind))
    return int(job["id"])


def needs_api_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A Litestar guard: the management API is closed without its key."""
    management: Management = connection.app.state.management
    if not is_api_key(bearer(connection), management.api_key):
        raise unauthorized("send the management key: Authorization: Bearer $BACKSTOCK_API_KEY")


def _valid_token(access_token: str) -> str:
    token = access_token.strip()
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ProblemError(
            400, "Bad request", "accessToken: give the Admin API access token, such as shpat_..."
        )
    return token


ConnectionId = Annotated[int, Parameter(ge=1, le=2**63 - 1)]


class ConnectionsApi(Controller):
    """`/api/connections` and `/api/sync`."""

    path = "/api"
    guards = (needs_api_key,)
    tags = ("management",)

    @post("/connections", status_code=201, responses=problems(400, 401, 409, 413, 422, 503))
    async def connect(
        self, data: NewConnection, management: NamedDependency[Management]
    ) -> ConnectionDocument:
        """Connect a store with a custom app's token or, without one, with this app's own credentials.

        The same brand and shop again: the same connection.
        """
        shop = shop_domain(data.shop)
        if shop is None:
            raise ProblemError(
                400, "Bad request", "shop: give the shop's domain, such as my-store.myshopify.com"
            )
        brand_id = valid_brand(data.brand_id)
        grant = await management.grant(shop, data.access_token)
        try:
            return document(await connect(management.tokens, brand_id, shop, grant))
        except BrandTakenError as taken:
            raise ProblemError(
                409, "Brand in use", f"brand {brand_id} belongs to {taken}: use another brandId for {shop}"
            ) from None

    @get("/connections", responses=problems(400, 401, 503))
    async def list_connections(
        self,
        management: NamedDependency[Management],
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        offset: Annotated[int, Parameter(ge=0, le=10**9)] = 0,
    ) -> list[ConnectionDocument]:
        """All connections, the newest first."""
        rows = await management.pool.fetch(queries["list_connections"], limit, offset)
        return [document(row) for row in rows]

    @get("/connections/{connection_id:int}", responses=problems(400, 401, 404, 503))
    async def read(
        self, connection_id: ConnectionId, management: NamedDependency[Management]
    ) -> ConnectionDocument:
        """One connection."""
        row = await management.pool.fetchrow(queries["connection_by_id"], connection_id)
        if row is None:
            raise _unknown_connection(connection_id)
        return document(row)

    @delete("/connections/{connection_id:int}", responses=problems(400, 401, 404, 503))
    async def disconnect(self, connection_id: ConnectionId, management: NamedDependency[Management]) -> None:
        """Disconnect a store: its token and its webhooks go, its data stay."""
        row = await management.pool.fetchrow(queries["connection_by_id"], connection_id)
        if row is None:
            raise _unknown_connection(connection_id)
        await _unsubscribe(management, row)
        async with management.pool.acquire() as tx, tx.transaction():
            await remove(tx, connection_id, "disconnected")

    @post("/sync/{brand_id:str}", status_code=202, responses=problems(400, 401, 404, 413, 503))
    async def sync(
        self, brand_id: str, data: SyncRequest, management: NamedDependency[Management]
    ) -> SyncAccepted:
        """Run jobs again. A job that is under way goes on instead."""
        if unknown := [job for job in data.jobs if job not in JOB_KINDS]:
            raise ProblemError(
                400, "Bad request", f"jobs: there is no {unknown[0]!r}; the jobs are {', '.join(JOB_KINDS)}"
            )
        if not data.jobs:
            raise ProblemError(400, "Bad request", f"jobs: name one at least of {', '.join(JOB_KINDS)}")
        async with management.pool.acquire() as tx, tx.transaction():
            known = BRAND.fullmatch(brand_id)  # Postgres would stumble over a NUL
            row = await tx.fetchrow(queries["connection_by_brand"], brand_id) if known else None
            if row is None or row["removed_at"] is not None:
                raise ProblemError(404, "Unknown brand", f"no store is connected for brand {brand_id[:100]}")
            jobs = [job for job in JOB_KINDS if job in data.jobs]
            queued = [QueuedJob(await queue_job(tx, row["id"], brand_id, kind), kind) for kind in jobs]
            if any(kind.startswith("bulk_") for kind in jobs):
                await tx.execute(queries["set_sync_status"], row["id"], "backfilling")
        return SyncAccepted(brand_id, queued)


def _unknown_connection(connection_id: int) -> ProblemError:
    return ProblemError(404, "Unknown connection", f"there is no connection {connection_id}")


UNSUBSCRIBE = """
mutation Unsubscribe($id: ID!) {
  webhookSubscriptionDelete(id: $id) { deletedWebhookSubscriptionId userErrors { message } }
}
"""


async def _unsubscribe(management: Management, connection: asyncpg.Record) -> None:
    """Best effort: a dead token cannot unsubscribe, and Shopify drops subscriptions that always fail."""
    if connection["access_token"] is None:
        return
    try:
        shop = await management.tokens.shop(connection["id"])
        for row in await management.pool.fetch(queries["subscriptions"], connection["id"]):
            await shop.query(dict[str, Any], UNSUBSCRIBE, {"id": row["gid"]})
    except (PermanentError, ShopifyUnavailableError) as error:
        log.warning("webhooks.not_removed", connection=connection["id"], error=str(error))
