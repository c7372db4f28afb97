"""The dashboard page, the widget and the policy that keeps both harmless."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

PAGES = {
    "/": ("dashboard.html", "text/html"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/widget.js": ("widget.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
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
    return [_page(path, name, media_type) for path, (name, media_type) in PAGES.items()]


def _page(path: str, name: str, media_type: str) -> HTTPRouteHandler:
    body = files("status").joinpath("web", name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Cache-Control": FRESH}

    @get(path, include_in_schema=False, name=name, sync_to_thread=False)
    def page(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.headers.get("if-none-match") == etag:
            return Response(b"", status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return page
