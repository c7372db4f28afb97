"""Postgres's word of a change -> one encoded frame per brand -> every client of this process.

One connection listens, one query reads all brands that changed and are watched, each frame is encoded once.
Clients have no queues: each looks at the newest frame when it is ready for one, so a slow one skips frames
and keeps nobody waiting. Where notifications do not arrive (a pooler between), the refresh finds the change.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import msgspec
import structlog
from litestar.types import Message
from prometheus_client import Counter, Gauge

from shared.answers import ProblemError
from shared.db import Pool
from shared.outages import end_if_cancelled
from status.snapshot import Snapshot, read_snapshot, read_snapshots

log = structlog.get_logger()

CHANNEL = "backstock_progress"
LISTENER = "backstock-status-listener"  # the connection's name in pg_stat_activity
FRAME_GAP = 0.1  # seconds: at most ten frames a second for a brand
REFRESH = 5.0  # seconds: while a sync runs, times to go are told anew at least this often
LOOK_EVERY = 0.5  # seconds between looks at what is due
DUE_AFTER = REFRESH - 2 * LOOK_EVERY  # seconds: the look, the gap and the query must fit in, too
LISTENER_CHECK = 5.0  # seconds between questions whether the listening connection still lives
BACKOFF_CAP = 5.0  # seconds between tries while Postgres is away
MAX_CLIENTS = 10_000  # of this process; about 10 KB each
MAX_BRAND_CLIENTS = 5_000  # of one brand, so that one page's visitors do not lock out all others
RETRY_AFTER = "10"  # seconds that a client that was turned away should wait
AWAY = (
    OSError,
    RuntimeError,  # a transport that is closed
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)

clients_open = Gauge("backstock_sse_clients", "Clients that follow a brand's progress now.")
frames_encoded = Counter("backstock_sse_frames", "Frames encoded; each goes to every client of its brand.")


@dataclass(frozen=True)
class Frame:
    """One version of a brand's document, ready to be sent."""

    id: str
    last: bool
    message: Message  # the ASGI message itself, shared by all clients


class Client:
    """One reader: woken when there is something new, when it is due, or when it has gone.

    A bare future and a time that the hub looks at: an Event and a time-out for each wait would cost more
    than the sending.
    """

    __slots__ = ("_waiter", "channel", "due_at", "gone")

    def __init__(self, channel: Channel) -> None:
        self.channel, self.gone = channel, False
        self.due_at = math.inf  # monotonic seconds
        self._waiter: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until woken. Look at the frame before, without a pause between, and nothing is missed."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        """Let it look again."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self, *_: object) -> None:
        """Note that nobody reads any more."""
        self.gone = True
        self.wake()


@dataclass(eq=False)
class Channel:
    """A brand that somebody watches."""

    snapshot: Snapshot
    frame: Frame
    shown_at: float
    clients: set[Client] = field(default_factory=set)

    def show(self, snapshot: Snapshot) -> None:
        """Make this the newest frame if it says something new."""
        if snapshot.id == self.snapshot.id and not self.is_due():
            return
        self.shown_at = time.monotonic()
        if snapshot.id == self.snapshot.id and not snapshot.is_running:
            return
        self.snapshot, self.frame = snapshot, encode(snapshot)
        for client in self.clients:
            client.wake()

    def is_due(self) -> bool:
        """Whether the frame is so old that it should be looked at again."""
        return time.monotonic() - self.shown_at >= DUE_AFTER


def encode(snapshot: Snapshot) -> Frame:
    """The SSE frame of a snapshot, as of now."""
    frames_encoded.inc()
    document = msgspec.json.encode(snapshot.document(datetime.now(UTC)))
    body = b"id: %s\ndata: %s\n\n" % (snapshot.id.encode(), document)
    message: Message = {"type": "http.response.body", "body": body, "more_body": True}
    return Frame(snapshot.id, snapshot.is_live, message)


