"""Ingress: where stores are connected and where Shopify's webhooks arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from litestar import Litestar, asgi
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from ingress.connections import ConnectionsApi, Management
from ingress.keep_webhooks import WebhookKeeper
from ingress.oauth import OAuth, OAuthApi
from ingress.on_connection_created import on_connection_created
from ingress.on_letter_replayed import on_letter_replayed
from ingress.webhooks import Inlet, WebhookApp
from shared.answers import SecurityHeaders
from shared.events import ConnectionCreated, LetterReplayed, ScopesGranted
from shared.health import PATHS, HealthApp
from shared.http import EXCEPTION_HANDLERS
from shared.service import Parts, Wiring
from shared.service import main as run
from shared.shopify import Shopify
from shared.tokens import Tokens, reseal

WEBHOOK_PATH = "/webhooks/shopify"
REGISTERED_AT_ONCE = 24  # stores whose subscriptions are made together; this is waiting for Shopify
LARGEST_REQUEST = 64 * 1024  # bytes of a management call; webhooks have their own limit


@asynccontextmanager
async def wire(parts: Parts) -> AsyncIterator[Wiring]:
    """Which handler takes which event, which app answers which path."""
    settings = parts.settings
    shopify = Shopify(settings, parts.redis)
    tokens = Tokens.of(parts.pool, shopify, settings)
    inlet = Inlet(parts.pool, tokens.vault)
    register = partial(on_connection_created, tokens=tokens, uri=settings.ingress_url + WEBHOOK_PATH)
    parts.route.on_long(ConnectionCreated, register, workers=REGISTERED_AT_ONCE, each=1)
    parts.route.on_long(ScopesGranted, register, workers=REGISTERED_AT_ONCE, each=1)
    parts.route.on(LetterReplayed, partial(on_letter_replayed, vault=tokens.vault))
    keeper = WebhookKeeper(tokens, settings.ingress_url + WEBHOOK_PATH, settings.webhook_check_every)
    management = Management(tokens, settings.backstock_api_key.get_secret_value())
    oauth = OAuth(tokens, settings)
    app = Litestar(
        route_handlers=[
            ConnectionsApi,
            OAuthApi,
            asgi(WEBHOOK_PATH, copy_scope=True)(WebhookApp(inlet, settings.client_secrets)),
            asgi(list(PATHS), copy_scope=True)(HealthApp(parts.readiness)),
        ],
        dependencies={
            "management": Provide(lambda: management, sync_to_thread=False),
            "oauth": Provide(lambda: oauth, sync_to_thread=False),
        },
        state=State({"management": management}),
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=LARGEST_REQUEST,
        logging_config=None,
        openapi_config=OpenAPIConfig(title="Backstock ingress", version="1", path="/schema"),
    )
    try:
        tasks = (inlet.run, keeper.run, partial(reseal, parts.pool, tokens.vault))
        yield Wiring(SecurityHeaders(app), settings.ingress_bind, tasks)
    finally:
        await shopify.close()


def main() -> None:
    """Run the service."""
    run("ingress", wire)


if __name__ == "__main__":
    main()
