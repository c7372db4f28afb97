"""ConnectionCreated, ScopesGranted -> WebhooksRegistered: Shopify tells us of every change from now on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import structlog

from shared.db import load_queries, settle
from shared.events import ConnectionCreated, Problem, Resource, ScopesGranted, WebhooksRegistered
from shared.outbox import emit
from shared.scopes import RESOURCES, SCOPE_OF
from shared.shopify import Shop, StoreError, UserErrors
from shared.tokens import Tokens

log = structlog.get_logger()
queries = load_queries("ingress")

TOPICS = (
    "ORDERS_CREATE",
    "ORDERS_UPDATED",
    "ORDERS_CANCELLED",
    "ORDERS_DELETE",
    "REFUNDS_CREATE",
    "CUSTOMERS_CREATE",
    "CUSTOMERS_UPDATE",
    "CUSTOMERS_DELETE",
    "CUSTOMERS_PURCHASING_SUMMARY",
    "CUSTOMER_TAGS_ADDED",
    "CUSTOMER_TAGS_REMOVED",
    "PRODUCTS_CREATE",
    "PRODUCTS_UPDATE",
    "PRODUCTS_DELETE",
    "BULK_OPERATIONS_FINISH",
    "APP_UNINSTALLED",
    "APP_SCOPES_UPDATE",
)
PREFIXES: dict[Resource, tuple[str, ...]] = {
    "orders": ("ORDERS_", "REFUNDS_"),
    "customers": ("CUSTOMERS_", "CUSTOMER_"),
    "products": ("PRODUCTS_",),
}
AT_ONCE = 4  # registrations under way together; more only queue up at Shopify

SUBSCRIPTIONS = """
query Subscriptions {
  webhookSubscriptions(first: 100) { nodes { id topic uri } }
}
"""

SUBSCRIBE = """
mutation Subscribe($topic: WebhookSubscriptionTopic!, $uri: String!) {
  webhookSubscriptionCreate(topic: $topic, webhookSubscription: { uri: $uri, format: JSON }) {
    webhookSubscription { id }
    userErrors { field message }
  }
}
"""


class _Subscription(msgspec.Struct):
    id: str
    topic: str
    uri: str


class _Nodes(msgspec.Struct):
    nodes: list[_Subscription]


class Subscriptions(msgspec.Struct, rename="camel"):
    """The app's subscriptions at the shop."""

    webhook_subscriptions: _Nodes


class _Id(msgspec.Struct):
    id: str


class _Created(msgspec.Struct, rename="camel"):
    user_errors: list[UserErrors]
    webhook_subscription: _Id | None = None


class Subscribed(msgspec.Struct, rename="camel"):
    """Shopify's answer to one registration."""

    webhook_subscription_create: _Created


async def on_connection_created(event: ConnectionCreated | ScopesGranted, tokens: Tokens, uri: str) -> None:
    """Register every topic at `uri`; a topic that Shopify refuses is reported, the sync goes on without."""
    pool = tokens.pool
    connection = await pool.fetchrow(queries["connection_by_id"], event.connection_id)
    if connection is None or connection["access_token"] is None:
        async with pool.acquire() as tx, tx.transaction():
            await settle(tx, event, "ingress")
        return
    try:
        shop = await tokens.shop(event.connection_id)
        registered, refusals = await register(shop, uri, topics(connection["scopes"]))
    except StoreError as error:
        registered, refusals = {}, dict.fromkeys(TOPICS, str(error))
    problem = _problem(refusals)
    async with pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "ingress"):
            return
        for topic, gid in registered.items():
            await tx.execute(queries["note_subscription"], event.connection_id, topic, gid, uri)
        if problem:
            await tx.execute(queries["set_problem"], event.connection_id, problem.model_dump())
        await emit(
            tx,
            WebhooksRegistered(
                connection_id=event.connection_id,
                brand_id=event.brand_id,
                topics=tuple(registered),
                problem=problem,
                anew=isinstance(event, ConnectionCreated),
            ),
        )


def topics(scopes: Collection[str]) -> list[str]:
    """The topics that a token with these scopes may subscribe to."""
    closed = tuple(
        p for resource in RESOURCES if SCOPE_OF[resource] not in scopes for p in PREFIXES[resource]
    )
    return [topic for topic in TOPICS if not topic.startswith(closed)]


async def register(
    shop: Shop, uri: str, wanted: Sequence[str] = TOPICS
) -> tuple[dict[str, str], dict[str, str]]:
    """Make sure that the topics are registered at `uri`; returns ids by topic, and refusals by topic.

    StoreError if the store answers no question at all.
    """
    existing = await _existing(shop, uri)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(topic: str) -> tuple[str, str | StoreError]:
        if topic in existing:
            return topic, existing[topic]
        async with gate:
            return topic, await _subscribe(shop, topic, uri)

    answers = dict(await asyncio.gather(*map(one, wanted)))
    registered = {topic: answer for topic, answer in answers.items() if isinstance(answer, str)}
    refusals = {topic: str(answer) for topic, answer in answers.items() if isinstance(answer, StoreError)}
    log.info("webhooks.registered", shop=shop.name, topics=len(registered), refused=refusals)
    return registered, refusals


async def _existing(shop: Shop, uri: str) -> dict[str, str]:
    answer = await shop.query(Subscriptions, SUBSCRIPTIONS)
    return {s.topic: s.id for s in answer.webhook_subscriptions.nodes if s.uri == uri}


async def _subscribe(shop: Shop, topic: str, uri: str) -> str | StoreError:
    variables: dict[str, Any] = {"topic": topic, "uri": uri}
    try:
        created = (await shop.query(Subscribed, SUBSCRIBE, variables)).webhook_subscription_create
    except StoreError as error:
        return error
    if created.webhook_subscription:
        return created.webhook_subscription.id
    message = created.user_errors[0].message if created.user_errors else "no reason given"
    if "already been taken" in message:  # somebody was quicker: another try of this very event, most likely
        return (await _existing(shop, uri)).get(topic, "")
    return StoreError("webhook_refused", message, "")


def _problem(refusals: dict[str, str]) -> Problem | None:
    if not refusals:
        return None
    topic, why = next(iter(refusals.items()))
    return Problem(
        code="webhooks_refused",
        message=f"Shopify refused {len(refusals)} of {len(TOPICS)} webhooks ({topic}: {why}).",
        action="Set INGRESS_URL to an https address that Shopify can reach, then connect the store again.",
    )