class Hub:
    """The brands that are watched in this process, and who watches them."""

    def __init__(self, pool: Pool, dsn: str) -> None:
        self.pool, self.dsn = pool, dsn
        self.channels: dict[str, Channel] = {}
        self.clients = 0
        self.listening = False
        self.closing = False
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._opening: dict[str, asyncio.Task[Snapshot | None]] = {}

    async def run(self) -> None:
        """Listen, publish and refresh until cancelled, through any failure of Postgres."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._publish())
            tasks.create_task(self._refresh())

    async def join(self, brand_id: str) -> Client:
        """A reader of the brand's frames; ProblemError if there is no such brand, or no room."""
        if self.clients >= MAX_CLIENTS:
            raise _no_room()
        channel = self.channels.get(brand_id) or await self._open(brand_id)
        if len(channel.clients) >= MAX_BRAND_CLIENTS:
            raise _no_room()
        client = Client(channel)
        channel.clients.add(client)
        self._count(+1)
        return client

    def leave(self, client: Client) -> None:
        """The reader is no more."""
        client.channel.clients.discard(client)
        self._count(-1)
        brand_id = client.channel.snapshot.brand_id
        if not client.channel.clients and self.channels.get(brand_id) is client.channel:
            del self.channels[brand_id]

    def close(self) -> None:
        """Let every client finish: the process ends."""
        self.closing = True
        for channel in self.channels.values():
            for client in channel.clients:
                client.wake()

    def _count(self, change: int) -> None:
        self.clients += change
        clients_open.set(self.clients)

    async def _open(self, brand_id: str) -> Channel:
        opening = self._opening.get(brand_id)
        if opening is None:  # many clients may come at once, for instance after a restart: one query for all
            opening = asyncio.create_task(read_snapshot(self.pool, brand_id))
            self._opening[brand_id] = opening
            opening.add_done_callback(lambda _: self._opening.pop(brand_id, None))
        snapshot = await asyncio.shield(opening)
        if snapshot is None:
            raise unknown_brand(brand_id)
        channel = self.channels.setdefault(
            brand_id, Channel(snapshot, encode(snapshot), shown_at=time.monotonic())
        )
        self._mark([brand_id])  # it may have changed since it was read
        return channel

    def _mark(self, brand_ids: Iterable[str]) -> None:
        self._changed.update(brand_ids)
        self._news.set()

    async def _publish(self) -> None:
        delay = FRAME_GAP
        while True:
            end_if_cancelled()
            await self._news.wait()
            self._news.clear()
            changed, self._changed = self._changed, set()
            try:
                await self._show(changed & self.channels.keys())
                delay = FRAME_GAP
            except AWAY as error:
                end_if_cancelled()
                log.warning("hub.retry", step="publish", error=repr(error), seconds=delay)
                self._mark(changed)
                delay = min(delay * 2, BACKOFF_CAP)
            await asyncio.sleep(delay)

    async def _show(self, brand_ids: set[str]) -> None:
        if not brand_ids:
            return
        for snapshot in await read_snapshots(self.pool, sorted(brand_ids)):
            if channel := self.channels.get(snapshot.brand_id):
                channel.show(snapshot)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = time.monotonic()
            for channel in self.channels.values():
                for client in channel.clients:
                    if client.due_at <= now:
                        client.wake()
            if due := [brand_id for brand_id, channel in self.channels.items() if channel.is_due()]:
                self._mark(due)

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            end_if_cancelled()
            try:
                await self._hear()
                delay = 0.1
            except AWAY as error:
                end_if_cancelled()
                log.warning("hub.retry", step="listen", error=repr(error), seconds=round(delay, 2))
            self.listening = False
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_CAP)

    async def _hear(self) -> None:
        """Listen on a connection of its own until it breaks; what was said meanwhile is read again."""
        connection = await asyncpg.connect(
            self.dsn,
            timeout=LISTENER_CHECK,
            command_timeout=LISTENER_CHECK,
            server_settings={"application_name": LISTENER},
        )
        try:
            await connection.add_listener(CHANNEL, self._on_word)
            self.listening = True
            self._mark(self.channels)
            broken = asyncio.Event()
            connection.add_termination_listener(_setter(broken))
            while not broken.is_set():
                end_if_cancelled()
                try:
                    async with asyncio.timeout(LISTENER_CHECK):
                        await broken.wait()
                except TimeoutError:
                    await connection.execute("select 1")  # a dead connection must be noticed
        finally:
            connection.terminate()

    def _on_word(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._mark(
            brand_id
            for brand_id, channel in self.channels.items()
            if str(channel.snapshot.connection_id) == payload
        )


def _setter(event: asyncio.Event) -> Callable[[object], None]:
    return lambda _: event.set()


def unknown_brand(brand_id: str) -> ProblemError:
    """404, for those who may know."""
    return ProblemError(
        404,
        "Unknown brand",
        f"no store is connected for brand {brand_id!r}: connect one, or check the spelling",
    )


def _no_room() -> ProblemError:
    return ProblemError(
        503,
        "Too many clients",
        "this process follows as many clients as it may: try again later, or read /status instead",
        headers={"Retry-After": RETRY_AFTER},
    )
