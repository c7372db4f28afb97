"""The controls under /_sandbox: make stores, change them, break things, and ask what is true."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox import changes, clock, traffic, truth
from sandbox.context import JSON, FieldError
from sandbox.draw import Draw
from sandbox.model import Subscription
from sandbox.site import Site
from sandbox.store import ALL_SCOPES
from sandbox.webhooks import topic_text
from sandbox.world import World

FLUSH_SECONDS = 30.0
PACE = (
    "objects_per_second",
    "bucket",
    "restore_rate",
    "max_operations",
    "webhook_retry_seconds",
    "access_token_seconds",
    "live_orders_per_minute",
)
COMPLIANCE = (
    "customers/data_request",
    "customers/redact",
    "shop/redact",
)  # sent to the app, not to a subscription
Answer = Callable[[Site, Request, JSON], Awaitable[Response]]


class WrongError(Exception):
    """Answered as HTTP 400 with the message."""


async def body_of(request: Request) -> JSON:
    raw = await request.body()
    try:
        return msgspec.json.decode(raw, type=dict[str, Any]) if raw else {}
    except msgspec.DecodeError as error:
        raise WrongError(f"the body is not a JSON object: {error}") from None


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    """Simulated trade while the server is up."""
    task = asyncio.create_task(traffic.trade(world))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def shown(site: Site) -> JSON:
    store = site.store
    return {
        "shop": store.shop,
        "currency": store.currency,
        "seed": store.seed,
        "now": clock.utc(store.now()),
        "scopes": list(store.scopes),
        "tokens": list(site.tokens.grants),
        "version": store.version,
        "counts": {
            "orders": len(store.orders),
            "customers": len(store.customers),
            "products": len(store.products),
            "product_variants": len(store.variants),
        },
        "bulk_operations": [
            {"id": op.id, "status": op.status, "objectCount": op.object_count}
            for op in site.bulk.operations.values()
        ],
        "webhook_subscriptions": [
            {"id": each.id, "topic": each.topic, "uri": each.uri}
            for each in site.webhooks.subscriptions.values()
        ],
        "webhooks_pending": len(site.webhooks.tasks),
        "faults": site.faults.set,
        "index_lag": store.index_lag,
    }


def make_store(world: World, wanted: JSON) -> Site:
    shop = wanted.get("shop")
    if not isinstance(shop, str) or not shop:
        raise WrongError("'shop' is missing: give the store's myshopify domain")
    if shop in world.sites:
        raise WrongError(f"{shop} exists; DELETE it first")
    now = wanted.get("now")
    try:
        anchor = clock.parse(now) if now else None
    except ValueError:
        raise WrongError(f"'now' is not a date: {now!r}") from None
    settings = replace(world.settings, **{name: wanted[name] for name in PACE if name in wanted})
    scopes = tuple(sorted(wanted.get("scopes") or ALL_SCOPES))
    site = world.open(
        shop,
        int(wanted.get("orders", 100)),
        int(wanted.get("seed", 7)),
        wanted.get("currency", "USD"),
        customers=wanted.get("customers"),
        products=wanted.get("products"),
        anchor=anchor,
        token=wanted.get("token", world.settings.token),
        scopes=scopes,
        settings=settings,
    )
    site.store.index_lag = float(wanted.get("index_lag", 0))
    return site


async def tell(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(shown(site))


async def truth_totals(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(truth.totals(site.store))


async def truth_rows(site: Site, request: Request, _body: JSON) -> Response:
    rows = truth.TABLES.get(request.path_params["table"])
    if rows is None:
        raise WrongError(f"no such table; there are {', '.join(truth.TABLES)}")
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
        raise WrongError(str(error)) from None
    return JSONResponse(site.faults.set)


async def show_log(site: Site, _request: Request, _body: JSON) -> Response:
    return JSONResponse(site.log.shown())


async def flush(site: Site, _request: Request, body: JSON) -> Response:
    done = await site.webhooks.flush(float(body.get("seconds", FLUSH_SECONDS)))
    return JSONResponse(
        {"flushed": done, "pending": len(site.webhooks.tasks), "counters": site.log.shown()["counters"]}
    )


async def load(site: Site, _request: Request, body: JSON) -> Response:
    files = body.get("bulk")
    if not isinstance(files, dict):
        raise WrongError('give {"bulk": {"orders": "<jsonl text>"}}')
    encoding = body.get("encoding", "utf-8")  # latin-1 makes any bytes
    for root, text in files.items():
        site.bulk.loaded[root] = [text.encode(encoding)] * int(body.get("times", 1))
    return JSONResponse({"loaded": sorted(site.bulk.loaded)})


def _change(change: Callable[..., int], *, drawn: bool = False, by_id: bool = True) -> Answer:
    """A route for one of changes.py; answers with the object's id."""

    async def answer(site: Site, request: Request, body: JSON) -> Response:
        inputs: list[Any] = [int(request.path_params["id"])] if by_id else []
        extra = [Draw((site.store.seed, site.store.version, body.get("seed")))] if drawn else []
        try:
            return JSONResponse({"id": change(site, *inputs, body, *extra)}, 200 if by_id else 201)
        except changes.MissingError as missing:
            return JSONResponse({"error": str(missing)}, 404)
        except changes.ImpossibleError as impossible:
            return JSONResponse({"error": str(impossible)}, 409)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise WrongError(f"cannot do that: {error!r}") from None

    return answer


