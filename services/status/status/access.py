"""Who may read what: the API key every brand, a widget token one; a refusal says nothing of other brands."""

from __future__ import annotations

import re
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import ASGIApp, Receive, Scope, Send

from shared.answers import ProblemError
from shared.http import bearer, is_api_key, unauthorized
from shared.widget_tokens import WidgetTokens

READS = re.compile(r"/api/sync/[^/]+/(status|events|data)|/widget(\.[a-z]+)?\.js")


class ForeignPages:
    """Pages of other origins may read a brand and load the widget; all else knows nothing of CORS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; without the origin where it must not be answered."""
        if not READS.fullmatch(scope["path"]):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"origin"]
        await self.app(scope, receive, send)


class Access:
    """The keys that open this service."""

    def __init__(self, api_key: str, tokens: WidgetTokens) -> None:
        self.api_key, self.tokens = api_key, tokens

    def check_operator(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """ProblemError unless the request carries the API key; never taken from an address."""
        if not is_api_key(bearer(connection), self.api_key):
            raise unauthorized("send the management key: Authorization: Bearer $BACKSTOCK_API_KEY")

    def check_reader(self, connection: ASGIConnection[Any, Any, Any, Any], brand_id: str) -> None:
        """ProblemError unless the request may read the brand, whether that exists or not."""
        token = bearer(connection) or connection.query_params.get("token", "")
        if is_api_key(bearer(connection), self.api_key):
            return
        readable = self.tokens.brand(token) if token else None
        if readable is None:
            raise unauthorized(
                "the token is missing, invalid or over: get one with POST /api/sync/{brandId}/token "
                "and send it as Authorization: Bearer or as ?token="
            )
        if readable != brand_id:
            raise ProblemError(
                403,
                "Forbidden",
                "the token is for another brand: get one for the brand that you want to read",
            )
