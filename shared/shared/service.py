"""The life of a service process: settings, connections, consumer, relay, HTTP, and a clean end.

Services start in any order: what is not there yet is waited for, START_WITHIN seconds.
SIGTERM or SIGINT: stop taking work, let running handlers finish, close everything. Exit code 0; 78 when a
setting is wrong, with one line that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import structlog
import uvicorn
import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.answers import SecurityHeaders
from shared.db import Pool, check_migrated, connect
from shared.errors import SettingError
from shared.events import Service
from shared.health import HealthApp, Readiness
from shared.listeners import address_of, listen_or_adopt
from shared.logs import configure_logs
from shared.outbox import Relay
from shared.settings import Settings, load_settings
from shared.sockets import LOOK_EVERY, ClientConnection, Gate
from shared.starting import Patience, StoppedError
from shared.stream import Route, check_redis, make_broker
from shared.trim import Trimmer

log = structlog.get_logger()

CONFIGURATION_ERROR = 78  # EX_CONFIG of sysexits.h: trying again without a change is of no use
ENDS_WITHIN = 16.0  # seconds from the failure of a task, or the signal; the steps of an end add up to 14
HTTP_GRACE = 3  # seconds that open requests (SSE above all) get at the end


@dataclass(frozen=True)
class Parts:
    """What a service is wired from."""

    settings: Settings
    pool: Pool
    redis: Redis
    route: Route
    readiness: Readiness


Task: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Wiring:
    """What a service adds to the common parts: an ASGI app with its address, and tasks of its own.

    `on_stop` is called when the end begins, while open requests are still served: it ends those that would
    never end by themselves.
    """

    app: Any = None
    bind: str = ""
    tasks: tuple[Task, ...] = ()
    on_stop: Callable[[], None] = lambda: None


Wire: TypeAlias = Callable[[Parts], contextlib.AbstractAsyncContextManager[Wiring]]


def main(service: Service, wire: Wire) -> None:
    """Run a service until a signal ends it."""
    settings = load_settings()
    configure_logs(service, settings.log_level)
    try:
        uvloop.run(_run(service, settings, wire))
    except* StoppedError:
        log.info("service.stopped")
    except* SettingError as errors:
        print(f"{service}: {errors.exceptions[0]}", file=sys.stderr)  # noqa: T201 - for a person, not a log
        raise SystemExit(CONFIGURATION_ERROR) from None


async def _run(service: Service, settings: Settings, wire: Wire) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _connections(service, settings, stop) as parts, wire(parts) as wiring:
        app = wiring.app or SecurityHeaders(HealthApp(parts.readiness))
        server = _Server(app, Gate(request_within=settings.request_within))
        setting = f"{service.upper()}_BIND" if wiring.bind else "HEALTH_BIND"
        bind = wiring.bind or settings.health_bind
        listener = listen_or_adopt(setting, bind) if bind else None
        async with asyncio.TaskGroup() as tasks:
            jobs: tuple[Task, ...] = (
                parts.route.run,
                Relay(parts.pool, parts.redis).run,
                Trimmer(parts.pool, parts.redis).run,
                *wiring.tasks,
            )
            working = [tasks.create_task(job()) for job in jobs]
            for task in working:
                task.add_done_callback(_end_if_failed)
            serving = tasks.create_task(server.serve(sockets=[listener])) if listener else None
            log.info("service.started", bind=address_of(listener) if listener else None)
            await stop.wait()
            log.info("service.stopping")
            _end_soon()
            wiring.on_stop()
            server.should_exit = True
            if serving:
                await serving
            for task in working:
                task.cancel()
    log.info("service.stopped")


def _end_if_failed(task: asyncio.Task[None]) -> None:
    """A service is over when one of its tasks fails; some have done their work at the start."""
    if task.cancelled() or task.exception() is not None:
        _end_soon()


def _end_soon() -> None:
    """Whatever hangs: a supervisor waits for the end, so it is bounded. What is not done is done again."""

    def give_up() -> None:
        log.error("service.hung", seconds=ENDS_WITHIN)
        os._exit(1)

    last = threading.Timer(ENDS_WITHIN, give_up)
    last.daemon = True
    last.start()


@asynccontextmanager
async def _connections(service: Service, settings: Settings, stop: asyncio.Event) -> AsyncIterator[Parts]:
    patience = Patience(settings.start_within, stop)
    pool = await patience.wait_for(lambda: connect(settings.database_url, service=service))
    await patience.wait_for(lambda: check_migrated(pool))
    async with Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=5) as probe:
        await patience.wait_for(lambda: check_redis(probe))
    redis = Redis.from_url(settings.redis_url)
    broker = make_broker(settings.redis_url, pool, service)
    route = Route(broker, pool, service)

    async def consumers() -> bool:
        return route.is_running()

    readiness = Readiness(postgres=lambda: pool.fetchval("select 1"), redis=redis.ping, consumers=consumers)
    try:
        yield Parts(settings, pool, redis, route, readiness)
    finally:
        await redis.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HTTP_GRACE):
                await pool.close()
        pool.terminate()


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, for the process has one idea of its end, and with bounds."""

    def __init__(self, app: Any, gate: Gate) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                http=partial(ClientConnection, gate),  # type: ignore[arg-type] # called like a class
                ws="none",
                timeout_graceful_shutdown=HTTP_GRACE,
            )
        )
        self.gate = gate

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, ClientConnection):
                    connection.look(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.gate.closing = True
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
