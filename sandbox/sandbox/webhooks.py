"""Webhook subscriptions and their deliveries, with Shopify's promises and none more.

Signed over the exact bytes, 1 s to connect, 5 s in all, anything but 2xx is tried again eight times with
growing pauses, the same bytes and ids each time; then the subscription is gone. No order is kept, and
faults drop, repeat and delay.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec.structs import replace

from sandbox import clock
from sandbox.context import JSON
from sandbox.model import Subscription
from sandbox.roots import number_of

if TYPE_CHECKING:
    from sandbox.site import Site

CONNECT_TIMEOUT, TOTAL_TIMEOUT = 1.0, 5.0
RETRIES = 8
CONCURRENCY = 32
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_SHOPIFY = re.compile(r"(^|\.)(myshopify\.com|shopify\.com|shopifycloud\.com|internal)$")
_FAMILIES = (
    "BULK_OPERATIONS",
    "ORDERS",
    "CUSTOMERS",
    "PRODUCTS",
    "REFUNDS",
    "APP",
    "SHOP",
    "INVENTORY_ITEMS",
)


def topic_text(topic: str) -> str:
    """ORDERS_CREATE -> orders/create, CUSTOMER_TAGS_ADDED -> customer.tags_added."""
    if topic.startswith("CUSTOMER_"):
        return "customer." + topic.removeprefix("CUSTOMER_").lower()
    family = next((name for name in _FAMILIES if topic.startswith(name + "_")), topic.rpartition("_")[0])
    return f"{family.lower()}/{topic.removeprefix(family + '_').lower()}"


class Delivery(NamedTuple):
    subscription: int
    uri: str
    topic: str
    body: bytes
    headers: dict[str, str]


def sign(body: bytes, secret: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def encode(payload: JSON, *, careful: bool) -> bytes:
    """Slashes escaped as Shopify's JSON does; `careful` escapes & < > too, as a part of its services do."""
    body = msgspec.json.encode(payload).replace(b"/", b"\\/")
    if careful:
        body = body.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    return body


