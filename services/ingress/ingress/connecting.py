"""A brand's store and its grant -> a connection. -> ConnectionCreated | -> ConnectionRemoved

Every way in (the management API with a token, OAuth, client credentials) ends here: Shopify is asked whose
grant it is, the tokens are stored encrypted, and the sync starts where nothing or not enough is known yet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import structlog

from shared.answers import ProblemError
from shared.db import Connection, load_queries
from shared.dead_letters import drop_all
from shared.events import ConnectionCreated, ConnectionRemoved, ScopesGranted
from shared.grants import Grant
from shared.outbox import emit
from shared.shopify import ShopifyUnavailableError, StoreError
from shared.tokens import Tokens

log = structlog.get_logger()
queries = load_queries("ingress")

CLOCK_STEP = timedelta(seconds=5)  # Shopify tells its time to the second, and has many servers
BRAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")

WHO = """
query Who {
  shop { myshopifyDomain currencyCode }
  currentAppInstallation { accessScopes { handle } }
  webhookSubscriptions(first: 1) { nodes { id } }
}
"""


class BrandTakenError(Exception):
    """The brand belongs to another store, whose domain is the argument."""


class _Shop(msgspec.Struct, rename="camel"):
    myshopify_domain: str
    currency_code: str


class _Scope(msgspec.Struct):
    handle: str


class _Installation(msgspec.Struct, rename="camel"):
    access_scopes: list[_Scope]


class _Subscription(msgspec.Struct):
    id: str


class _Subscriptions(msgspec.Struct):
    nodes: list[_Subscription]


class Who(msgspec.Struct, rename="camel"):
    """Whose token it is, what it may do, and whether the app gets webhooks there already."""

    shop: _Shop
    current_app_installation: _Installation
    webhook_subscriptions: _Subscriptions

    @property
    def scopes(self) -> list[str]:
        """What was granted, with what it implies."""
        return with_implied(scope.handle for scope in self.current_app_installation.access_scopes)


def valid_brand(brand_id: str, name: str = "brandId") -> str:
    """The brand's id; ProblemError if it is none. `name` is the parameter's."""
    if not BRAND.fullmatch(brand_id):
        raise ProblemError(
            400, "Bad request", f"{name}: 1 to 100 letters, digits and _.:- that begin with a letter or digit"
        )
    return brand_id


def with_implied(scopes: Iterable[str]) -> list[str]:
    """The scopes in order, with the read access that Shopify does not list beside write access."""
    granted = set(scopes)
    return sorted(granted | {scope.replace("write_", "read_", 1) for scope in granted})


async def connect(tokens: Tokens, brand_id: str, shop: str, grant: Grant) -> asyncpg.Record:
    """Store a grant after Shopify has accepted it; returns the connection's row.

    BrandTakenError if the brand belongs to another store. ProblemError 409 if the shop belongs to another
    brand, 422 if Shopify refuses the token, 503 if it does not answer.
    """
    had_webhooks = bool(await tokens.pool.fetchval(queries["has_webhooks"], brand_id))
    who, asked_at = await _ask_shopify(tokens, shop, grant.access_token)
    webhooks_lost = had_webhooks and not who.webhook_subscriptions.nodes
    try:
        async with tokens.pool.acquire() as tx, tx.transaction():
            columns = _columns(tokens, grant, who, asked_at)
            return await _store(tx, brand_id, shop, grant.kind, who, columns, webhooks_lost=webhooks_lost)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "connections_shop":
            raise ProblemError(
                409, "Shop in use", f"{shop} is connected to another brand: disconnect it there first"
            ) from None
        raise ProblemError(
            409, "Brand in use", f"brand {brand_id} is being connected by another request: try again"
        ) from None


async def _ask_shopify(tokens: Tokens, shop: str, access_token: str) -> tuple[Who, datetime]:
    """Who it is, and when Shopify said so, by its own clock."""
    asked = tokens.shopify.shop(shop, access_token)
    try:
        return await asked.query(Who, WHO), await asked.now() - CLOCK_STEP
    except StoreError as error:
        raise refused(error) from error
    except ShopifyUnavailableError as error:
        raise unavailable(shop) from error


def refused(error: StoreError) -> ProblemError:
    """What Shopify objects to, as an answer of ours."""
    problem = error.problem
    return ProblemError(422, "Shopify refuses", f"{problem.message} {problem.action}", code=problem.code)


def unavailable(shop: str) -> ProblemError:
    """Shopify does not answer, as an answer of ours."""
    return ProblemError(
        503,
        "Shopify does not answer",
        f"{shop} could not be asked whether it gives access: try again later",
        headers={"Retry-After": "30"},
    )


async def _store(
    tx: Connection,
    brand_id: str,
    shop: str,
    kind: str,
    who: Who,
    columns: Sequence[Any],
    *,
    webhooks_lost: bool,
) -> asyncpg.Record:
    before = await tx.fetchrow(queries["connection_by_brand"], brand_id)
    if before is None:
        row = await tx.fetchrow(queries["insert_connection"], brand_id, shop, *columns)
        starts = True
    elif before["shop"] != shop:
        raise BrandTakenError(before["shop"])
    else:
        if halted := await _has_halted(tx, before, webhooks_lost=webhooks_lost):
            await remove(tx, before["id"], "disconnected")
        row = await tx.fetchrow(queries["regrant_connection"], before["id"], *columns)
        starts = halted or before["removed_at"] is not None
    if row is None:
        raise LookupError(brand_id)
    log.info("connection.granted", connection=row["id"], brand=brand_id, shop=shop, kind=kind)
    if starts:
        await emit(tx, ConnectionCreated(connection_id=row["id"], brand_id=brand_id, shop=shop))
        log.info("connection.created", connection=row["id"], brand=brand_id, shop=shop)
    elif before is not None:
        await follow_scopes(tx, row["id"], brand_id, before["scopes"], who.scopes)
    return row


async def follow_scopes(
    tx: Connection, connection_id: int, brand_id: str, before: Collection[str], now: Collection[str]
) -> None:
    """What opens is loaded; what closes is noted, to be loaded when it opens again. -> ScopesGranted"""
    if lost := set(before) - set(now):
        await tx.execute(queries["note_lost_scopes"], connection_id, list(lost))
    if set(now) - set(before):
        await emit(tx, ScopesGranted(connection_id=connection_id, brand_id=brand_id))


def _columns(tokens: Tokens, grant: Grant, who: Who, asked_at: datetime) -> tuple[Any, ...]:
    seal = tokens.vault.encrypt
    return (
        who.scopes,
        asked_at,
        who.shop.currency_code,
        grant.kind,
        seal(grant.access_token),
        grant.expires_at,
        seal(grant.refresh_token) if grant.refresh_token else None,
        grant.refresh_expires_at,
    )


async def _has_halted(tx: Connection, before: asyncpg.Record, *, webhooks_lost: bool) -> bool:
    """Whether changes were missed: the sync stopped, or the app was away from the store unheard of."""
    if before["removed_at"] is not None:
        return False
    if before["sync_status"] == "attention" or before["problem"] is not None:
        return True
    # Another request may have begun anew meanwhile: then the subscriptions that were lost are forgotten.
    return webhooks_lost and bool(await tx.fetchval(queries["has_webhooks"], before["brand_id"]))


async def remove(tx: Connection, connection_id: int, reason: Any, as_of: datetime | None = None) -> bool:
    """Disconnect: the tokens go, jobs stop, the data stay.

    False if it was removed before, or connected again after `as_of`, the moment that the news are from.
    """
    brand_id = await tx.fetchval(queries["remove_connection"], connection_id, as_of)
    if brand_id is None:
        return False
    await tx.execute(queries["cancel_jobs"], connection_id)
    await tx.execute(queries["cancel_operations"], connection_id)
    await tx.execute(queries["forget_subscriptions"], connection_id)
    await drop_all(tx, connection_id)
    removed = ConnectionRemoved(
        connection_id=connection_id,
        brand_id=brand_id,
        reason=reason,
        last_job_id=await tx.fetchval(queries["last_job"], connection_id),
    )
    await emit(tx, removed)
    log.info("connection.removed", connection=connection_id, brand=brand_id, reason=reason)
    return True
