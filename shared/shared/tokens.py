"""A valid access token of a connection, whichever kind of grant it has.

custom               lasts until its owner replaces it
offline              refreshed RENEW_AHEAD of its end, or when Shopify refuses it
client_credentials   asked for again at the same moments

One process at a time renews a connection's token: it holds a lease, reads the row once more, asks Shopify
and stores the new pair under the lease's epoch before anybody uses it. The others go on with the old token
while that works, else they wait. A pair that could not be stored is never used, so the refresh token that
is stored stays good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import structlog

from shared.db import Connection, Pool, affected, load_queries
from shared.errors import LeaseLostError, PermanentError
from shared.grants import CONNECT_AGAIN, Grant, TokenEndpoint, TokenKind
from shared.lease import Lease, lease
from shared.secrets import TokenVault
from shared.settings import Settings
from shared.shopify import Shop, Shopify, ShopifyUnavailableError, StoreError

log = structlog.get_logger()
queries = load_queries("shared")

T = TypeVar("T")

RENEW_AHEAD = timedelta(minutes=5)  # of 60 minutes: a page or a poll that has begun ends well before
RENEW_AGAIN = 30.0  # seconds until the next try while Shopify does not answer and the old token works
WAIT_FOR_OTHERS = 45.0  # seconds: longer than the lease of whoever died while renewing
LOOK_AGAIN = 0.1  # seconds between two looks at what another process does
RESEAL_BATCH = 200  # connections read at a time when keys are rotated


@dataclass(frozen=True)
class _Stored:
    """A connection's grant as it stands in its row; `sealed` is the access token as it is stored."""

    shop: str
    kind: TokenKind
    sealed: bytes
    access_token: str = field(repr=False)
    expires_at: datetime | None
    refresh_token: str | None = field(repr=False)

    @property
    def is_renewable(self) -> bool:
        return self.kind == "client_credentials" or self.refresh_token is not None

    def works(self, refused: str) -> bool:
        """Whether Shopify will take the token, as far as we know."""
        return self.access_token != refused and not _is_past(self.expires_at, timedelta())

    def is_due(self, refused: str) -> bool:
        """Whether it is time for the next token."""
        return self.access_token == refused or (self.is_renewable and _is_past(self.expires_at, RENEW_AHEAD))


def _is_past(moment: datetime | None, ahead: timedelta) -> bool:
    return moment is not None and moment - ahead <= datetime.now(UTC)


