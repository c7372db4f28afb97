"""What every test can ask for: real servers, a fresh database, real service processes, a local Shopify.

postgres_server, redis_server   one of each per pytest process (so `-n 3` shares nothing), gone at the end
database_url, redis_url         a migrated database of the test's own; an empty Redis
sandbox_server                  the base URL of one sandbox per pytest process; a test makes its own shop
services, module_services       start service processes as production does: by their console commands
server_folder                   a folder that a test's own servers can use, also as root
until                           waits for a condition, with a bound
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import asyncpg
import httpx
import pytest
import redis
from cryptography.fernet import Fernet

from backstock.children import die_with_parent
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.ports import free_port
from shared.db import migrate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

T = TypeVar("T")

COMMANDS = Path(sys.executable).parent
READY_WITHIN = 30.0  # seconds for a process to answer; two cores may be busy with other tests
ENDS_WITHIN = 15.0  # seconds after SIGTERM; a service that needs longer fails the test
PATIENCE = 20.0  # seconds that `until` waits unless told
POLL = 0.03  # seconds between two looks
LOG_SHOWN = 8_000  # characters of a service's log shown beside a failed test
TEMPLATE = "backstock_template"
SETTINGS_OF_OURS = (
    "DATABASE_",
    "REDIS_",
    "SHOPIFY_",
    "INGRESS_",
    "STATUS_",
    "BACKSTOCK_",
    "HEALTH_",
    "RECENT_",
    "PAGED_",
    "BULK_",
    "START_",
)
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; to read whom to trust takes 25 ms each time
BINDS = {"ingress": "INGRESS_BIND", "status": "STATUS_BIND"}  # every other service: HEALTH_BIND


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """A Postgres of this pytest process, without fsync."""
    with _temporary_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres", durable=False).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """A Redis of this pytest process, without a file."""
    with _temporary_folder() as folder:
        server = EmbeddedRedis(folder / "redis", aof=False).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedPostgres) -> str:
    """The name of a migrated database; copies of it take milliseconds, migrations do not."""
    _sql(postgres_server, f'create database "{TEMPLATE}"')
    _run(migrate(postgres_server.url(TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated database that only this test sees."""
    name = f"test_{next(_numbers)}"
    _sql(postgres_server, f'create database "{name}" template "{template_database}" strategy file_copy')
    yield postgres_server.url(name)
    _sql(postgres_server, f'drop database "{name}" with (force)')


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[str]:
    """The base URL of a sandbox without stores: `POST /_sandbox/stores` makes one; use your own name."""
    with _temporary_folder() as folder:
        bind = f"127.0.0.1:{free_port()}"
        process = Process("sandbox", ["sandbox", "--bind", bind, "--shop", ""], _bare_environment(), folder)
        process.spawn()
        try:
            _run(
                until_true(
                    lambda: _answers(process, f"http://{bind}/healthz", 200), READY_WITHIN, "sandbox answers"
                )
            )
            yield f"http://{bind}"
        finally:
            process.end()


@pytest.fixture
def services(database_url: str, redis_url: str, sandbox_server: str, tmp_path: Path) -> Iterator[Services]:
    """`ingress = await services.start("ingress")`: real processes, ended with the test."""
    started = Services(database_url, redis_url, sandbox_server, tmp_path)
    yield started
    started.end()


@pytest.fixture(scope="module")
def module_services(
    postgres_server: EmbeddedPostgres,
    template_database: str,
    redis_server: EmbeddedRedis,
    sandbox_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Services]:
    """Like `services`, with one database and one start for all tests of a module."""
    name = f"test_{next(_numbers)}"
    _sql(postgres_server, f'create database "{name}" template "{template_database}" strategy file_copy')
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("services")
    started = Services(postgres_server.url(name), redis_server.url, sandbox_server, folder)
    yield started
    started.end()
    _sql(postgres_server, f'drop database "{name}" with (force)')


@pytest.fixture(scope="module")
def server_folder_of_module() -> Iterator[Path]:
    """An empty folder for a server that a module's tests share."""
    with _temporary_folder() as folder:
        yield folder


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder for a server that the test starts itself."""
    with _temporary_folder() as folder:
        yield folder


@pytest.fixture
def until() -> Until:
    """`await until(lambda: shop_is_live(), timeout=10)`: the first true answer, or a failed test."""
    return until_true


class Until(Protocol):
    async def __call__(
        self,
        condition: Callable[[], Awaitable[T] | T],
        timeout: float = PATIENCE,  # noqa: ASYNC109 - the bound is the point
        what: str = "",
    ) -> T: ...


async def until_true(
    condition: Callable[[], Awaitable[T] | T],
    timeout: float = PATIENCE,  # noqa: ASYNC109 - the bound is the point
    what: str = "",
) -> T:
    """Asks until the answer is true. An assertion that fails, or a server not there yet, means "not yet".

    A question that takes long is asked less often: what it waits for needs the cores, too.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while (asked := time.monotonic()) < deadline:
        try:
            answer = condition()
            last = await answer if inspect.isawaitable(answer) else answer
        except (AssertionError, httpx.TransportError, OSError) as error:
            last = error
        else:
            if last:
                return last  # type: ignore[return-value]
        await asyncio.sleep(max(POLL, time.monotonic() - asked))
    raise AssertionError(
        f"not within {timeout:g} s: {what or inspect.getsource(condition).strip()}; last: {last!r}"
    )


