"""Talks to ingress and status over HTTP, as any other client does.

Their JSON becomes structs here; a failure becomes a CommandError that says what to do.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import httpx
import msgspec

from backstock.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ANSWERS_WITHIN = 30.0  # seconds; connecting asks Shopify for the scopes first
SILENCE = 40.0  # seconds without even a heartbeat (one each 15 s) before a stream counts as dead
POLL = 1.0  # seconds between two reads where streaming does not work
STREAM_TRIES = 3  # dropped streams in a row before polling takes over
LONGEST_PAUSE = 10.0  # seconds between two tries while nothing answers
GIVES_UP_AFTER = 300.0  # seconds without an answer, after there have been some: a deployment takes less
LIVE = "live"
ATTENTION = "attention"  # goes no further by itself
ENDED = (LIVE, ATTENTION)  # nothing more happens by itself
CONNECTIONS_READ = 500  # the most that one answer holds


class AwayError(CommandError):
    """A service does not answer, or not now: trying again may help."""


class Resource(msgspec.Struct, rename="camel"):
    name: str
    phase: str = ""
    expected: int | None = None
    downloaded: int = 0
    staged: int = 0
    promoted: int = 0
    percent: float = 0
    rate_per_second: float | None = None
    eta_seconds: float | None = None


class Recent(msgspec.Struct, rename="camel"):
    orders_visible: int = 0
    first_data_at: str | None = None


class Limits(msgspec.Struct, rename="camel"):
    history_limited_to_60_days: bool = False
    missing_scopes: list[str] = []


class Notice(msgspec.Struct, rename="camel"):
    code: str = ""
    message: str = ""
    action: str = ""


class LastError(msgspec.Struct, rename="camel"):
    code: str = ""
    message: str = ""
    action: str = ""


class QueuedJob(msgspec.Struct, rename="camel"):
    job_id: int
    kind: str


class _Accepted(msgspec.Struct):
    jobs: list[QueuedJob] = []


class TableCheck(msgspec.Struct, rename="camel"):
    table: str
    shopify_count: int
    our_count: int
    equal: bool
    shopify_sum: str | None = None
    our_sum: str | None = None
    missing: int = 0
    different: int = 0
    extra: int = 0


class Audit(msgspec.Struct, rename="camel"):
    equal: bool
    job_id: int
    tables: list[TableCheck] = []


class Progress(msgspec.Struct, rename="camel"):
    """The progress document, as far as a terminal shows it."""

    brand_id: str
    sync_status: str
    percent: float
    resources: list[Resource]
    shop: str = ""
    eta_seconds: float | None = None
    recent: Recent | None = None
    limits: Limits | None = None
    notices: list[Notice] = []
    throttled_until: str | None = None
    last_error: LastError | None = None
    audit: Audit | None = None


class Connection(msgspec.Struct, rename="camel"):
    connection_id: str | int
    brand_id: str
    shop: str
    sync_status: str = ""
    removed_at: str | None = None


@dataclass(frozen=True)
class Api:
    http: httpx.AsyncClient
    ingress_url: str
    status_url: str
    public_status_url: str

    @classmethod
    @asynccontextmanager
    async def open(
        cls, ingress_url: str, status_url: str, api_key: str, *, public_status_url: str = ""
    ) -> AsyncIterator[Self]:
        """Where the two answer, and where browsers reach status, if that is another address."""
        headers = {"Authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(headers=headers, timeout=ANSWERS_WITHIN) as http:
            public = public_status_url or status_url
            yield cls(http, ingress_url.rstrip("/"), status_url.rstrip("/"), public.rstrip("/"))

    async def connect(self, brand: str, shop: str, token: str) -> Connection:
        body = {"brandId": brand, "shop": shop, "accessToken": token}
        answer = await self._ingress("POST", "/api/connections", json=body)
        return msgspec.json.decode(answer.content, type=Connection)

    async def connections(self) -> list[Connection]:
        answer = await self._ingress("GET", f"/api/connections?limit={CONNECTIONS_READ}")
        return msgspec.json.decode(answer.content, type=list[Connection])

    async def disconnect(self, brand: str) -> Connection:
        for connection in await self.connections():
            if connection.brand_id == brand and connection.removed_at is None:
                await self._ingress("DELETE", f"/api/connections/{connection.connection_id}")
                return connection
        raise _unknown(brand)

    async def sync(self, brand: str, jobs: Sequence[str]) -> list[QueuedJob]:
        wanted = {"jobs": list(jobs)}
        answer = await self._ingress("POST", f"/api/sync/{quote(brand)}", json=wanted, brand=brand)
        return msgspec.json.decode(answer.content, type=_Accepted).jobs

    async def progress(self, brand: str) -> Progress:
        return msgspec.json.decode(await self.progress_json(brand), type=Progress)

    async def progress_json(self, brand: str) -> bytes:
        answer = await self._status("GET", f"/api/sync/{quote(brand)}/status", brand=brand)
        return answer.content

    async def dashboard(self, brand: str) -> str:
        """The dashboard's address with a read token for this one brand in it."""
        answer = await self._status("POST", f"/api/sync/{quote(brand)}/token", brand=brand)
        token = msgspec.json.decode(answer.content, type=dict[str, Any])["token"]
        return f"{self.public_status_url}/?{urlencode({'brand': brand, 'token': token})}"

    async def follow(self, brand: str, on_lost: Callable[[], None] = lambda: None) -> AsyncIterator[Progress]:
        """The document on each change until the brand is live, or waits for somebody's help.

        By stream, or by polling where that fails. An outage is waited out, and `on_lost` told of it once;
        AwayError if it lasts, or if nothing has ever answered.
        """
        failures, heard_at = 0, None
        while True:
            by_stream = failures < STREAM_TRIES
            try:
                async for document in self._stream(brand) if by_stream else self._poll(brand):
                    failures, heard_at = 0 if by_stream else failures, time.monotonic()
                    yield document
                    if document.sync_status in ENDED:
                        return
            except (httpx.TransportError, httpx.HTTPStatusError):
                pass  # polling finds out more
            except AwayError:
                if heard_at is None or time.monotonic() - heard_at > GIVES_UP_AFTER:
                    raise
            failures += 1
            if failures == STREAM_TRIES:
                on_lost()
            await asyncio.sleep(min(POLL * failures, LONGEST_PAUSE) * random.uniform(0.8, 1.2))  # noqa: S311

    async def _stream(self, brand: str) -> AsyncIterator[Progress]:
        url = f"{self.status_url}/api/sync/{quote(brand)}/events"
        timeout = httpx.Timeout(ANSWERS_WITHIN, read=SILENCE)
        async with self.http.stream("GET", url, timeout=timeout) as answer:
            if answer.is_server_error:  # passes, or polling will tell
                answer.raise_for_status()
            if answer.is_error:
                await answer.aread()
                _raise_for(answer, brand)
            async for data in _events(answer.aiter_lines()):
                yield msgspec.json.decode(data, type=Progress)

    async def _poll(self, brand: str) -> AsyncIterator[Progress]:
        while True:
            document = await self.progress(brand)
            yield document
            if document.sync_status in ENDED:
                return
            await asyncio.sleep(POLL)

    async def _ingress(
        self, method: str, path: str, *, brand: str = "", json: object = None
    ) -> httpx.Response:
        url = self.ingress_url + path
        return await self._call("ingress", method, url, brand=brand, json=json)

    async def _status(self, method: str, path: str, *, brand: str = "") -> httpx.Response:
        return await self._call("status", method, self.status_url + path, brand=brand)

    async def _call(
        self, service: str, method: str, url: str, *, brand: str, json: object = None
    ) -> httpx.Response:
        try:
            answer = await self.http.request(method, url, json=json)
        except httpx.TransportError as error:
            raise AwayError(
                f"{service} does not answer at {httpx.URL(url).copy_with(path='', query=None)} "
                f"({type(error).__name__}): start it with `backstock up`, or correct {service.upper()}_URL"
            ) from None
        _raise_for(answer, brand)
        return answer


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """The data of each server-sent event; comments (heartbeats) and empty events carry none."""
    data: list[str] = []
    async for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            text = "\n".join(data)
            data.clear()
            if text.startswith("{") and len(text) > len("{}"):
                yield text


def _raise_for(answer: httpx.Response, brand: str) -> None:
    if answer.is_success:
        return
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise CommandError("the API key is refused: set BACKSTOCK_API_KEY to the one the services run with")
    if answer.status_code == httpx.codes.NOT_FOUND and brand:
        raise _unknown(brand)
    problem = AwayError if answer.is_server_error else CommandError
    raise problem(f"{answer.request.url.path}: {answer.status_code} {_detail(answer)}")


def _unknown(brand: str) -> CommandError:
    return CommandError(
        f"no brand '{brand}': connect it with `backstock connect SHOP --brand {brand} --token TOKEN`"
    )


def _detail(answer: httpx.Response) -> str:
    try:
        problem = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        return answer.text[:200]
    return str(problem.get("detail") or problem.get("title") or "")
