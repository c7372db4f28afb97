"""The sandbox's one process: shops under /{shop}/, their files under /bulk-results/, the controls under
/_sandbox/.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from urllib.parse import parse_qsl

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from sandbox import admin, control, downloads, oauth
from sandbox.settings import Settings, parse
from sandbox.site import Site
from sandbox.world import World

SHUTDOWN_SECONDS = 2
Handler = Callable[[Request], Awaitable[Response]]


def make_app(settings: Settings, world: World | None = None) -> Starlette:
    world = world or World(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with control.running(world):
            yield
        await world.close()

    routes = [
        Route("/healthz", _health(world)),
        Route("/bulk-results/{name}", _result(world)),
        Mount("/_sandbox", routes=control.routes(world)),
        *shop_routes(world, settings),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={Exception: _broken})


def shop_routes(world: World, settings: Settings) -> list[Route]:
    def site_of(request: Request) -> Site | None:
        return world.sites.get(request.path_params["shop"])

    async def graphql(request: Request) -> Response:
        site = site_of(request)
        if site is None:
            return JSONResponse({"errors": "Not Found"}, 404)
        answer = await admin.graphql(site, request, request.path_params["version"])
        answer.headers["Date"] = formatdate(site.store.now(), usegmt=True)
        return answer

    async def authorize(request: Request) -> Response:
        site, query = site_of(request), dict(request.query_params)
        if site is None:
            return JSONResponse({"errors": "Not Found"}, 404)
        if query.get("client_id") != settings.client_id or not query.get("redirect_uri"):
            return JSONResponse(
                {"error": "invalid_request", "error_description": "Unknown client_id or no redirect_uri"}, 400
            )
        if query.get("auto") == "1" or query.pop("approved", None) == "1":
            return RedirectResponse(oauth.callback(site.store, site.tokens, query, settings), 302)
        return HTMLResponse(oauth.consent_page(site.store, query))

    async def token(request: Request) -> Response:
        site = site_of(request)
        if site is None:
            return JSONResponse({"errors": "Not Found"}, 404)
        form = await _form(request)
        status, body = oauth.answer(site, form)
        site.log.request(f"token {form.get('grant_type') or 'authorization_code'}", status)
        site.log.count("tokens_asked")
        return JSONResponse(body, status)

    return [
        Route("/{shop}/admin/api/{version}/graphql.json", graphql, methods=["POST"]),
        Route("/{shop}/admin/oauth/authorize", authorize),
        Route("/{shop}/admin/oauth/access_token", token, methods=["POST"]),
    ]


def _result(world: World) -> Handler:
    async def result(request: Request) -> Response:
        return await downloads.download(world, request)

    return result


def _health(world: World) -> Handler:
    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "stores": sorted(world.sites)})

    return health


async def _broken(request: Request, error: Exception) -> Response:
    """A mistake of the sandbox itself: said on stderr, answered as Shopify would."""
    logging.getLogger("sandbox").error("failed on %s", request.url.path, exc_info=error)
    return JSONResponse({"errors": "Internal Server Error"}, 500)


async def _form(request: Request) -> dict[str, str]:
    """The token endpoint takes JSON and forms alike."""
    body = await request.body()
    if "json" in request.headers.get("content-type", ""):
        try:
            return {
                str(name): str(value)
                for name, value in msgspec.json.decode(body, type=dict[str, object]).items()
            }
        except msgspec.DecodeError:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def listen(settings: Settings) -> socket.socket:
    """A socket that takes connections from now on; who comes before the server runs waits in its queue."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host.strip("[]"), settings.port), family=family)


def server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        loop="auto",
        http="httptools",
        log_level="critical",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ws="none",
        proxy_headers=False,
        date_header=False,  # each shop has a clock of its own
    )
    return uvicorn.Server(config)


def main() -> None:
    settings = parse()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        sock = listen(settings)
    except OSError as error:
        why = f"cannot listen on {settings.bind}: {error.strerror}"
        print(f"sandbox: {why}; choose another address with --bind", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    host, port = sock.getsockname()[:2]
    app = make_app(settings)
    what = f" ({settings.shop}, {settings.orders} orders)" if settings.shop else ""
    print(f"sandbox: http://{host}:{port}{what}", flush=True)  # noqa: T201
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        server(app).run(sockets=[sock])


if __name__ == "__main__":
    main()
