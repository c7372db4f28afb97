"""GET /api/sync/{brandId}/events: the brand's document, again whenever it changes, until it is live.

    retry, the newest frame at once, then: a new frame -> send it | 15 s of nothing -> heartbeat
    live -> the frame, `event: end`, close | 10 minutes -> close; the client comes back with Last-Event-ID

Plain ASGI: a frame is one message that all clients of the brand share.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Message, Receive, Scope, Send

from shared.http import ProblemError
from status.access import Access
from status.hub import Client, Frame, Hub

HEARTBEAT = 15.0  # seconds; proxies close what is silent for longer (often 30 to 60)
LIFETIME = 600.0  # seconds; then a client comes back, so that load spreads and tokens are checked again
RETRY_MS = 2_000  # milliseconds until a client comes back after a break
RETRY_WHEN_LIVE_MS = 60_000  # milliseconds, for clients that do not close at `end`

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx: pass on at once
]


class EventsApp:
    """The ASGI route; Litestar finds it, from there on it speaks for itself."""

    def __init__(
        self, hub: Hub, access: Access, *, heartbeat: float = HEARTBEAT, lifetime: float = LIFETIME
    ) -> None:
        self.hub, self.access, self.heartbeat, self.lifetime = hub, access, heartbeat, lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check who asks for what, then stream."""
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        brand_id = str(scope["path_params"]["brand_id"])
        if scope["method"] != "GET":  # type: ignore[typeddict-item, unused-ignore]
            raise ProblemError(405, "Method not allowed", "read events with GET", headers={"Allow": "GET"})
        self.access.check_reader(connection, brand_id)
        seen = connection.headers.get("last-event-id") or connection.query_params.get("lastEventId")
        client = await self.hub.join(brand_id)
        watch = asyncio.create_task(_until_gone(receive))
        watch.add_done_callback(client.leave)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            # A cancelled task is uvicorn's way to end: the answer is completed all the same.
            with contextlib.suppress(asyncio.CancelledError):
                await self._follow(client, seen or "", send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.hub.leave(client)
            watch.cancel()

    async def _follow(self, client: Client, seen_id: str, send: Send) -> None:
        await send(_chunk(b"retry: %d\n\n" % RETRY_MS))
        over = time.monotonic() + self.lifetime * random.uniform(0.9, 1.1)  # noqa: S311 - not all at once
        seen: Frame | None = None
        while not client.gone and time.monotonic() < over:
            client.wake.clear()
            frame = client.channel.frame
            if frame is not seen:
                if seen or frame.id != seen_id:
                    await send(frame.message)  # type: ignore[arg-type]
                seen = frame
                if frame.last:
                    await send(_end(frame))
                    return
            elif not await _woken(client, min(self.heartbeat, over - time.monotonic())):
                await send(_chunk(b": still here\n\n"))


def _chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def _end(frame: Frame) -> Message:
    return _chunk(
        b'retry: %d\nid: %s\nevent: end\ndata: {"syncStatus":"live"}\n\n'
        % (RETRY_WHEN_LIVE_MS, frame.id.encode())
    )


async def _woken(client: Client, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await client.wake.wait()
    except TimeoutError:
        return False
    return True


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
