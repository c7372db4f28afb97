"""One client's connection, with bounds that uvicorn does not set: for bytes, for time, for their number.

first byte -> head whole (431 beyond LARGEST_HEAD) -> body whole, within REQUEST_WITHIN in all (408)
an answer that nobody reads: cut off after STALLED_FOR
the server ends: what is asked is answered, also what is on its way at this moment, and nothing more is asked
more connections than there is room for: who has waited longest without a whole request makes room

Nothing here waits by itself: the server looks at every connection once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.answers import PROBLEM_JSON, ProblemError, security_headers

LARGEST_HEAD = 32 * 1024  # bytes of request line and headers; browsers and proxies stay below 16 KiB
REQUEST_WITHIN = 10.0  # seconds from a request's first byte to its last; Shopify itself hangs up after five
STALLED_FOR = 30.0  # seconds that an answer waits for a client that does not read on
MOST_CONNECTIONS = 12_000  # of a process, 10,000 SSE clients among them
FILES_OF_OURS = 100  # files that stay free for Postgres, Redis, Shopify and logs
FIRST_REQUEST_WITHIN = 1.0  # seconds for a connection whose server ends before its first byte has come
NEXT_REQUEST_WITHIN = 0.2  # seconds for one that has been answered: its client may be asking again just now
LOOK_EVERY = 10  # ticks of uvicorn, which has ten a second


class Gate:
    """What the connections of one server share: their limit, who has not asked yet, the end."""

    def __init__(self, *, most: int = 0, request_within: float = REQUEST_WITHIN) -> None:
        self.most = most or _room()
        self.request_within = request_within
        self.closing = False  # the server ends
        self.waiting: dict[ClientConnection, None] = {}  # the longest first


class ClientConnection(HttpToolsProtocol):
    """uvicorn's connection with a gate around it."""

    gate: Gate

    def __init__(self, gate: Gate, **options: Any) -> None:  # uvicorn's own, handed on
        super().__init__(**options)
        self.gate = gate
        self._waits_since: float | None = None  # loop's seconds, like the next two
        self._stalled_since: float | None = None
        self._closing_since: float | None = None
        self._head_bytes = 0
        self._in_head = True
        self._refusal = _refusal(400, "the request is not HTTP/1.1 as RFC 9112 has it")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.gate.most:
            next(iter(self.gate.waiting)).transport.abort()
        if self.gate.closing:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waits_since is None:
            self._wait()
        self._head_bytes += len(data) if self._in_head else 0
        super().data_received(data)
        if self._in_head and self._head_bytes > LARGEST_HEAD and not self.transport.is_closing():
            self._refuse(_large_head())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._wait()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEAD:
            self._refusal = _large_head()
            raise ValueError
        super().on_headers_complete()
        if self.gate.closing:
            self.shutdown()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._wait_no_more()

    def shutdown(self) -> None:
        """The server ends. Closing at once would fail a request whose bytes are on their way here."""
        if self._answers():
            super().shutdown()  # closed behind the answer
        else:
            within = FIRST_REQUEST_WITHIN if self.cycle is None else NEXT_REQUEST_WITHIN
            self.loop.call_later(within, self._close_unless_it_answers)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """The parser has given up; nothing more is read from this client."""
        self._refuse(self._refusal)

    def look(self, now: float) -> None:
        """Cut off who keeps us waiting for too long."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        if _is_over(self._closing_since, now, STALLED_FOR) or _is_over(self._stalled_since, now, STALLED_FOR):
            self.transport.abort()
        elif not self.flow.read_paused and _is_over(self._waits_since, now, self.gate.request_within):
            self._refuse(_slow(self.gate.request_within))

    def _refuse(self, problem: bytes) -> None:
        """Answer, if no answer is under way, and hang up."""
        self._wait_no_more()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(problem)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the app hears that its client has gone, and answers nothing
            self.cycle.message_event.set()
        self.transport.close()

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close_unless_it_answers(self) -> None:
        if not self._answers():
            self.transport.close()

    def _wait(self) -> None:
        self._waits_since = self.loop.time()
        self.gate.waiting.pop(self, None)
        self.gate.waiting[self] = None

    def _wait_no_more(self) -> None:
        self._waits_since = None
        self.gate.waiting.pop(self, None)


def _is_over(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since > seconds


def _large_head() -> bytes:
    return _refusal(431, f"request line and headers may have {LARGEST_HEAD} bytes at the most")


def _slow(seconds: float) -> bytes:
    return _refusal(408, f"a request has to be whole within {seconds:g} s of its first byte: send it again")


def _refusal(status: int, detail: str) -> bytes:
    phrase = HTTPStatus(status).phrase
    body = ProblemError(status, phrase, detail).body()
    headers = [
        (b"content-type", PROBLEM_JSON.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *security_headers(),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase.encode(), lines, body)


def _room() -> int:
    """How many connections there may be: as many as files may be open, less our own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # the usual soft limit of 1024 is too low for SSE
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, soft - FILES_OF_OURS))
