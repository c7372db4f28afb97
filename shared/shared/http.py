"""What the services with an API share, on Litestar: refusals as problem details, the management API's key."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap

from shared.answers import PROBLEM_JSON, ProblemError

log = structlog.get_logger()


class Problem(msgspec.Struct):
    """A problem document (RFC 9457), as the OpenAPI documents describe it."""

    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The refusals of a call, for its description."""
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=HTTPStatus(status).phrase,
            media_type=PROBLEM_JSON,
        )
        for status in statuses
    }


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


_DATABASE_AWAY: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # the connection broke in the middle of a statement
)


def _on_database_away(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.warning("http.database_away", error=type(error).__name__)
    problem = ProblemError(
        503,
        "Database away",
        "Postgres does not answer at the moment: try again",
        headers={"Retry-After": "5"},
    )
    return Response(problem.body(), status_code=503, headers=problem.headers, media_type=PROBLEM_JSON)


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    ProblemError: _on_problem,
    ValidationException: _on_validation,
    HTTPException: _on_http,
    **dict.fromkeys(_DATABASE_AWAY, _on_database_away),
    Exception: _on_anything,
}
