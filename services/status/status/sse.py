"""GET /api/sync/{brandId}/events: the brand's document, again whenever it changes, until it is live.

    retry, the newest frame at once, then: a new frame -> send it | 15 s of nothing -> heartbeat
    live -> the frame, `event: end`, close
    10 minutes, or the end of the process -> close; the client comes back with Last-Event-ID and goes on

Plain ASGI: a frame is one message that all clients of the brand share.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import structlog
from litestar.types import Message, Receive, Scope, Send

from status.hub import Client, Frame, Hub

log = structlog.get_logger()

HEARTBEAT = 15.0  # seconds; proxies close what is silent for longer (often 30 to 60)
LIFETIME = 600.0  # seconds; then a client comes back, so that load spreads and tokens are checked again
STALLED = 30.0  # seconds beyond its lifetime that a client may leave a message unread
RETRY_MS = 2_000  # milliseconds until a client comes back after a break
RETRY_WHEN_CLOSING_MS = 500, 5_000
SHORTEST, LONGEST = 0.9, 1.1  # times its lifetime: clients that came together do not leave together
RETRY_WHEN_LIVE_MS = 60_000  # milliseconds, for clients that do not close at `end`

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx: pass on at once
]


class EventStream:
    """One client's stream, from its request to its end: an ASGI app that is called once."""

    def __init__(
        self,
        hub: Hub,
        brand_id: str,
        seen_id: str,
        *,
        heartbeat: float = HEARTBEAT,
        lifetime: float = LIFETIME,
    ) -> None:
        self.hub, self.brand_id, self.seen_id = hub, brand_id, seen_id
        self.heartbeat, self.lifetime = heartbeat, lifetime

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Join the brand's readers, stream, leave."""
        client = await self.hub.join(self.brand_id)
        watch = asyncio.create_task(_until_gone(receive))
        watch.add_done_callback(client.leave)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            # A cancelled task is uvicorn's way to end: the answer is completed all the same.
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.timeout(self.lifetime * LONGEST + STALLED):
                    await self._follow(client, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("sse.stalled", brand=self.brand_id)  # nobody reads: the server drops the connection
        finally:
            self.hub.leave(client)
            watch.cancel()

    async def _follow(self, client: Client, send: Send) -> None:
        await send(_chunk(b"retry: %d\n\n" % RETRY_MS))
        over = time.monotonic() + self.lifetime * random.uniform(SHORTEST, LONGEST)  # noqa: S311 - not all at once
        seen: Frame | None = None
        while not client.gone and not self.hub.closing and (now := time.monotonic()) < over:
            frame = client.channel.frame
            if frame is not seen:
                if seen or frame.id != self.seen_id:
                    await send(frame.message)
                seen = frame
                if frame.last:
                    await send(_end(frame))
                    return
            elif now >= client.due_at:
                await send(STILL_HERE)
            else:
                await client.wait()
                continue
            client.due_at = min(now + self.heartbeat, over)
        if self.hub.closing:  # all clients of a process at once: they come back one by one
            await send(_chunk(b"retry: %d\n\n" % random.randint(*RETRY_WHEN_CLOSING_MS)))  # noqa: S311


def _chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


STILL_HERE = _chunk(b": still here\n\n")


def _end(frame: Frame) -> Message:
    return _chunk(
        b'retry: %d\nid: %s\nevent: end\ndata: {"syncStatus":"live"}\n\n'
        % (RETRY_WHEN_LIVE_MS, frame.id.encode())
    )


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
