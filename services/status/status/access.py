"""Who may read what: the API key every brand, a widget token one; a refusal says nothing of other brands."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection

from shared.http import ProblemError, bearer, is_api_key, unauthorized
from shared.secrets import WidgetTokens


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
