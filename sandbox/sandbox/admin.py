"""POST /{shop}/admin/api/{version}/graphql.json: token, rate limit, faults, then the query."""

import asyncio
import re
import uuid
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox import cost
from sandbox.context import JSON, SIXTY_DAYS, Context, DocumentError
from sandbox.execute import Request, execute
from sandbox.site import Site

SUPPORTED = ("2026-01", "2026-04", "2026-07", "2026-10")
_VERSION = re.compile(r"\d{4}-(01|04|07|10)")
BAD_TOKEN = "[API] Invalid API key or access token (unrecognized login or wrong password)"  # noqa: S105


class Reset(Response):
    """Promises a body and hangs up: the client sees a broken connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


def served(version: str) -> str | None:
    """A version that is no longer (or not yet) supported falls forward to the oldest that is."""
    if version == "unstable" or version in SUPPORTED:
        return version
    if not _VERSION.fullmatch(version):
        return None
    return SUPPORTED[0] if version < SUPPORTED[0] else SUPPORTED[-1]


def answer(body: JSON, status: int, version: str | None, headers: dict[str, str] | None = None) -> Response:
    built = {"X-Request-Id": str(uuid.uuid4()), **(headers or {})}
    if version:
        built["X-Shopify-API-Version"] = version
    return Response(msgspec.json.encode(body), status, built, "application/json; charset=utf-8")


async def graphql(site: Site, http: HttpRequest, asked_version: str) -> Response:
    version = served(asked_version)
    if version is None:
        return answer({"errors": "Not Found"}, 404, None)
    if broken := await _faults(site, version):
        return broken
    scopes = site.tokens.check(http.headers.get("x-shopify-access-token", ""))
    if scopes is None or site.faults.strike("token_revoked"):
        site.log.request("", 401, note="bad token")
        return answer({"errors": BAD_TOKEN}, 401, version)
    try:
        asked = msgspec.json.decode(await http.body(), type=dict[str, Any])
        text, variables = asked["query"], asked.get("variables")
        if not isinstance(text, str) or not isinstance(variables, dict | None):
            raise TypeError
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer({"errors": {"query": "Required parameter missing or invalid"}}, 400, version)
    body = run(
        site, text, variables, asked.get("operationName"), scopes, version, str(http.base_url).rstrip("/")
    )
    if site.faults.strike("unanswered", text):
        return Reset()
    return answer(body, 200, version)


async def _faults(site: Site, version: str) -> Response | None:
    faults = site.faults
    if slow := faults.strike("latency"):
        await asyncio.sleep(slow.get("seconds", 0.5))
    if faults.strike("reset"):
        site.log.request("", 0, note="reset")
        return Reset()
    if broken := faults.strike("http"):
        status = int(broken.get("status", 503))
        site.log.request("", status, note="fault")
        headers = {"Retry-After": str(broken.get("retry_after", "2.0"))} if status in {429, 430, 503} else {}
        return answer({"errors": f"Simulated {status}"}, status, version, headers)
    if faults.strike("internal_error"):
        request_id = str(uuid.uuid4())
        site.log.request("", 200, note="INTERNAL_SERVER_ERROR")
        message = (
            "Internal error. Looks like something went wrong on our end.\n"
            f"Request ID: {request_id} (include this in support requests)."
        )
        extensions = {"code": "INTERNAL_SERVER_ERROR", "requestId": request_id}
        return answer({"errors": [{"message": message, "extensions": extensions}]}, 200, version)
    return None


def run(
    site: Site,
    text: str,
    variables: JSON | None,
    name: str | None,
    scopes: tuple[str, ...],
    version: str,
    base: str,
) -> JSON:
    try:
        request = Request(text, variables, name)
        oldest = 0 if "read_all_orders" in scopes else site.store.now() - SIXTY_DAYS
        context = Context(site.store, scopes, site, oldest, version, base)
        plan = request.price(context)
        requested = max(1, plan.requested())
        called = request.name or ",".join(child.key for child in plan.children)
        if requested > cost.SINGLE_QUERY_LIMIT:
            site.log.request(called, 200, requested, "MAX_COST_EXCEEDED")
            return cost.too_expensive(requested, site.bucket)
        if site.faults.strike("throttle") or site.bucket.available() < requested:
            site.log.count("throttled")
            site.log.request(called, 200, requested, "THROTTLED")
            return cost.throttled(requested, site.bucket)
        body = execute(request, context)
    except DocumentError as error:
        site.log.request("", 200, note=str(error))
        return {"errors": error.errors}
    actual = min(requested, max(1, plan.actual(body["data"] or {}))) if not request.is_mutation else requested
    site.bucket.take(actual)
    if wrong := site.faults.strike("nodes_wrong"):
        _spoil(body["data"], wrong["nodes"])
    paid = {
        "requestedQueryCost": requested,
        "actualQueryCost": actual,
        "throttleStatus": site.bucket.status(),
    }
    body["extensions"] = {"cost": paid, **({"search": context.search} if context.search else {})}
    site.log.request(called, 200, actual, context.errors[0]["message"] if context.errors else None)
    return body


def _spoil(data: Any, wrong: JSON) -> None:
    """Give objects, by their gids, values of fields that they have and that Shopify would never send."""
    if isinstance(data, list):
        for item in data:
            _spoil(item, wrong)
    elif isinstance(data, dict):
        spoilt = wrong.get(str(data.get("id")), {})
        data.update({name: value for name, value in spoilt.items() if name in data})
        for item in data.values():
            _spoil(item, wrong)