class Webhooks:
    def __init__(self, site: "Site") -> None:
        self.site = site
        self.subscriptions: dict[int, Subscription] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.limit = asyncio.Semaphore(CONCURRENCY)
        self.failures: dict[int, int] = {}

    # --- subscriptions
    # -------------------------------------------------------------------------------------------------
    def create(self, topic: str, wanted: JSON, version: str) -> JSON:
        uri = _uri(wanted)
        if error := self._refused(topic, uri, wanted, None):
            return {"userErrors": [error], "webhookSubscription": None}
        store = self.site.store
        made = Subscription(
            store.next_id("WebhookSubscription"),
            topic,
            uri,
            wanted.get("format") or "JSON",
            wanted.get("filter") or None,
            wanted.get("name"),
            tuple(wanted.get("includeFields") or ()),
            tuple(wanted.get("metafieldNamespaces") or ()),
            store.now(),
            store.now(),
            version,
        )
        self.subscriptions[made.id] = made
        return {"userErrors": [], "webhookSubscription": made}

    def update(self, id_: str, wanted: JSON) -> JSON:
        old = self.subscriptions.get(number_of(id_, "WebhookSubscription"))
        if old is None:
            error = {"field": ["id"], "message": "Webhook subscription does not exist"}
            return {"userErrors": [error], "webhookSubscription": None}
        uri = _uri(wanted) or old.uri
        if error_found := self._refused(old.topic, uri, wanted, old.id):
            return {"userErrors": [error_found], "webhookSubscription": None}
        include = wanted.get("includeFields")
        made = replace(
            old,
            uri=uri,
            format=wanted.get("format") or old.format,
            filter=wanted.get("filter", old.filter) or None,
            include_fields=old.include_fields if include is None else tuple(include),
            updated_at=self.site.store.now(),
        )
        self.subscriptions[made.id] = made
        return {"userErrors": [], "webhookSubscription": made}

    def delete(self, id_: str) -> JSON:
        if self.subscriptions.pop(number_of(id_, "WebhookSubscription"), None) is None:
            error = {"field": ["id"], "message": "Webhook subscription does not exist"}
            return {"deletedWebhookSubscriptionId": None, "userErrors": [error]}
        return {"deletedWebhookSubscriptionId": id_, "userErrors": []}

    def _refused(self, topic: str, uri: str, wanted: JSON, itself: int | None) -> JSON | None:
        message = _address_problem(uri)
        same = (topic, uri, wanted.get("format") or "JSON", wanted.get("filter") or None)
        if message is None and any(
            (other.topic, other.uri, other.format, other.filter) == same and other.id != itself
            for other in self.subscriptions.values()
        ):
            message = "Address for this topic has already been taken"
        return {"field": ["webhookSubscription", "callbackUrl"], "message": message} if message else None

    # --- deliveries
    # ----------------------------------------------------------------------------------------------------
    def emit(self, topic: str, payload: JSON, event_id: str | None = None) -> None:
        """One event to everybody subscribed to it."""
        faults, event = self.site.faults, event_id or str(uuid.uuid4())
        for subscription in list(self.subscriptions.values()):
            if subscription.topic != topic or not subscription.uri.startswith("http"):
                continue
            shown = {k: v for k, v in payload.items() if k in subscription.include_fields or k == "id"}
            careful = faults.random() < 0.5  # noqa: PLR2004  either way is met in the wild
            body = encode(shown if subscription.include_fields else payload, careful=careful)
            delivery = self.signed(subscription, body, event)
            self.site.log.count("webhooks_emitted")
            if faults.strike("webhook_drop"):
                self.site.log.count("webhooks_dropped")
                continue
            self._start(delivery)
            if faults.strike("webhook_duplicate"):
                self.site.log.count("webhooks_duplicated")
                self._start(delivery)

    def signed(
        self, subscription: Subscription, body: bytes, event: str, headers: JSON | None = None
    ) -> Delivery:
        store = self.site.store
        seconds, fraction = divmod(store.nanoseconds(), clock.SECOND)
        built = {
            "Content-Type": "application/json",
            "X-Shopify-Topic": topic_text(subscription.topic),
            "X-Shopify-Hmac-Sha256": sign(body, self.site.settings.client_secret),
            "X-Shopify-Shop-Domain": store.shop,
            "X-Shopify-API-Version": subscription.api_version,
            "X-Shopify-Webhook-Id": str(uuid.uuid4()),
            "X-Shopify-Event-Id": event,
            "X-Shopify-Triggered-At": f"{clock.utc(seconds)[:-1]}.{fraction:09d}Z",
            "User-Agent": "Shopify-Captain-Hook",
        }
        if subscription.name:
            built["X-Shopify-Name"] = subscription.name
        for name, value in (headers or {}).items():
            built = {k: v for k, v in built.items() if k.lower() != name.lower()}
            if value is not None:
                built[name] = str(value)
        return Delivery(subscription.id, subscription.uri, subscription.topic, body, built)

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(delivery))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        faults = self.site.faults
        for name in ("webhook_delay", "webhook_reorder"):
            if fault := faults.strike(name):
                await asyncio.sleep(
                    fault.get("seconds", 0.2) * (1.0 if name == "webhook_delay" else faults.random())
                )
        pause = self.site.settings.webhook_retry_seconds
        for attempt in range(RETRIES + 1):
            if attempt:
                self.site.log.count("webhooks_retried")
                await asyncio.sleep(pause)
                pause *= 2
            if delivery.subscription not in self.subscriptions:
                return
            if 200 <= (await self.send(delivery)) < 300:  # noqa: PLR2004
                self.site.log.count("webhooks_delivered")
                return
            self.site.log.count("webhooks_failed")
        self.subscriptions.pop(delivery.subscription, None)
        self.site.log.count("webhooks_subscriptions_removed")

    async def send(self, delivery: Delivery) -> int:
        """The receiver's status; 0 when it could not be asked in time."""
        try:
            async with self.limit, asyncio.timeout(TOTAL_TIMEOUT):
                answer = await self.site.client.post(
                    delivery.uri, content=delivery.body, headers=delivery.headers
                )
        except (httpx.HTTPError, TimeoutError):
            return 0
        return answer.status_code

    async def flush(self, seconds: float) -> bool:
        """Waits until nothing is on its way any more; False if that takes too long."""
        deadline = time.monotonic() + seconds
        while self.tasks and time.monotonic() < deadline:
            await asyncio.wait(self.tasks, timeout=deadline - time.monotonic())
        return not self.tasks

    async def close(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _uri(wanted: JSON) -> str:
    return str(wanted.get("uri") or wanted.get("callbackUrl") or "")


def _address_problem(uri: str) -> str | None:
    """As Shopify, but plain http to this very machine is let through: that is where a sandbox is used."""
    if not uri.strip():
        return "Address can't be blank"
    if uri.startswith(("pubsub://", "arn:aws:events:")):
        return None
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return "Address is invalid"
    if parts.scheme == "http" and host not in _LOCAL:
        return "Address protocol http:// is not supported"
    if parts.scheme not in {"http", "https"} or not host:
        return "Address is invalid"
    return "Address cannot be a Shopify or an internal domain" if _SHOPIFY.search(host) else None
