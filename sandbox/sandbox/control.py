"""The controls under /_sandbox: make stores, change them, break things, and ask what is true."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox import clock, truth
from sandbox.context import JSON
from sandbox.site import Site
from sandbox.store import ALL_SCOPES
from sandbox.world import World

FLUSH_SECONDS = 30.0
PACE = ("objects_per_second", "bucket", "restore_rate", "max_operations", "webhook_retry_seconds", "access_token_seconds")
Answer = Callable[[Site, Request, JSON], Awaitable[Response]]


class Wrong(Exception):
    """Answered as HTTP 400 with the message."""


async def body_of(request: Request) -> JSON:
    raw = await request.body()
    try:
        return msgspec.json.decode(raw, type=dict[str, Any]) if raw else {}
    except msgspec.DecodeError as error:
        raise Wrong(f"the body is not a JSON object: {error}") from None


def start(_world: World) -> None: ...


async def stop(_world: World) -> None: ...


def shown(site: Site) -> JSON:
    store = site.store
    return {
        "shop": store.shop, "currency": store.currency, "seed": store.seed, "now": clock.utc(store.now()),
        "scopes": list(store.scopes), "tokens": list(site.tokens.grants), "version": store.version,
        "counts": {
            "orders": len(store.orders), "customers": len(store.customers), "products": len(store.products),
            "product_variants": len(store.variants),
        },
        "bulk_operations": [
            {"id": op.id, "status": op.status, "objectCount": op.object_count} for op in site.bulk.operations.values()
        ],
        "webhook_subscriptions": [
            {"id": each.id, "topic": each.topic, "uri": each.uri} for each in site.webhooks.subscriptions.values()
        ],
        "webhooks_pending": len(site.webhooks.tasks), "faults": site.faults.set, "index_lag": store.index_lag,
    }  # fmt: skip


def make_store(world: World, wanted: JSON) -> Site:
    shop = wanted.get("shop")
    if not isinstance(shop, str) or not shop:
        raise Wrong("'shop' is missing: give the store's myshopify domain")
    if shop in world.sites:
        raise Wrong(f"{shop} exists; DELETE it first")
    now = wanted.get("now")
    try:
        anchor = clock.parse(now) if now else None
    except ValueError:
        raise Wrong(f"'now' is not a date: {now!r}") from None
    settings = replace(world.settings, **{name: wanted[name] for name in PACE if name in wanted})
    scopes = tuple(sorted(wanted.get("scopes") or ALL_SCOPES))
    site = world.open(
        shop, int(wanted.get("orders", 100)), int(wanted.get("seed", 7)), wanted.get("currency", "USD"),
        customers=wanted.get("customers"), products=wanted.get("products"), anchor=anchor,
        token=wanted.get("token", world.settings.token), scopes=scopes, settings=settings,
    )  # fmt: skip
    site.store.index_lag = float(wanted.get("index_lag", 0))
    return site


async def tell(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(shown(site))


async def truth_totals(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(truth.totals(site.store))


async def truth_rows(site: Site, request: Request, _body: JSON) -> Response:
    rows = truth.TABLES.get(request.path_params["table"])
    if rows is None:
        raise Wrong(f"no such table; there are {', '.join(truth.TABLES)}")
    view = site.store.snapshot()

    async def lines() -> AsyncIterator[bytes]:
        chunk: list[bytes] = []
        for row in rows(view):
            chunk.append(msgspec.json.encode(row))
            if len(chunk) == 500:  # noqa: PLR2004  about 4 ms of work
                yield b"\n".join(chunk) + b"\n"
                chunk.clear()
        yield b"\n".join(chunk) + b"\n" if chunk else b""

    return StreamingResponse(lines(), media_type="application/jsonl")


async def patch_faults(site: Site, _request: Request, body: JSON) -> Response:
    try:
        site.faults.patch(body)
    except (ValueError, TypeError) as error:
        raise Wrong(str(error)) from None
    return JSONResponse(site.faults.set)


async def show_log(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(site.log.shown())


async def flush(site: Site, _request: Request, body: JSON) -> Response:
    done = await site.webhooks.flush(float(body.get("seconds", FLUSH_SECONDS)))
    return JSONResponse({"flushed": done, "pending": len(site.webhooks.tasks), "counters": site.log.shown()["counters"]})


async def load(site: Site, _request: Request, body: JSON) -> Response:
    files = body.get("bulk")
    if not isinstance(files, dict):
        raise Wrong('give {"bulk": {"orders": "<jsonl text>"}}')
    site.bulk.loaded.update({root: text.encode() for root, text in files.items()})
    return JSONResponse({"loaded": sorted(site.bulk.loaded)})


async def patch_store(site: Site, _request: Request, body: JSON) -> Response:
    site.settings = replace(site.settings, **{name: body[name] for name in PACE if name in body})
    site.store.index_lag = float(body.get("index_lag", site.store.index_lag))
    return JSONResponse(shown(site))


def routes(world: World) -> list[Route]:
    def on_site(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            site = world.sites.get(request.path_params["shop"])
            if site is None:
                return JSONResponse({"error": "no such store"}, 404)
            try:
                return await answer(site, request, await body_of(request))
            except Wrong as wrong:
                return JSONResponse({"error": str(wrong)}, 400)

        return handle

    async def create(request: Request) -> Response:
        try:
            return JSONResponse(shown(make_store(world, await body_of(request))), 201)
        except Wrong as wrong:
            return JSONResponse({"error": str(wrong)}, 400)

    async def list_all(_request: Request) -> Response:
        return JSONResponse({"stores": [shown(site) for site in world.sites.values()]})

    async def delete(request: Request) -> Response:
        gone = await world.shut(request.path_params["shop"])
        return Response(status_code=204) if gone else JSONResponse({"error": "no such store"}, 404)

    store = "/stores/{shop}"
    return [
        Route("/stores", create, methods=["POST"]),
        Route("/stores", list_all, methods=["GET"]),
        Route(store, on_site(tell), methods=["GET"]),
        Route(store, on_site(patch_store), methods=["PATCH"]),
        Route(store, delete, methods=["DELETE"]),
        Route(store + "/truth", on_site(truth_totals)),
        Route(store + "/truth/{table}", on_site(truth_rows)),
        Route(store + "/faults", on_site(patch_faults), methods=["PATCH"]),
        Route(store + "/log", on_site(show_log)),
        Route(store + "/load", on_site(load), methods=["POST"]),
        Route(store + "/webhooks/flush", on_site(flush), methods=["POST"]),
    ]
