"""Shopify's Admin API as this project uses it: typed answers, polite about limits, errors with a remedy.

answer 200, data              -> the data, decoded into the type that the caller names
429, 5xx, reset, time-out,
INTERNAL_SERVER_ERROR         -> asked again, with backoff and jitter, at most TRIES times
THROTTLED                     -> asked again after the wait that Shopify's own figures give
401 402 403 404 423, ACCESS_DENIED, MAX_COST_EXCEEDED, SHOP_INACTIVE, warnings of the search
                              -> a StoreError with its Problem: trying again is of no use
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
import msgspec
import structlog

from shared.errors import BackstockError, PermanentError
from shared.events import Problem
from shared.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")

TRIES = 6  # with the backoff below about half a minute; the message that asked is then tried again
BACKOFF_BASE = 0.5  # seconds, doubled each time; Shopify recommends at least one second on average
BACKOFF_CAP = 10.0  # seconds
THROTTLE_WAITS = 60  # times one call may be told to wait before it counts as failed
TIMEOUT = httpx.Timeout(25.0, connect=5.0)  # Shopify itself gives up after about 20 s
CONNECTIONS = httpx.Limits(max_connections=40, max_keepalive_connections=20)
TRANSIENT = {429, 430, 500, 501, 502, 503, 504, 530, 540}


class StoreError(PermanentError):
    """The store, the app or the query stands in the way, and somebody has to do something about it."""

    def __init__(self, code: str, message: str, action: str) -> None:
        super().__init__(message)
        self.problem = Problem(code=code, message=message, action=action)


class ShopifyUnavailableError(BackstockError):
    """Shopify did not give a proper answer, however often it was asked."""


class UserErrors(msgspec.Struct, frozen=True):
    """One entry of a mutation's `userErrors`."""

    message: str
    field: list[str] | None = None
    code: str | None = None


class _Throttle(msgspec.Struct, rename="camel"):
    maximum_available: float
    currently_available: float
    restore_rate: float


class _Cost(msgspec.Struct, rename="camel"):
    throttle_status: _Throttle
    requested_query_cost: float | None = None
    actual_query_cost: float | None = None


class _SearchWarning(msgspec.Struct):
    message: str
    field: str = ""


class _Search(msgspec.Struct):
    warnings: list[_SearchWarning] = []


class _Extensions(msgspec.Struct):
    cost: _Cost | None = None
    search: list[_Search] = []


class _ErrorExtensions(msgspec.Struct, rename="camel"):
    code: str = ""
    required_access: str = ""


class _Error(msgspec.Struct):
    message: str
    extensions: _ErrorExtensions = msgspec.field(default_factory=_ErrorExtensions)


class _Envelope(msgspec.Struct, Generic[T]):
    data: T | None = None
    errors: list[_Error] = []
    extensions: _Extensions = msgspec.field(default_factory=_Extensions)


class _ErrorsOnly(msgspec.Struct):
    errors: list[_Error] = []
    extensions: _Extensions = msgspec.field(default_factory=_Extensions)


@dataclass
class _Bucket:
    """What is left of a shop's cost points, as Shopify last said and as time has restored them since."""

    available: float = 1000.0
    restore_rate: float = 50.0
    said_at: float = field(default_factory=time.monotonic)

    def learn(self, cost: _Cost) -> None:
        self.available = cost.throttle_status.currently_available
        self.restore_rate = cost.throttle_status.restore_rate
        self.said_at = time.monotonic()

    def wait_for(self, points: float) -> float:
        """Seconds until there are that many points."""
        restored = self.available + (time.monotonic() - self.said_at) * self.restore_rate
        return max(0.0, (points - restored) / max(self.restore_rate, 1.0))


class Shopify:
    """The connection pool to all shops; `shop(...)` gives one of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buckets: dict[str, _Bucket] = {}
        self._costs: dict[str, float] = {}  # what each document asked for last time
        self.http = httpx.AsyncClient(timeout=TIMEOUT, limits=CONNECTIONS, follow_redirects=False)

    def shop(self, shop: str, token: str) -> Shop:
        """One shop's Admin API."""
        url = f"{self._settings.shop_url(shop)}/admin/api/{self._settings.shopify_api_version}/graphql.json"
        return Shop(shop, url, token, self.http, self._buckets.setdefault(shop, _Bucket()), self._costs)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()


