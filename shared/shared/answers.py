"""What each HTTP answer of ours is made of, whatever serves it: problem details (RFC 9457), headers.

Knows no framework: services that only say whether they are ready are spared Litestar, a fifth of their start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

PROBLEM_JSON = "application/problem+json"
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"


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


def security_headers(policy: bytes = API_POLICY) -> list[tuple[bytes, bytes]]:
    """What browsers need to know of every answer, refusals included."""
    return [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),  # an address may carry a token
        (b"content-security-policy", policy),
    ]


class SecurityHeaders:
    """An ASGI app around another: adds the headers to its answers, errors included, and knows only HTTP.

    `policies` are the content security policies of paths that have their own; `more` goes with every answer.
    """

    def __init__(
        self,
        app: Any,
        *,
        policies: Mapping[str, bytes] | None = None,
        more: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.app, self.policies, self.more = app, policies or {}, more

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve, with the headers on the first message."""
        if scope["type"] != "http":
            return
        added = [*security_headers(self.policies.get(scope["path"], API_POLICY)), *self.more]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in added if h[0] not in there)]
            await send(message)

        await self.app(scope, receive, send_with_headers)
