"""`/healthz`, `/readyz` and `/metrics`: what an orchestrator asks every service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check: TypeAlias = Callable[[], Awaitable[object]]
Scope: TypeAlias = Any  # ASGI's three; the libraries disagree on their types
Receive: TypeAlias = Any
Send: TypeAlias = Any

CHECK_TIMEOUT = 2.0  # seconds; an orchestrator's own probe gives up soon after
PATHS = ("/healthz", "/readyz", "/metrics")


class Readiness:
    """Whether each thing that the service needs answers."""

    def __init__(self, **checks: Check) -> None:
        self.checks = checks

    async def failing(self) -> dict[str, str]:
        """What does not answer, with the reason; empty when ready."""
        reasons = await asyncio.gather(*map(self._reason, self.checks.values()))
        return {name: why for name, why in zip(self.checks, reasons, strict=True) if why}

    @staticmethod
    async def _reason(check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                return "" if await check() is not False else "not running"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return type(error).__name__


class HealthApp:
    """A small ASGI app for the three paths; services with routes of their own mount it."""

    def __init__(self, readiness: Readiness) -> None:
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        if scope["type"] != "http":
            return
        status, content_type, body = await self._answer(scope["path"])
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/healthz":
            return 200, "application/json", b'{"status":"alive"}'
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        if path != "/readyz":
            return 404, "application/problem+json", _problem(404, "Not found", f"the paths are {PATHS}")
        failing = await self.readiness.failing()
        if not failing:
            return 200, "application/json", b'{"status":"ready"}'
        detail = "; ".join(f"{name}: {why}" for name, why in failing.items())
        return 503, "application/problem+json", _problem(503, "Not ready", detail, failing=sorted(failing))


def _problem(status: int, title: str, detail: str, **more: object) -> bytes:
    return msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    )
