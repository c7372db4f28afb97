"""The management API: connect a store, list, read, sync again, disconnect. -> ConnectionCreated

All calls need `Authorization: Bearer $BACKSTOCK_API_KEY`.
"""

from __future__ import annotations

import re
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

from ingress.signatures import shop_domain
from shared.db import Connection, Pool, load_queries
from shared.events import ConnectionCreated, ConnectionRemoved, JobKind, JobQueued
from shared.http import ProblemError, bearer, is_api_key, unauthorized
from shared.outbox import emit
from shared.secrets import TokenVault
from shared.shopify import Shopify, ShopifyUnavailableError, StoreError

log = structlog.get_logger()
queries = load_queries("ingress")

JOB_KINDS: tuple[JobKind, ...] = JobKind.__args__  # type: ignore[attr-defined]
BRAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
LONGEST_TOKEN = 500  # characters; Shopify's have about 40

WHO = """
query Who {
  shop { myshopifyDomain currencyCode }
  currentAppInstallation { accessScopes { handle } }
}
"""


class _Shop(msgspec.Struct, rename="camel"):
    myshopify_domain: str
    currency_code: str


class _Scope(msgspec.Struct):
    handle: str


class _Installation(msgspec.Struct, rename="camel"):
    access_scopes: list[_Scope]


class Who(msgspec.Struct, rename="camel"):
    """Whose token it is, and what it may do."""

    shop: _Shop
    current_app_installation: _Installation


