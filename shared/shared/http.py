"""What the HTTP services share: problem details (RFC 9457) and the bearer key of the management API."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

log = structlog.get_logger()

PROBLEM_JSON = "application/problem+json"


class ProblemError(Exception):
    """An answer that is not the hoped-for one: status, what is wrong, and what helps."""

    def __init__(
        self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.headers, self.more = dict(headers or {}), more

    def body(self) -> bytes:
        """The problem document."""
        head = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode({**head, **self.more})


def unauthorized(detail: str) -> ProblemError:
    """401, with the scheme that is expected."""
    return ProblemError(401, "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def bearer(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The bearer token of a request, or an empty string."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_api_key(token: str, api_key: str) -> bool:
    """Whether it is the key of the management API, in constant time."""
    return hmac.compare_digest(token.encode(), api_key.encode())


def _on_problem(_: Request[Any, Any, Any], error: ProblemError) -> Response[bytes]:
    return Response(error.body(), status_code=error.status, headers=error.headers, media_type=PROBLEM_JSON)


def _on_validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    problems = [
        {"field": str(e.get("key", "body")), "message": str(e.get("message", ""))}
        for e in error.extra or []
        if isinstance(e, dict)
    ]
    detail = "; ".join(f"{p['field']}: {p['message']}" for p in problems) or error.detail
    return _on_problem(request, ProblemError(400, "Bad request", detail, errors=problems))


def _on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    title = HTTPStatus(error.status_code).phrase
    problem = ProblemError(error.status_code, title, error.detail, headers=error.headers)
    return _on_problem(request, problem)


def _on_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("http.failed", path=request.url.path, exc_info=error)
    detail = "Something went wrong here; it is in the log. Try again later."
    return _on_problem(request, ProblemError(500, "Internal server error", detail))


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    ProblemError: _on_problem,
    ValidationException: _on_validation,
    HTTPException: _on_http,
    Exception: _on_anything,
}