CHANGES: tuple[tuple[str, str, Answer], ...] = (
    ("POST", "/orders", _change(changes.create_order, drawn=True, by_id=False)),
    ("POST", "/orders/{id:int}/update", _change(changes.update_order)),
    ("POST", "/orders/{id:int}/cancel", _change(changes.cancel_order)),
    ("POST", "/orders/{id:int}/refund", _change(changes.refund_order)),
    ("POST", "/orders/{id:int}/edit", _change(changes.edit_order)),
    ("DELETE", "/orders/{id:int}", _change(changes.delete_order)),
    ("POST", "/products", _change(changes.create_product, drawn=True, by_id=False)),
    ("POST", "/products/{id:int}/update", _change(changes.update_product)),
    ("POST", "/products/{id:int}/variants", _change(changes.change_variants, drawn=True)),
    ("DELETE", "/products/{id:int}", _change(changes.delete_product)),
    ("POST", "/customers", _change(changes.create_customer, drawn=True, by_id=False)),
    ("POST", "/customers/{id:int}/update", _change(changes.update_customer)),
    ("DELETE", "/customers/{id:int}", _change(changes.delete_customer)),
)


async def run_traffic(site: Site, _request: Request, body: JSON) -> Response:
    per_second, seconds = float(body.get("per_second", 10)), float(body.get("seconds", 1))
    done = await traffic.burst(site, per_second, seconds, int(body.get("seed", 1)))
    return JSONResponse({"changes": sum(done.values()), "by_kind": done})


async def deliver(site: Site, _request: Request, body: JSON) -> Response:
    """Signs any bytes for whoever subscribed to the topic (or `uri`) and tells what they answered."""
    topic, raw, target = str(body.get("topic", "")), body.get("body", "{}"), body.get("uri")
    wanted = topic if "/" in topic or "." in topic else topic_text(topic)
    subscriptions = list(site.webhooks.subscriptions.values())
    found = [each for each in subscriptions if topic_text(each.topic) == wanted] or (
        subscriptions[:1] if wanted in COMPLIANCE or target else []
    )
    if not found and not target:
        raise WrongError(f"nobody is subscribed to {wanted}; give a 'uri'")
    now = site.store.now()
    base = found[0] if found else Subscription(0, topic, "", "JSON", None, None, (), (), now, now, "2026-10")
    content = raw.encode() if isinstance(raw, str) else msgspec.json.encode(raw)
    headers = {"X-Shopify-Topic": wanted, **(body.get("headers") or {})}
    delivery = site.webhooks.signed(base, content, str(uuid.uuid4()), headers)
    status = await site.webhooks.send(delivery._replace(uri=target or base.uri))
    return JSONResponse({"status": status, "headers": delivery.headers})


async def uninstall(site: Site, _request: Request, _body: JSON) -> Response:
    """The merchant removes the app: app/uninstalled goes out, every token and subscription dies."""
    site.tokens.revoke()
    store = site.store
    payload = {
        "id": store.shop_id,
        "name": store.name,
        "email": store.email,
        "domain": None,
        "myshopify_domain": store.shop,
        "currency": store.currency,
        "iana_timezone": store.zone,
        "plan_name": "basic",
    }
    site.webhooks.emit("APP_UNINSTALLED", payload)
    await site.webhooks.flush(FLUSH_SECONDS)
    site.webhooks.subscriptions.clear()
    return JSONResponse(shown(site))


async def allow_token(site: Site, _request: Request, body: JSON) -> Response:
    """Another custom-app token: {"token", "scopes"?}."""
    site.tokens.allow(str(body["token"]), tuple(body.get("scopes") or site.store.scopes))
    return JSONResponse(shown(site), 201)


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
            except (WrongError, FieldError) as wrong:
                return JSONResponse({"error": str(wrong)}, 400)

        return handle

    async def create(request: Request) -> Response:
        try:
            return JSONResponse(shown(make_store(world, await body_of(request))), 201)
        except WrongError as wrong:
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
        Route(store + "/traffic", on_site(run_traffic), methods=["POST"]),
        Route(store + "/deliver", on_site(deliver), methods=["POST"]),
        Route(store + "/uninstall", on_site(uninstall), methods=["POST"]),
        Route(store + "/tokens", on_site(allow_token), methods=["POST"]),
        *[Route(store + path, on_site(answer), methods=[method]) for method, path, answer in CHANGES],
    ]
