"""Shopify's Admin API as this project uses it: typed answers, polite about limits, errors with a remedy.

query -> what it will cost (query_costs) -> its turn (cost_bucket) -> request -> answer (shopify_answers)

data                          -> returned
worth another try             -> asked again with backoff and jitter, after Retry-After, at most TRIES times
THROTTLED                     -> asked again after the wait that Shopify's figures give
what only a person can mend   -> StoreError with its Problem (shopify_errors)
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import httpx
import msgspec
import structlog
from redis.asyncio import Redis

from shared.cost_bucket import CostBucket, Said, Script
from shared.optional_redis import OptionalRedis
from shared.query_costs import QueryCosts, kind_of
from shared.settings import Settings
from shared.shop_clock import ShopClock
from shared.shopify_answers import (
    ThrottledError,
    TransientError,
    check_errors,
    check_status,
    read_data,
    read_envelope,
    said_of,
)
from shared.shopify_errors import REFUSALS, ShopifyUnavailableError, StoreError, refusal
from shared.shopify_metrics import (
    WHY_RETRY,
    WHY_THROTTLED,
    points,
    requests,
    throttled,
    waited,
)
from shared.shopify_notices import Notices

__all__ = ["Shop", "Shopify", "ShopifyUnavailableError", "StoreError", "UserErrors"]

log = structlog.get_logger()

T = TypeVar("T")
Why: TypeAlias = Literal["points", "throttled", "unavailable"]
OnWait: TypeAlias = Callable[[str, float, Why], None]

TRIES = 6  # with the backoff below about half a minute; the message that asked is then tried again
BACKOFF_BASE = 0.5  # seconds, doubled each time; Shopify recommends at least one second on average
BACKOFF_CAP = 10.0  # seconds
LONGEST_RETRY_AFTER = 60.0  # seconds; a later time is the business of whoever tries the message again
THROTTLE_WAITS = 60  # times one call may be told to wait before it counts as failed
SHORTEST_THROTTLE_WAIT = 1.0  # seconds, as Shopify asks
LONGEST_THROTTLE_WAIT = 60.0  # seconds; no bucket takes longer to fill
TIMEOUT = httpx.Timeout(25.0, connect=5.0)  # Shopify itself gives up after about 20 s
REQUEST_WITHIN = 35.0  # seconds, also for an answer that trickles in
CONNECTIONS = httpx.Limits(max_connections=200, max_keepalive_connections=20)
REQUESTS_OF_A_SHOP = 8  # at once in a process: a slow store leaves connections to the others
SHORTEST_QUERY = "query Now { shop { id } }"
_TOKEN = re.compile(r"[!-~]+")  # anything else is no header value, and httpx would quote it in its error


class UserErrors(msgspec.Struct, frozen=True):
    """One entry of a mutation's `userErrors`."""

    message: str
    field: list[str] | None = None
    code: str | None = None


class _Gate:
    """What all queries of a process to one shop pass."""

    def __init__(self, bucket: CostBucket, on_wait: Callable[[float, Why], None]) -> None:
        self.bucket, self.on_wait = bucket, on_wait
        self.clock = ShopClock()
        self.requests = asyncio.Semaphore(REQUESTS_OF_A_SHOP)


class Shopify:
    """The connection pool to all shops; `shop(...)` gives one of them."""

    def __init__(
        self, settings: Settings, redis: Redis | None = None, *, on_wait: OnWait = lambda *_: None
    ) -> None:
        """`on_wait` is told of each wait: shop, seconds, and why."""
        self._settings, self._on_wait = settings, on_wait
        optional = OptionalRedis(redis)
        self._script = Script(optional)
        self._costs = QueryCosts(optional)
        self._notices = Notices()
        self._gates: dict[str, _Gate] = {}
        self.http = httpx.AsyncClient(timeout=TIMEOUT, limits=CONNECTIONS, follow_redirects=False)

    def shop(self, shop: str, token: str) -> Shop:
        """One shop's Admin API."""
        url = f"{self._settings.shop_url(shop)}/admin/api/{self._settings.shopify_api_version}/graphql.json"
        version = self._settings.shopify_api_version
        return Shop(shop, url, version, token, self.http, self._gate(shop), self._costs, self._notices)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    def _gate(self, shop: str) -> _Gate:
        if shop not in self._gates:
            key = f"backstock:points:{{{self._settings.shopify_client_id}:{shop}}}"
            on_wait = partial(self._on_wait, shop)
            bucket = CostBucket(key, self._script, lambda seconds: on_wait(seconds, "points"))
            self._gates[shop] = _Gate(bucket, on_wait)
        return self._gates[shop]


