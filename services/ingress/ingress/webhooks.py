"""Shopify's webhooks -> staged rows, in Postgres before the answer.

    signature -> payload -> queue -> one commit for all that wait -> 200
                                     (deliveries, rows, StagedBatch, effects)

There is no timer: a commit takes whatever has gathered while the last one ran. A delivery that Shopify
repeats is noted once. What cannot be understood, though it is signed, is put aside as a dead letter with
its raw text: it is durable, so it is answered 200, and nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import asyncpg
import structlog
from prometheus_client import Counter

from ingress.connecting import follow_scopes, remove, with_implied
from ingress.connections import queue_job
from ingress.payloads import (
    COMPLIANCE_TOPICS,
    READERS,
    BulkOver,
    Change,
    ComplianceRequest,
    Effect,
    Incomplete,
    ScopesChanged,
    Uninstalled,
    parse,
)
from ingress.signatures import is_webhook_signed, shop_domain
from shared.answers import PROBLEM_JSON, ProblemError
from shared.db import Connection, Pool, load_queries
from shared.dead_letters import Aside, erase, set_aside
from shared.errors import BadPayloadError
from shared.events import BulkFinished, StagedBatch
from shared.outages import end_if_cancelled
from shared.outbox import emit
from shared.rows import RedactionRow, count, stage
from shared.secrets import TokenVault
from shared.trouble import reconsider

log = structlog.get_logger()
queries = load_queries("ingress")

LARGEST_BODY = 10 * 1024 * 1024  # bytes; an order with thousands of lines stays far below
ANSWER_WITHIN = 4.0  # seconds: Shopify hangs up after five
LARGEST_COMMIT = 500  # deliveries a transaction
LONGEST_QUEUE = 5_000  # deliveries in memory; beyond it Shopify is asked to come again
ORDINALS = 2**31  # Postgres's integer
CLOCKS_DIFFER = timedelta(minutes=5)  # between Shopify's clock and ours
HEADERS_ONCE = {
    b"x-shopify-hmac-sha256",
    b"x-shopify-shop-domain",
    b"x-shopify-topic",
    b"x-shopify-webhook-id",
    b"x-shopify-triggered-at",
}

answered = Counter("backstock_webhooks_total", "Webhooks by topic and outcome", ["topic", "outcome"])


class Outcome(Enum):
    """What became of a delivery."""

    STAGED = "staged"
    DUPLICATE = "duplicate"
    UNKNOWN_SHOP = "unknown_shop"
    SET_ASIDE = "set_aside"


@dataclass(frozen=True)
class Delivery:
    """One webhook, verified and understood."""

    shop: str
    topic: str
    webhook_id: str
    triggered_at: datetime
    body: bytes
    change: Change
    error: Exception | None = None
    done: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Inlet:
    """Takes deliveries and commits them in groups; a single writer keeps the order of arrival."""

    def __init__(self, pool: Pool, vault: TokenVault) -> None:
        self.pool, self.vault = pool, vault
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue(LONGEST_QUEUE)

    async def take(self, delivery: Delivery) -> Outcome:
        """Queue the delivery and wait until it is durable."""
        try:
            self._waiting.put_nowait(delivery)
            async with asyncio.timeout(ANSWER_WITHIN):
                return await delivery.done
        except (asyncio.QueueFull, TimeoutError):
            raise ProblemError(
                503, "Busy", "the webhook is not stored yet: send it again", headers={"Retry-After": "5"}
            ) from None

    async def run(self) -> None:
        """Commit what waits, until cancelled."""
        while True:
            end_if_cancelled()
            group = [await self._waiting.get()]
            while len(group) < LARGEST_COMMIT and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            await self._commit(group)

    async def _commit(self, group: Sequence[Delivery]) -> None:
        try:
            outcomes = await self._store(group)
        except Exception as error:  # noqa: BLE001 - each delivery gets its own answer
            end_if_cancelled()
            await self._commit_one_by_one(group, error)
            return
        for delivery, outcome in zip(group, outcomes, strict=True):
            if not delivery.done.done():
                delivery.done.set_result(outcome)

    async def _commit_one_by_one(self, group: Sequence[Delivery], error: Exception) -> None:
        """One bad delivery must not sink those that came with it."""
        if len(group) > 1:
            for delivery in group:
                await self._commit([delivery])
            return
        (delivery,) = group
        if isinstance(error, (asyncpg.DataError, ValueError)) and delivery.error is None:
            # Postgres refuses a value (a date that is none, a number too large): aside with it.
            await self._commit([_as_set_aside(delivery, error)])
            return
        log.warning("webhook.not_stored", topic=delivery.topic, error=repr(error))
        if not delivery.done.done():
            delivery.done.set_exception(
                ProblemError(503, "Not stored", "the webhook could not be stored: send it again")
            )

    async def _store(self, group: Sequence[Delivery]) -> list[Outcome]:
        by_shop: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in group:
            by_shop[delivery.shop].append(delivery)
        outcomes: dict[int, Outcome] = {}
        async with self.pool.acquire() as tx, tx.transaction():
            rows = await tx.fetch(queries["connections_of_shops"], sorted(by_shop))
            connections = {row["shop"]: row for row in rows}
            for shop, deliveries in by_shop.items():
                outcomes |= await _store_for_shop(tx, shop, connections.get(shop), deliveries, self.vault)
        return [outcomes[id(delivery)] for delivery in group]


def _as_set_aside(delivery: Delivery, error: Exception) -> Delivery:
    return Delivery(
        delivery.shop,
        delivery.topic,
        delivery.webhook_id,
        delivery.triggered_at,
        delivery.body,
        Change(),
        error,
        delivery.done,
    )


async def _store_for_shop(
    tx: Connection,
    shop: str,
    connection: asyncpg.Record | None,
    deliveries: Sequence[Delivery],
    vault: TokenVault,
) -> dict[int, Outcome]:
    if connection is None:
        await _erase_what_stayed(tx, shop, deliveries)
        for delivery in deliveries:
            await _note_compliance(tx, None, delivery)
        return {id(d): _without_connection(d) for d in deliveries}
    new = await _note(tx, connection["id"], deliveries)
    fresh = [d for d in {d.webhook_id: d for d in deliveries}.values() if d.webhook_id in new]
    await apply(tx, connection, fresh, vault)
    staged = {id(d) for d in fresh}
    return {id(d): _outcome(d) if id(d) in staged else Outcome.DUPLICATE for d in deliveries}


async def apply(
    tx: Connection, connection: asyncpg.Record, fresh: Sequence[Delivery], vault: TokenVault
) -> None:
    """What the deliveries of one store bring: rows, effects, and what has to be set aside."""
    if rows := [row for d in fresh for row in d.change.rows]:
        await _stage(tx, connection, rows)
        await _erase_letters(tx, connection["id"], rows)
        await _erase_what_stayed(tx, connection["shop"], fresh)
    for delivery in fresh:
        await _note_compliance(tx, connection["id"], delivery)
        if delivery.error:
            await _put_aside(tx, connection["id"], delivery, delivery.error, vault)
        if delivery.change.effect:
            await _carry_out(tx, connection, delivery.change.effect, delivery.triggered_at)
    if any(delivery.error for delivery in fresh):
        await reconsider(tx, connection["id"])


def _without_connection(delivery: Delivery) -> Outcome:
    # Shopify sends privacy requests after the app is gone, and wants a 200 for them.
    return Outcome.STAGED if delivery.topic in COMPLIANCE_TOPICS else Outcome.UNKNOWN_SHOP


def _outcome(delivery: Delivery) -> Outcome:
    return Outcome.SET_ASIDE if delivery.error else Outcome.STAGED


async def _note(tx: Connection, connection_id: int, deliveries: Sequence[Delivery]) -> set[str]:
    noted = await tx.fetch(
        queries["note_deliveries"],
        connection_id,
        [d.webhook_id for d in deliveries],
        [d.topic for d in deliveries],
        [d.triggered_at for d in deliveries],
    )
    return {row["webhook_id"] for row in noted}


async def _stage(tx: Connection, connection: asyncpg.Record, rows: Sequence[Any]) -> None:
    counts = count(rows)
    batch_id = await tx.fetchval(queries["add_batch"], connection["id"], counts)
    await stage(tx, batch_id, rows)
    await emit(
        tx,
        StagedBatch(
            connection_id=connection["id"],
            brand_id=connection["brand_id"],
            batch_id=batch_id,
            source="webhook",
            rows=counts,
        ),
    )


async def _erase_letters(tx: Connection, connection_id: int, rows: Sequence[Any]) -> None:
    """A privacy request reaches the texts that were set aside, too."""
    for row in rows:
        if isinstance(row, RedactionRow) and row.whole_shop:
            await erase(tx, connection_id, None)
        elif isinstance(row, RedactionRow):
            ids = [*row.order_ids, *([row.customer_id] if row.customer_id else [])]
            await erase(tx, connection_id, ids)
    if any(isinstance(row, RedactionRow) for row in rows):
        await reconsider(tx, connection_id)


async def _erase_what_stayed(tx: Connection, shop: str, deliveries: Sequence[Delivery]) -> None:
    """A privacy request is about the rows of disconnected brands, too: most come when the app is gone."""
    rows = [row for d in deliveries for row in d.change.rows if isinstance(row, RedactionRow)]
    if not rows:
        return
    for connection in await tx.fetch(queries["removed_connections"], shop):
        await _stage(tx, connection, rows)
        await _erase_letters(tx, connection["id"], rows)


async def _note_compliance(tx: Connection, connection_id: int | None, delivery: Delivery) -> None:
    effect = delivery.change.effect
    if isinstance(effect, ComplianceRequest):
        subject = effect.subject
    elif connection_id is None and delivery.topic in COMPLIANCE_TOPICS:
        # Nobody is connected whose letter it could be, and Shopify gives up after some hours.
        subject = {"unreadable": True}
        log.warning("webhook.privacy_request_unreadable", shop=delivery.shop, topic=delivery.topic)
    else:
        return
    await tx.execute(
        queries["note_compliance_request"],
        connection_id,
        delivery.shop,
        delivery.webhook_id,
        delivery.topic,
        subject,
    )


async def _put_aside(
    tx: Connection, connection_id: int, delivery: Delivery, error: Exception, vault: TokenVault
) -> None:
    aside = Aside(
        key=uuid5(NAMESPACE_URL, f"{delivery.shop}/{delivery.webhook_id}"),
        kind=f"webhook {delivery.topic}",
        text=delivery.body,
        error=error,
        context={"topic": delivery.topic, "triggered_at": delivery.triggered_at.isoformat()},
    )
    await set_aside(tx, aside, "ingress", connection_id, vault, None)


async def _carry_out(
    tx: Connection, connection: asyncpg.Record, effect: Effect, triggered_at: datetime
) -> None:
    connection_id, brand_id = connection["id"], connection["brand_id"]
    match effect:
        case BulkOver(gid, status):
            finished = BulkFinished(
                connection_id=connection_id, brand_id=brand_id, gid=gid, shopify_status=status
            )
            await emit(tx, finished)
        case Uninstalled():
            await remove(tx, connection_id, "uninstalled", as_of=triggered_at)
        case ScopesChanged(scopes):
            granted = with_implied(scopes)
            before = await tx.fetchval(queries["set_scopes"], connection_id, granted, triggered_at)
            if before is not None:
                await follow_scopes(tx, connection_id, brand_id, before, granted)
        case Incomplete():
            await queue_job(tx, connection_id, brand_id, "catch_up")
        case ComplianceRequest():
            pass  # noted with the delivery


class WebhookApp:
    """The ASGI endpoint: nothing between the socket and the commit that is not needed."""

    def __init__(self, inlet: Inlet, secrets: tuple[str, ...]) -> None:
        self.inlet, self.secrets = inlet, secrets
        self._ordinals = itertools.count(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        topic = "unsigned"
        try:
            headers = _headers(scope["headers"])
            if scope["method"] != "POST":
                raise ProblemError(
                    405, "Method not allowed", "webhooks are sent with POST", headers={"Allow": "POST"}
                )
            delivery = self._read(headers, await _body(receive, headers))
            topic = _counted(delivery.topic)
            outcome = await self.inlet.take(delivery)
            if outcome is Outcome.UNKNOWN_SHOP:
                raise ProblemError(404, "Unknown shop", f"{delivery.shop} is not connected here")
            answered.labels(topic, outcome.value).inc()
            await _answer(send, 200, b"", {})
        except ProblemError as problem:
            answered.labels(topic, str(problem.status)).inc()
            await _answer(
                send, problem.status, problem.body(), {"content-type": PROBLEM_JSON, **problem.headers}
            )

    def _read(self, headers: dict[str, str], body: bytes) -> Delivery:
        if not is_webhook_signed(body, headers.get("x-shopify-hmac-sha256", ""), self.secrets):
            raise ProblemError(
                401,
                "Bad signature",
                "X-Shopify-Hmac-Sha256 is not the HMAC of this body under the app's secret: "
                "check SHOPIFY_CLIENT_SECRET",
            )
        shop = shop_domain(headers.get("x-shopify-shop-domain", ""))
        topic, webhook_id = headers.get("x-shopify-topic", ""), headers.get("x-shopify-webhook-id", "")
        if not (shop and topic and webhook_id):
            raise ProblemError(
                400,
                "Missing header",
                "X-Shopify-Shop-Domain, X-Shopify-Topic and X-Shopify-Webhook-Id are needed",
            )
        triggered_at = _triggered_at(headers.get("x-shopify-triggered-at", ""))
        error = None
        try:
            change = parse(topic, body, triggered_at.isoformat(), next(self._ordinals) % ORDINALS)
        except BadPayloadError as bad:
            change, error = Change(), bad
        return Delivery(shop, topic[:100], webhook_id[:200], triggered_at, body, change, error)


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by name; ProblemError if one of Shopify's is there twice: which one was meant?"""
    headers: dict[str, str] = {}
    for name, value in raw:
        if name in HEADERS_ONCE and name.decode() in headers:
            raise ProblemError(400, "Header twice", f"{name.decode()} is there more than once: send it once")
        headers[name.decode("latin-1")] = value.decode("latin-1")
    return headers


def _counted(topic: str) -> str:
    """A label: anybody may write anything into a header, and every new label stays in memory."""
    return topic if topic in READERS else "other"


def _triggered_at(header: str) -> datetime:
    """`2025-07-10T16:15:47.123456789Z`: Shopify writes micro- or nanoseconds; now, where it says nothing."""
    now = datetime.now(UTC)
    seconds, _, fraction = header.removesuffix("Z").partition(".")
    try:
        at = datetime.fromisoformat(f"{seconds}.{fraction[:6].ljust(6, '0')}").replace(tzinfo=UTC)
    except ValueError:
        return now
    return at if at < now + CLOCKS_DIFFER else now  # the header is not signed: no news come from the future


async def _body(receive: Any, headers: dict[str, str]) -> bytes:
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > LARGEST_BODY:
        raise _too_large()
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "Incomplete", "the request ended before its body")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > LARGEST_BODY:
            raise _too_large()
    return b"".join(chunks)


def _too_large() -> ProblemError:
    return ProblemError(413, "Too large", f"a webhook may have {LARGEST_BODY} bytes at the most")


async def _answer(send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
