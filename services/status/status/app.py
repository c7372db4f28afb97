"""Status: every event -> how far each brand's sync is, as JSON, as SSE, as a widget and as a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, asgi
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from shared.answers import SecurityHeaders
from shared.events import EVENTS
from shared.health import PATHS, HealthApp
from shared.http import EXCEPTION_HANDLERS
from shared.service import Parts, Wiring
from shared.service import main as run
from shared.widget_tokens import WidgetTokens
from status.access import Access, ForeignPages
from status.api import Reading, SyncApi
from status.hub import Hub
from status.on_event import ProgressWriter
from status.operations import OperationsApi
from status.pages import FOR_OTHER_PAGES, POLICIES, page_handlers
from status.prune import Pruner

EVENTS_AT_ONCE = 64  # of each type; they share a transaction, so it is no number of connections
LARGEST_REQUEST = 4 * 1024  # bytes; no call has a body
CORS = CORSConfig(  # widgets live on other people's pages; the token is what counts, no cookie exists
    allow_origins=["*"],
    allow_methods=["GET"],
    allow_headers=["Authorization", "If-None-Match", "Last-Event-ID"],
    expose_headers=["ETag", "Retry-After"],
)


@asynccontextmanager
async def wire(parts: Parts) -> AsyncIterator[Wiring]:
    """Which handler takes which event, which app answers which path."""
    settings = parts.settings
    writer = ProgressWriter(parts.pool, settings.scopes)
    for event_type in EVENTS.values():
        if "status" in event_type.consumed_by:
            parts.route.on_shared(event_type, writer.take, workers=EVENTS_AT_ONCE)
    tokens = WidgetTokens(settings.secret_keys)
    access = Access(settings.backstock_api_key.get_secret_value(), tokens)
    hub = Hub(parts.pool, settings.database_url)
    app = make_app(parts, Reading(parts.pool, access, tokens, hub))
    pruner = Pruner(parts.pool, settings.keep_events_days)
    guarded = SecurityHeaders(ForeignPages(app), policies=POLICIES, more=FOR_OTHER_PAGES)
    yield Wiring(guarded, settings.status_bind, (hub.run, pruner.run), on_stop=hub.close)


def make_app(parts: Parts, reading: Reading) -> Litestar:
    """The HTTP side."""
    return Litestar(
        route_handlers=[
            SyncApi,
            OperationsApi,
            asgi(list(PATHS), copy_scope=True)(HealthApp(parts.readiness)),
            *page_handlers(),
        ],
        dependencies={"reading": Provide(lambda: reading, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS,
        cors_config=CORS,
        logging_config=None,  # shared.logs has set logging up
        request_max_body_size=LARGEST_REQUEST,
        openapi_config=OpenAPIConfig(
            title="Backstock status", version="1", path="/schema", render_plugins=[JsonRenderPlugin()]
        ),
    )


def main() -> None:
    """Run the service."""
    run("status", wire)


if __name__ == "__main__":
    main()
