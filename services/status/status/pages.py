"""The dashboard page, the widget and the policy that keeps both harmless."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

PAGES = {
    "/": "dashboard.html",
    "/connections": "connections.html",
    **{
        f"/{name}": name
        for name in (
            "chart.js",
            "connections.js",
            "dashboard.css",
            "dashboard.js",
            "favicon.svg",
            "format.js",
            "key.js",
            "vendor/uplot.LICENSE.txt",
            "vendor/uplot.css",
            "vendor/uplot.js",
            "widget.de.js",
            "widget.js",
        )
    },
}
MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
FRESH = "public, max-age=60"  # a new release shows within a minute; until then nothing is asked
PAGE_POLICY = (
    b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    b"form-action 'self'; frame-ancestors 'self'"
)
POLICIES = dict.fromkeys(PAGES, PAGE_POLICY)
FOR_OTHER_PAGES = [(b"cross-origin-resource-policy", b"cross-origin")]  # the widget lives on them


def page_handlers() -> list[HTTPRouteHandler]:
    """A handler for each file, read once."""
    return [_page(path, name) for path, name in PAGES.items()]


def _page(path: str, name: str) -> HTTPRouteHandler:
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    body = files("status").joinpath("web", name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Cache-Control": FRESH}

    @get(path, include_in_schema=False, name=name, sync_to_thread=False)
    def page(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.headers.get("if-none-match") == etag:
            return Response(b"", status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return page