@dataclass(frozen=True)
class Tokens:
    """Keeps the tokens of all connections valid, and opens their shops."""

    pool: Pool
    vault: TokenVault
    shopify: Shopify
    endpoint: TokenEndpoint
    _resting: dict[int, float] = field(default_factory=dict)  # connection -> when to try again

    @classmethod
    def of(cls, pool: Pool, shopify: Shopify, settings: Settings) -> Tokens:
        """With the keys and the app's credentials of the settings."""
        endpoint = TokenEndpoint(settings, shopify.http)
        return cls(pool, TokenVault(settings.secret_keys), shopify, endpoint)

    async def shop(self, connection_id: int) -> Shop:
        """The connection's shop, whose calls always use the valid token; StoreError if there is none."""
        token = await self.access_token(connection_id)
        stored = await self._load(connection_id)
        plain = self.shopify.shop(stored.shop, token)
        parts = {part.name: getattr(plain, part.name) for part in fields(plain)}
        return _ConnectedShop(**parts, tokens=self, connection_id=connection_id)

    async def access_token(self, connection_id: int, refused: str = "") -> str:
        """A valid token; never `refused`, which is one that Shopify answered with 401.

        StoreError if somebody has to connect the store again, ShopifyUnavailableError if another try helps.
        """
        deadline = time.monotonic() + WAIT_FOR_OTHERS
        while time.monotonic() < deadline:
            stored = await self._load(connection_id)
            if not stored.is_due(refused) or self._rests(connection_id, stored, refused):
                return stored.access_token
            if not stored.is_renewable:
                raise _connect_again(stored.shop)
            async with lease(self.pool, f"token:{connection_id}") as held:
                token = await self._renew(held, connection_id, refused) if held else None
            if token:
                return token
            if stored.works(refused):
                return stored.access_token
            await asyncio.sleep(LOOK_AGAIN)
        raise ShopifyUnavailableError(
            f"connection {connection_id}: another process renews its token too long"
        )

    def _rests(self, connection_id: int, stored: _Stored, refused: str) -> bool:
        return stored.works(refused) and time.monotonic() < self._resting.get(connection_id, 0)

    async def _renew(self, held: Lease, connection_id: int, refused: str) -> str | None:
        """The next token; None if somebody else has changed the connection meanwhile."""
        stored = await self._load(connection_id)  # once more: nobody else renews it now
        if not stored.is_due(refused):
            return stored.access_token
        try:
            grant = await self._ask(stored)
        except ShopifyUnavailableError as error:
            if not stored.works(refused):
                raise
            log.warning("token.not_renewed", connection=connection_id, error=str(error))
            self._resting[connection_id] = time.monotonic() + RENEW_AGAIN
            return stored.access_token
        except StoreError:
            if (await self._load(connection_id)).sealed != stored.sealed:
                return None  # connected again, or renewed by whoever took the lease over
            raise
        return grant.access_token if await self._keep(held, connection_id, stored, grant) else None

    async def _ask(self, stored: _Stored) -> Grant:
        if stored.kind == "client_credentials":
            return await self.endpoint.by_credentials(stored.shop)
        if stored.refresh_token is None:
            raise _connect_again(stored.shop)
        return await self.endpoint.by_refresh(stored.shop, stored.refresh_token)

    async def _keep(self, held: Lease, connection_id: int, stored: _Stored, grant: Grant) -> bool:
        """Store the pair at once and together, unless the lease or the row is no longer what it was."""
        try:
            async with self.pool.acquire() as tx, tx.transaction():
                await held.hold(tx)
                kept = await self._write(tx, connection_id, stored, grant)
        except LeaseLostError:
            return False
        self._resting.pop(connection_id, None)
        if kept:
            log.info("token.renewed", connection=connection_id, kind=grant.kind)
        return kept

    async def _write(self, tx: Connection, connection_id: int, stored: _Stored, grant: Grant) -> bool:
        status = await tx.execute(
            queries["replace_token"],
            connection_id,
            stored.sealed,
            self.vault.encrypt(grant.access_token),
            grant.expires_at,
            self.vault.encrypt(grant.refresh_token) if grant.refresh_token else None,
            grant.refresh_expires_at,
        )
        return affected(status) == 1

    async def _load(self, connection_id: int) -> _Stored:
        row = await self.pool.fetchrow(queries["stored_token"], connection_id)
        if row is None or row["access_token"] is None:
            raise StoreError("disconnected", "The store is no longer connected.", "Connect it again.")
        refresh = row["refresh_token"]
        return _Stored(
            row["shop"],
            row["token_kind"],
            row["access_token"],
            self.vault.decrypt(row["access_token"]),
            row["access_token_expires_at"],
            self.vault.decrypt(refresh) if refresh else None,
        )


def _connect_again(shop: str) -> StoreError:
    return StoreError("invalid_token", f"{shop} does not accept the access token.", CONNECT_AGAIN)


@dataclass(frozen=True)
class _ConnectedShop(Shop):
    """A shop that looks its token up for each call, and asks for another when Shopify refuses one."""

    tokens: Tokens = field(kw_only=True)
    connection_id: int = field(kw_only=True)

    async def query(
        self,
        answer: type[T],
        document: str,
        variables: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] | None = None,
    ) -> T:
        token = await self.tokens.access_token(self.connection_id)
        try:
            return await self._with(token).query(answer, document, variables, still=still)
        except StoreError as error:
            if error.problem.code != "invalid_token":
                raise
        log.info("token.refused", connection=self.connection_id)
        token = await self.tokens.access_token(self.connection_id, refused=token)
        return await self._with(token).query(answer, document, variables, still=still)

    def _with(self, token: str) -> Shop:
        return self.tokens.shopify.shop(self.name, token)


async def reseal(pool: Pool, vault: TokenVault) -> None:
    """Encrypt with the newest key what an older one has encrypted.

    Any number of processes may do so at once. A token that no key opens is logged and left alone; a database
    that goes away ends it until the next start, since older keys go on to open what is left.
    """
    resealed = after = 0
    try:
        while rows := await pool.fetch(queries["sealed_tokens"], after, RESEAL_BATCH):
            for row in rows:
                resealed += await _reseal(pool, vault, row)
            after = rows[-1]["id"]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("token.not_resealed", error=type(error).__name__)
    if resealed:
        log.info("token.resealed", connections=resealed)


async def _reseal(pool: Pool, vault: TokenVault, row: asyncpg.Record) -> bool:
    try:
        access = vault.reseal(row["access_token"])
        refresh = vault.reseal(row["refresh_token"]) if row["refresh_token"] else None
    except PermanentError as error:
        log.error("token.unreadable", connection=row["id"], error=str(error))  # noqa: TRY400 - its text says all
        return False
    if access is None and refresh is None:
        return False
    status = await pool.execute(queries["reseal_token"], row["id"], row["access_token"], access, refresh)
    return affected(status) == 1
