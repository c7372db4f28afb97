"""Keeps processes running: stores first, then services, each its own process; stops them the other way round.

spawn -> log lines to file (and screen) -> ended? wait with growing backoff -> spawn again, always

A socket that others connect to is held here and handed over to each process in turn: who connects while a
service starts again waits, and is not refused.

A service that ends is started again whatever its exit code: an orderly exit may only mean that its stream
was gone for a moment. Only before everything has been ready once does a configuration error end the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from backstock.children import die_with_parent
from backstock.errors import CommandError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from backstock.server import Server


CONFIGURATION_ERROR = 78  # the services' exit code for a wrong setting: a restart cannot help
RESTARTS_BEFORE_READY = 3  # more of them are no accident
READY_WITHIN = 90.0  # seconds; a cold disk and two busy cores
GRACE = 15.0  # seconds after SIGTERM: a running handler ends its transaction
FIRST_BACKOFF = 0.5  # seconds
LONGEST_BACKOFF = 15.0  # seconds
STEADY_AFTER = 30.0  # seconds of running after which the next failure counts as the first
LOOK_EVERY = 0.25  # seconds between two looks at a process or store
ANSWERS_WITHIN = 5.0  # seconds for one answer about readiness, which takes two at the most
LOG_BYTES = 5_000_000  # per file; one older file is kept
LONGEST_LINE = 1_000_000  # bytes of one log line


@dataclass
class Service:
    """One process to keep alive. `ready_url` answers 200 when it can do its work.

    `listeners`: sockets that its processes inherit, each by the setting that names it.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_url: str
    stops_last: bool = False  # others still talk to it while they end
    listeners: Mapping[str, socket.socket] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    exit_code: int | None = None
    restarts: int = 0
    last_line: str = field(default="", repr=False)


class Supervisor:
    def __init__(
        self,
        services: Sequence[Service],
        stores: Sequence[Server],
        folder: Path,
        show: Callable[[str, str], None],
    ) -> None:
        self.services = services
        self.stores = stores
        self.folder = folder
        self.show = show
        self._stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything is ready inside, and stopped after it, services before stores."""
        tasks = [asyncio.create_task(self._keep(service)) for service in self.services]
        tasks += [asyncio.create_task(self._keep_store(store)) for store in self.stores]
        try:
            await self._until_ready()
            yield
        finally:
            self._stopping.set()
            for last in (False, True):
                await asyncio.gather(
                    *(_stop(service) for service in self.services if service.stops_last is last)
                )
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, service: Service) -> None:
        backoff = FIRST_BACKOFF
        with _log_file(self.folder / "logs" / f"{service.name}.log") as log:
            while not self._stopping.is_set():
                started = time.monotonic()
                await self._run_once(service, log)
                if self._stopping.is_set():
                    return
                backoff = FIRST_BACKOFF if time.monotonic() - started > STEADY_AFTER else backoff
                pause = backoff * random.uniform(0.7, 1.3)  # noqa: S311 - so that a crash of all is not a choir
                backoff = min(backoff * 2, LONGEST_BACKOFF)
                service.restarts += 1
                self.show(service.name, f"ended with code {service.exit_code}; starts again in {pause:.1f} s")
                await self._pause(pause)

    async def _run_once(self, service: Service, log: Callable[[str], None]) -> None:
        service.process = await asyncio.create_subprocess_exec(
            *service.argv,
            env={**service.env, **{name: f"fd://{one.fileno()}" for name, one in service.listeners.items()}},
            pass_fds=[one.fileno() for one in service.listeners.values()],
            cwd=self.folder,  # a .env in the user's folder has been read already, and may not apply (demo)
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LONGEST_LINE,
            start_new_session=True,  # the terminal's Ctrl-C reaches us; the order of stopping is ours
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        assert service.process.stdout  # noqa: S101 - asked for above
        async for line in _lines(service.process.stdout):
            service.last_line = line or service.last_line
            log(line)
            self.show(service.name, line)
        service.exit_code = await service.process.wait()

    async def _keep_store(self, store: Server) -> None:
        """A store that somebody killed comes back on its port; the services wait for it by themselves."""
        while not self._stopping.is_set():
            await self._pause(LOOK_EVERY)
            if self._stopping.is_set() or store.alive():
                continue
            self.show(store.name, "ended; starts again")
            try:
                store.spawn()
                while not store.has_started():
                    await self._pause(LOOK_EVERY)
            except CommandError as error:
                self.show(store.name, str(error))
                await self._pause(LONGEST_BACKOFF)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        waiting = {service.name: "has not answered yet" for service in self.services}
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
            asking = [asyncio.create_task(_ask(client, service, waiting)) for service in self.services]
            try:
                while waiting:
                    done, _ = await asyncio.wait(asking, timeout=LOOK_EVERY)
                    for task in done:
                        task.result()  # raises what it did not expect
                    for service in self.services:
                        if service.name in waiting:
                            _give_up_on_hopeless(service)
                    if waiting and time.monotonic() > deadline:
                        who = "; ".join(f"{name}: {why}" for name, why in waiting.items())
                        raise CommandError(
                            f"not ready within {READY_WITHIN:.0f} s: {who}. Logs: {self.folder / 'logs'}"
                        )
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _give_up_on_hopeless(service: Service) -> None:
    if service.exit_code == CONFIGURATION_ERROR:
        raise CommandError(service.last_line or f"{service.name} refuses its settings")
    if service.restarts > RESTARTS_BEFORE_READY:
        raise CommandError(
            f"{service.name} ended {service.restarts} times before it was ready, "
            f"with code {service.exit_code}: {service.last_line}"
        )


async def _ask(client: httpx.AsyncClient, service: Service, waiting: dict[str, str]) -> None:
    """Until it is ready. A question may be long on its way: a socket that is held here takes it at once."""
    while why := await _why_not_ready(client, service):
        waiting[service.name] = why
        await asyncio.sleep(LOOK_EVERY / 2)
    del waiting[service.name]


async def _why_not_ready(client: httpx.AsyncClient, service: Service) -> str | None:
    try:
        answer = await client.get(service.ready_url)
    except httpx.TransportError as error:
        ended = (
            f"ended with code {service.exit_code}, last line: {service.last_line}" if service.restarts else ""
        )
        return ended or f"does not answer ({type(error).__name__})"
    if answer.is_success:
        return None
    return f"{answer.status_code} {answer.text[:200]}"


async def _stop(service: Service) -> None:
    process = service.process
    if process is None or process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sig)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit: what was read of it is dropped
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip()


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[Callable[[str], None]]:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    try:
        yield lambda line: handler.emit(logging.makeLogRecord({"msg": line}))
    finally:
        handler.close()