@dataclass(frozen=True)
class Shop:
    """The Admin API of one shop."""

    name: str
    url: str
    token: str
    http: httpx.AsyncClient
    bucket: _Bucket
    costs: dict[str, float]

    async def query(self, answer: type[T], document: str, variables: Mapping[str, Any] | None = None) -> T:
        """Send a document; returns its `data` as `answer`. Raises StoreError or ShopifyUnavailableError."""
        body = msgspec.json.encode({"query": document, "variables": variables or {}})
        failures = waits = 0
        while True:
            await asyncio.sleep(self.bucket.wait_for(self.costs.get(document, 0)))
            try:
                return self._read(answer, document, await self._post(body))
            except _ThrottledError as throttled:
                waits += 1
                if waits > THROTTLE_WAITS:
                    raise ShopifyUnavailableError(f"{self.name}: throttled {waits} times in a row") from None
                await asyncio.sleep(max(1.0, throttled.seconds) * random.uniform(1, 1.1))  # noqa: S311
            except (_TransientError, httpx.TransportError) as error:
                failures += 1
                if failures >= TRIES:
                    raise ShopifyUnavailableError(
                        f"{self.name}: no answer after {failures} tries: {error!r}"
                    ) from error
                delay = min(BACKOFF_CAP, BACKOFF_BASE * 2**failures) * random.uniform(0.5, 1)  # noqa: S311
                log.info("shopify.retry", shop=self.name, error=repr(error), seconds=round(delay, 2))
                await asyncio.sleep(delay)

    async def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "X-Shopify-Access-Token": self.token}
        response = await self.http.post(self.url, content=body, headers=headers)
        if response.status_code in TRANSIENT:
            raise _TransientError(f"HTTP {response.status_code}")
        if response.status_code != httpx.codes.OK:
            raise _refused(self.name, response.status_code)
        return response.content

    def _read(self, answer: type[T], document: str, content: bytes) -> T:
        try:
            said = msgspec.json.decode(content, type=_ErrorsOnly)
        except msgspec.DecodeError as error:
            raise _TransientError(f"the answer is not Shopify's JSON: {error}") from error
        if said.extensions.cost:
            self.bucket.learn(said.extensions.cost)
            self.costs[document] = said.extensions.cost.requested_query_cost or 0
        if said.errors:
            raise self._failure(said)
        if warnings := [w for search in said.extensions.search for w in search.warnings]:
            # Shopify ignores a filter it does not know and answers with everything: never take that.
            raise StoreError(
                "search_ignored",
                f"Shopify ignored part of a search ({warnings[0].field}: {warnings[0].message})",
                "Report this: the query does not fit the API version.",
            )
        try:
            envelope: _Envelope[T] = msgspec.json.decode(content, type=_Envelope[answer])  # type: ignore[valid-type]
        except msgspec.ValidationError as error:
            raise StoreError(
                "unexpected_answer",
                f"Shopify's answer has not the expected form: {error}",
                "Report this with the API version.",
            ) from error
        if envelope.data is None:
            raise _TransientError("an answer without data and without errors")
        return envelope.data

    def _failure(self, said: _ErrorsOnly) -> Exception:
        error = said.errors[0]
        match error.extensions.code:
            case "THROTTLED":
                cost = said.extensions.cost
                points = (cost.requested_query_cost if cost else None) or self.bucket.restore_rate
                return _ThrottledError(self.bucket.wait_for(points))
            case "INTERNAL_SERVER_ERROR":
                return _TransientError(error.message.partition("\n")[0])
            case "ACCESS_DENIED":
                return StoreError(
                    "access_denied",
                    error.message,
                    f"Grant the app {error.extensions.required_access or 'the scope'} and connect again.",
                )
            case "MAX_COST_EXCEEDED":
                return StoreError("max_cost_exceeded", error.message.partition("\n")[0], "Report this query.")
            case "SHOP_INACTIVE":
                return StoreError(
                    "shop_inactive", "The store is inactive.", "Reactivate it, then sync again."
                )
            case code:
                return StoreError(
                    (code or "graphql_error").lower(), error.message.partition("\n")[0], "Report this query."
                )


class _ThrottledError(Exception):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _TransientError(Exception):
    pass


def _refused(shop: str, status: int) -> StoreError:
    match status:
        case 401:
            return StoreError(
                "invalid_token",
                f"{shop} does not accept the access token.",
                "Connect the store again with a valid token.",
            )
        case 402:
            return StoreError("shop_frozen", f"{shop} is frozen.", "Its owner must settle Shopify's bill.")
        case 403:
            return StoreError(
                "forbidden", f"{shop} forbids the request.", "Check the app's scopes and status."
            )
        case 404:
            return StoreError("shop_not_found", f"There is no shop {shop}.", "Check the shop's domain.")
        case 423:
            return StoreError(
                "shop_locked", f"{shop} is locked.", "Wait until Shopify unlocks it, then sync."
            )
        case _:
            return StoreError(
                "unexpected_status", f"{shop} answered with HTTP {status}.", "Look Shopify's status page up."
            )