@dataclass(frozen=True)
class Shop:
    """The Admin API of one shop."""

    name: str
    url: str
    version: str
    token: str = field(repr=False)
    http: httpx.AsyncClient = field(repr=False)
    gate: _Gate = field(repr=False)
    costs: QueryCosts = field(repr=False)
    notices: Notices = field(repr=False)

    async def query(
        self,
        answer: type[T],
        document: str,
        variables: Mapping[str, Any] | None = None,
        *,
        still: Callable[[], None] | None = None,
    ) -> T:
        """Send a document; returns its `data` as `answer`. Raises StoreError or ShopifyUnavailableError.

        `still` is for what must not be done twice. It is called when the request goes out, and raises if that
        is no longer ours to do; and after a failure that leaves open what Shopify did nothing is sent again.
        """
        if not _TOKEN.fullmatch(self.token):
            raise refusal("invalid_token", self.name)
        body = msgspec.json.encode({"query": document, "variables": variables or {}})
        kind = kind_of(document, variables or {})
        failures = throttles = 0
        while True:
            try:
                return await self._ask(answer, kind, body, still)
            except ThrottledError as error:
                throttles += 1
                if throttles > THROTTLE_WAITS:
                    raise ShopifyUnavailableError(
                        f"{self.name}: throttled {throttles} times in a row"
                    ) from None
                await self._wait_for_points(error)
            except (TransientError, httpx.RequestError) as error:
                failures += 1
                if still or failures >= TRIES:
                    raise ShopifyUnavailableError(
                        f"{self.name}: no answer (tries: {failures}): {_cause(error)}"
                    ) from error
                await self._wait_for_better_times(error, failures)

    async def now(self) -> datetime:
        """What time it is at the shop; asks it once, if no answer has told so far."""
        if not self.gate.clock.is_known:
            await self.query(dict, SHORTEST_QUERY)
        return self.gate.clock.now()

    async def _ask(self, answer: type[T], kind: str, body: bytes, still: Callable[[], None] | None) -> T:
        """One request, in its turn."""
        async with self.gate.requests:
            outcome = "cancelled"
            try:
                content = await self._pay_and_post(kind, body, still)
                found = read_data(self.name, answer, content)
                outcome = "ok"
            except Exception as error:
                outcome = _outcome(error)
                raise
            finally:
                requests.labels(outcome).inc()
            return found

    async def _pay_and_post(self, kind: str, body: bytes, still: Callable[[], None] | None) -> bytes:
        try:
            hold = await self.gate.bucket.take(partial(self.costs.estimate, kind))
        except TimeoutError:
            raise ShopifyUnavailableError(f"{self.name}: others use all of its points") from None
        said = Said()
        try:
            response = await self._post(body, still)
            if httpx.codes.OK < response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                said = Said(spent=0.0)  # turned away at the door
            check_status(self.name, response)
            envelope = read_envelope(response.content)
            said = said_of(envelope)
            if envelope.cost and envelope.cost.requested_query_cost:
                await self.costs.learn(
                    kind, envelope.cost.requested_query_cost, envelope.cost.actual_query_cost
                )
        finally:
            await self.gate.bucket.settle(hold, said)
        points.inc(said.spent or 0.0)
        check_errors(self.name, envelope)
        return response.content

    async def _post(self, body: bytes, still: Callable[[], None] | None) -> httpx.Response:
        async def trace(step: str, _: Mapping[str, Any]) -> None:
            if still and step == "http11.send_request_body.started":  # nothing that may wait comes after it
                still()

        headers = {"Content-Type": "application/json", "X-Shopify-Access-Token": self.token}
        try:
            async with asyncio.timeout(REQUEST_WITHIN):
                response = await self.http.post(
                    self.url, content=body, headers=headers, extensions={"trace": trace}
                )
        except TimeoutError:
            raise TransientError("timeout", f"no answer within {REQUEST_WITHIN:.0f} s") from None
        self.notices.heed(self.name, self.version, response.headers)
        self.gate.clock.heed(response.headers.get("date"))
        return response

    async def _wait_for_points(self, error: ThrottledError) -> None:
        throttled.inc()
        seconds = max(SHORTEST_THROTTLE_WAIT, min(LONGEST_THROTTLE_WAIT, error.seconds))
        self.gate.on_wait(seconds, "throttled")
        await _sleep(WHY_THROTTLED, seconds * random.uniform(1, 1.1))  # noqa: S311 - jitter

    async def _wait_for_better_times(self, error: Exception, failures: int) -> None:
        backoff = min(BACKOFF_CAP, BACKOFF_BASE * 2**failures) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        asked = error.retry_after if isinstance(error, TransientError) else 0.0
        asked = min(LONGEST_RETRY_AFTER, asked) * random.uniform(1, 1.1)  # noqa: S311 - jitter
        seconds = max(backoff, asked)
        slow_down = isinstance(error, TransientError) and error.kind in ("http_429", "http_430")
        self.gate.on_wait(seconds, "throttled" if slow_down else "unavailable")
        log.info("shopify.retry", shop=self.name, error=_cause(error), seconds=round(seconds, 2))
        await _sleep(WHY_RETRY, seconds)


async def _sleep(why: str, seconds: float) -> None:
    waited.labels(why).inc(seconds)
    await asyncio.sleep(seconds)


def _cause(error: Exception) -> str:
    """What went wrong, without what httpx quotes of the request."""
    return str(error) if isinstance(error, TransientError) else type(error).__name__


def _outcome(error: Exception) -> str:
    """A label for metrics; one of few."""
    match error:
        case ThrottledError():
            return "throttled"
        case TransientError():
            return error.kind
        case httpx.TimeoutException():
            return "timeout"
        case httpx.RequestError():
            return "unreachable"
        case StoreError():
            return error.problem.code if error.problem.code in REFUSALS else "graphql_error"
        case _:
            return "unavailable"
