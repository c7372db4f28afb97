"""Shopify's token endpoint: a code, a refresh token or the app's own credentials -> Grant.

answer 200                         -> a Grant
429, 5xx, reset, time-out          -> asked again, with backoff and jitter, for PATIENCE seconds at most
400 and every other answer         -> a StoreError with its Problem: somebody has to do something
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import httpx
import msgspec
import stamina

from shared.settings import Settings
from shared.shopify import ShopifyUnavailableError, StoreError

TokenKind = Literal["custom", "offline", "client_credentials"]

TRIES = 4
BACKOFF = 0.5  # seconds before the second try, doubled each time, with jitter
BACKOFF_CAP = 4.0  # seconds
TIMEOUT = httpx.Timeout(8.0, connect=4.0)
PATIENCE = 20.0  # seconds for all tries together: less than the lease that a refresh works under
WORTH_ANOTHER_TRY = {408, 429, 430}  # and everything from 500 on
LONGEST_REASON = 200  # characters of Shopify's words that are passed on

CONNECT_AGAIN = "Connect the store again: open /auth/shopify?shop=...&brand=... of the ingress service."
ACTIONS = {
    "invalid_client": "Check SHOPIFY_CLIENT_ID and SHOPIFY_CLIENT_SECRET.",
    "invalid_request": CONNECT_AGAIN,
    "invalid_grant": CONNECT_AGAIN,
    "shop_not_permitted": "Client credentials work where app and store belong to one organization: "
    "otherwise connect by /auth/shopify, or give an accessToken.",
}
_PLAIN_ERROR = re.compile(r"Oauth error (?P<code>\w{1,60}):?\s*(?P<why>[^<\n]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Grant:
    """What a store lets us use. A moment that is None never comes; `scopes` are Shopify's words."""

    kind: TokenKind
    access_token: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_at: datetime | None = None


class _Answer(msgspec.Struct):
    access_token: str
    scope: str = ""
    expires_in: float | None = None
    refresh_token: str | None = None
    refresh_token_expires_in: float | None = None


class _Refusal(msgspec.Struct):
    error: str
    error_description: str = ""


class _BusyError(Exception):
    """Shopify cannot answer now."""


class TokenEndpoint:
    """`POST /admin/oauth/access_token` of any shop."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._settings, self._http = settings, http

    async def by_code(self, shop: str, code: str) -> Grant:
        """What the merchant has just consented to; a code works once."""
        return await self._ask(shop, "offline", code=code, expiring="1")

    async def by_refresh(self, shop: str, refresh_token: str) -> Grant:
        """The next pair of tokens; the old refresh token works until the new pair is first used."""
        return await self._ask(shop, "offline", grant_type="refresh_token", refresh_token=refresh_token)

    async def by_credentials(self, shop: str) -> Grant:
        """A day's token for a store of the app's own organization."""
        return await self._ask(shop, "client_credentials", grant_type="client_credentials")

    async def _ask(self, shop: str, kind: TokenKind, **form: str) -> Grant:
        """A Grant; StoreError if Shopify refuses, ShopifyUnavailableError if it does not answer."""
        asked_at = datetime.now(UTC)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._post_patiently(shop, form)
        except (httpx.RequestError, _BusyError, TimeoutError) as error:
            why = str(error) if isinstance(error, _BusyError) else type(error).__name__
            raise ShopifyUnavailableError(f"{shop} gives no access token now ({why})") from error
        if answer.status_code != httpx.codes.OK:
            raise _refused(shop, answer)
        return _read(shop, kind, answer, asked_at)

    async def _post_patiently(self, shop: str, form: dict[str, str]) -> httpx.Response:
        retries = stamina.retry_context(
            on=(httpx.RequestError, _BusyError),
            attempts=TRIES,
            timeout=PATIENCE,
            wait_initial=BACKOFF,
            wait_max=BACKOFF_CAP,
        )
        async for attempt in retries:
            with attempt:
                return await self._post(shop, form)
        raise _BusyError("no try was made")

    async def _post(self, shop: str, form: dict[str, str]) -> httpx.Response:
        secret = self._settings.shopify_client_secret.get_secret_value()
        answer = await self._http.post(
            f"{self._settings.shop_url(shop)}/admin/oauth/access_token",
            json={"client_id": self._settings.shopify_client_id, "client_secret": secret, **form},
            headers={"Accept": "application/json"},
            timeout=TIMEOUT,
        )
        if answer.status_code in WORTH_ANOTHER_TRY or answer.is_server_error:
            raise _BusyError(f"HTTP {answer.status_code}")
        return answer


def _read(shop: str, kind: TokenKind, answer: httpx.Response, asked_at: datetime) -> Grant:
    try:
        said = msgspec.json.decode(answer.content, type=_Answer)
    except msgspec.DecodeError:  # without its text, which may quote the answer
        raise StoreError(
            "unexpected_answer",
            f"{shop} answered the request for a token with something else.",
            "Check SHOPIFY_ORIGIN and the shop's domain.",
        ) from None
    return Grant(
        kind,
        said.access_token,
        tuple(scope.strip() for scope in said.scope.split(",") if scope.strip()),
        _after(asked_at, said.expires_in),
        said.refresh_token,
        _after(asked_at, said.refresh_token_expires_in),
    )


def _after(moment: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=seconds)


def _refused(shop: str, answer: httpx.Response) -> StoreError:
    try:
        refusal = msgspec.json.decode(answer.content, type=_Refusal)
        code, why = refusal.error, refusal.error_description
    except msgspec.DecodeError:
        plain = _PLAIN_ERROR.search(answer.text)
        code, why = (plain["code"], plain["why"]) if plain else ("token_refused", "")
    reason = (why.strip() or f"HTTP {answer.status_code}").rstrip(".")[:LONGEST_REASON]
    return StoreError(
        code[:60],
        f"{shop} gives no access token ({reason}).",
        ACTIONS.get(code, "Check the shop's domain and the app's credentials, then connect the store again."),
    )