@dataclass
class Process:
    """One started command: `kill`, `restart`, `log`."""

    name: str
    argv: list[str]
    env: dict[str, str]
    folder: Path
    url: str = ""
    popen: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        assert self.popen, f"{self.name} is not started"
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def spawn(self) -> None:
        with self.log_file.open("ab") as log:
            self.popen = subprocess.Popen(
                [COMMANDS / self.argv[0], *self.argv[1:]],
                env=self.env,
                cwd=self.folder,  # no .env of a checkout is read here
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one prctl, nothing that locks
            )

    async def until_ready(self) -> None:
        await until_true(
            lambda: _answers(self, f"{self.url}/readyz", 200), READY_WITHIN, f"{self.name} is ready"
        )

    async def kill(self, sig: int = signal.SIGKILL) -> int | None:
        """Sends the signal; waits for the end and returns the exit code, unless the signal only pauses."""
        os.kill(self.pid, sig)
        if sig in (signal.SIGSTOP, signal.SIGCONT, signal.SIGHUP):
            return None
        await until_true(
            lambda: not self.alive, ENDS_WITHIN, f"{self.name} ends after {signal.Signals(sig).name}"
        )
        assert self.popen
        return self.popen.returncode

    async def restart(self, sig: int = signal.SIGKILL) -> None:
        """Ends the process if it still runs, starts it with the same environment, waits until it is ready."""
        if self.alive:
            await self.kill(sig)
        self.spawn()
        await self.until_ready()

    def ask_to_end(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)  # a paused one would not hear the next signal
                os.kill(self.pid, signal.SIGTERM)

    def end(self) -> None:
        """Stops the process as production does; one that does not go in time is killed and reported."""
        if self.popen is None:
            return
        self.ask_to_end()
        try:
            self.popen.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(ENDS_WITHIN)
            raise AssertionError(f"{self.name} did not end within {ENDS_WITHIN:g} s of SIGTERM") from None


class Services:
    """Starts services that share one database, one Redis, one sandbox and one set of keys.

    `env` may be changed before a start; keyword arguments of `start` count for that process only.
    """

    def __init__(self, database_url: str, redis_url: str, sandbox_url: str, folder: Path) -> None:
        self.folder = folder
        self.sandbox_url = sandbox_url
        self.api_key = "test-api-key-0123456789"
        self.ingress_url = f"http://127.0.0.1:{free_port()}"
        self.status_url = f"http://127.0.0.1:{free_port()}"
        self.processes: list[Process] = []
        self.env = _bare_environment() | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SHOPIFY_ORIGIN": f"{sandbox_url}/{{shop}}",
            "SHOPIFY_CLIENT_ID": "sandbox-client-id",
            "SHOPIFY_CLIENT_SECRET": "sandbox-client-secret",
            "INGRESS_URL": self.ingress_url,
            "STATUS_URL": self.status_url,
            "BACKSTOCK_API_KEY": self.api_key,
            "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
            "PAGED_UP_TO": "0",  # tests' stores are small, and mostly there for the bulk route
        }

    @property
    def headers(self) -> dict[str, str]:
        """What a call of the management API needs."""
        return {"Authorization": f"Bearer {self.api_key}"}

    async def start(self, service: str, *, ready: bool = True, **env: str) -> Process:
        """Starts a service (again: one more of it) and, unless told not to, waits until it is ready."""
        bind = self._bind(service)
        name = f"{service}-{len(self.processes) + 1}"
        settings = self.env | {BINDS.get(service, "HEALTH_BIND"): bind} | env
        process = Process(name, [service], settings, self.folder, url=f"http://{bind}")
        self.processes.append(process)
        process.spawn()
        if ready:
            await process.until_ready()
        return process

    async def start_all(self, *names: str) -> dict[str, Process]:
        """Starts services side by side (all but status unless told) and waits until every one is ready."""
        started = {
            name: await self.start(name, ready=False)
            for name in names or ("ingress", "bulk-runner", "promoter")
        }
        await asyncio.gather(*(process.until_ready() for process in started.values()))
        return started

    def end(self) -> None:
        for process in self.processes:
            process.ask_to_end()  # all at once, as in production
        failures = [failure for process in self.processes if (failure := _end(process))]
        for process in self.processes:
            print(f"--- {process.name}\n{process.log[-LOG_SHOWN:]}")  # noqa: T201 - pytest shows it beside a failure
        assert not failures, "; ".join(failures)

    def _bind(self, service: str) -> str:
        url = {"ingress": self.ingress_url, "status": self.status_url}.get(service)
        return url.removeprefix("http://") if url else f"127.0.0.1:{free_port()}"


def _end(process: Process) -> str | None:
    try:
        process.end()
    except AssertionError as failure:
        return str(failure)
    return None


async def _answers(process: Process, url: str, status: int) -> bool:
    """Whether the process answers with that status; one that has ended never will."""
    if not process.alive:
        assert process.popen
        pytest.fail(f"{process.name} ended with code {process.popen.returncode}:\n{process.log[-LOG_SHOWN:]}")
    async with httpx.AsyncClient(timeout=5, verify=NO_TLS) as client:
        answer = await client.get(url)
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:300]}"
    return True


def _bare_environment() -> dict[str, str]:
    """Ours without a developer's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_OF_OURS)}


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Not `tmp_path`: as root, that lies below a folder which the servers' account cannot enter."""
    folder = Path(tempfile.mkdtemp(prefix="backstock-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sql(server: EmbeddedPostgres, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _run(execute())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine beside the test's own event loop, so that sync and async tests share the fixtures."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


_numbers = itertools.count(1)