class NewConnection(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of `POST /api/connections`."""

    brand_id: str
    shop: str
    access_token: str


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

    def __init__(self, pool: Pool, shopify: Shopify, vault: TokenVault, api_key: str) -> None:
        self.pool, self.shopify, self.vault, self.api_key = pool, shopify, vault, api_key

    async def connect(self, brand_id: str, shop: str, token: str) -> ConnectionDocument:
        """Store the token of a brand's store, after Shopify has accepted it; a new store starts to sync."""
        who = await self._ask_shopify(shop, token)
        scopes = sorted(scope.handle for scope in who.current_app_installation.access_scopes)
        try:
            async with self.pool.acquire() as tx, tx.transaction():
                return await self._store(tx, brand_id, shop, token, scopes, who.shop.currency_code)
        except asyncpg.UniqueViolationError:
            raise ProblemError(
                409, "Shop in use", f"{shop} is connected to another brand: disconnect it there first"
            ) from None

    async def _ask_shopify(self, shop: str, token: str) -> Who:
        try:
            return await self.shopify.shop(shop, token).query(Who, WHO)
        except StoreError as error:
            problem = error.problem
            raise ProblemError(
                422, "Shopify refuses", f"{problem.message} {problem.action}", code=problem.code
            ) from error
        except ShopifyUnavailableError as error:
            raise ProblemError(
                503,
                "Shopify does not answer",
                f"{shop} could not be asked whether the token is valid: try again later",
                headers={"Retry-After": "30"},
            ) from error

    async def _store(
        self, tx: Connection, brand_id: str, shop: str, token: str, scopes: list[str], currency: str
    ) -> ConnectionDocument:
        stored = self.vault.encrypt(token)
        before = await tx.fetchrow(queries["connection_by_brand"], brand_id)
        if before is None:
            row = await tx.fetchrow(queries["insert_connection"], brand_id, shop, stored, scopes, currency)
        elif before["shop"] != shop:
            raise ProblemError(
                409,
                "Brand in use",
                f"brand {brand_id} belongs to {before['shop']}: use another brandId for {shop}",
            )
        else:
            row = await tx.fetchrow(queries["refresh_connection"], before["id"], stored, scopes, currency)
        if row is None:
            raise LookupError(brand_id)
        if before is None or before["removed_at"] is not None:
            await emit(tx, ConnectionCreated(connection_id=row["id"], brand_id=brand_id, shop=shop))
            log.info("connection.created", connection=row["id"], brand=brand_id, shop=shop)
        return document(row)


async def remove(tx: Connection, connection_id: int, reason: Any) -> bool:
    """Disconnect: the token goes, jobs stop, the data stay. False if it was removed before."""
    brand_id = await tx.fetchval(queries["remove_connection"], connection_id)
    if brand_id is None:
        return False
    await tx.execute(queries["cancel_jobs"], connection_id)
    await tx.execute(queries["cancel_operations"], connection_id)
    await tx.execute(queries["forget_subscriptions"], connection_id)
    await emit(tx, ConnectionRemoved(connection_id=connection_id, brand_id=brand_id, reason=reason))
    log.info("connection.removed", connection=connection_id, brand=brand_id, reason=reason)
    return True


async def queue_job(
    tx: Connection, connection_id: int, brand_id: str, kind: JobKind, since: datetime | None = None
) -> int:
    """Queue a job, unless one of its kind is under way; returns its id, or that one's."""
    job_id = await tx.fetchval(queries["queue_job"], connection_id, kind, since)
    if job_id is None:
        return int(await tx.fetchval(queries["active_job"], connection_id, kind))
    await emit(tx, JobQueued(connection_id=connection_id, brand_id=brand_id, job_id=job_id, kind=kind))
    return int(job_id)


def needs_api_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A Litestar guard: the management API is closed without its key."""
    management: Management = connection.app.state.management
    if not is_api_key(bearer(connection), management.api_key):
        raise unauthorized("send the management key: Authorization: Bearer $BACKSTOCK_API_KEY")


def _valid_brand(brand_id: str) -> str:
    if not BRAND.fullmatch(brand_id):
        raise ProblemError(
            400, "Bad request", "brandId: 1 to 100 letters, digits and _.:- that begin with a letter or digit"
        )
    return brand_id


ConnectionId = Annotated[int, Parameter(ge=1, le=2**63 - 1)]


class ConnectionsApi(Controller):
    """`/api/connections` and `/api/sync`."""

    path = "/api"
    guards = (needs_api_key,)
    tags = ("management",)

    @post("/connections", status_code=201)
    async def connect(
        self, data: NewConnection, management: NamedDependency[Management]
    ) -> ConnectionDocument:
        """Connect a store with a custom-app token. The same brand and shop again: the same connection."""
        shop = shop_domain(data.shop)
        if shop is None:
            raise ProblemError(
                400, "Bad request", "shop: give the shop's domain, such as my-store.myshopify.com"
            )
        token = data.access_token.strip()
        if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            raise ProblemError(
                400, "Bad request", "accessToken: give the Admin API access token, such as shpat_..."
            )
        return await management.connect(_valid_brand(data.brand_id), shop, token)

    @get("/connections")
    async def list_connections(
        self,
        management: NamedDependency[Management],
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        offset: Annotated[int, Parameter(ge=0, le=10**9)] = 0,
    ) -> list[ConnectionDocument]:
        """All connections, the newest first."""
        rows = await management.pool.fetch(queries["list_connections"], limit, offset)
        return [document(row) for row in rows]

    @get("/connections/{connection_id:int}")
    async def read(
        self, connection_id: ConnectionId, management: NamedDependency[Management]
    ) -> ConnectionDocument:
        """One connection."""
        row = await management.pool.fetchrow(queries["connection_by_id"], connection_id)
        if row is None:
            raise _unknown_connection(connection_id)
        return document(row)

    @delete("/connections/{connection_id:int}")
    async def disconnect(self, connection_id: ConnectionId, management: NamedDependency[Management]) -> None:
        """Disconnect a store: its token and its webhooks go, its data stay."""
        row = await management.pool.fetchrow(queries["connection_by_id"], connection_id)
        if row is None:
            raise _unknown_connection(connection_id)
        await _unsubscribe(management, row)
        async with management.pool.acquire() as tx, tx.transaction():
            await remove(tx, connection_id, "disconnected")

    @post("/sync/{brand_id:str}", status_code=202)
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
    shop = management.shopify.shop(connection["shop"], management.vault.decrypt(connection["access_token"]))
    try:
        for row in await management.pool.fetch(queries["subscriptions"], connection["id"]):
            await shop.query(dict[str, Any], UNSUBSCRIBE, {"id": row["gid"]})
    except (StoreError, ShopifyUnavailableError) as error:
        log.warning("webhooks.not_removed", connection=connection["id"], error=str(error))
