"""What a run needs, really there: Postgres, Redis, a sandbox, proxies between, supervised services.

    services --proxy--> Postgres, Redis, Shopify          Shopify --proxy--> ingress

Whatever ends is started again by the same supervisor that `backstock up` uses, on the socket it had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
from cryptography.fernet import Fernet

from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.ports import HOST, free_port
from backstock.supervisor import Service, Supervisor
from backstock.up import command
from chaos.proxy import Proxy
from chaos.schedule import SERVICES, WIRES
from shared.db import migrate
from shared.listeners import listen

DATABASE = "chaos"
API_KEY = "chaos-api-key-0123456789"
OF_THE_MACHINE = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONDEVMODE")  # nothing else of ours is inherited
HARNESS_WAITS = 15.0  # seconds for an answer of the sandbox or a service
# A server closes what was idle for 5 s. A request that meets that moment fails, and would end the run.
KEPT = httpx.Limits(keepalive_expiry=1)
OFTEN = {  # a live store is looked after every few seconds instead of every hour
    "CATCH_UP_EVERY": "8",
    "AUDIT_EVERY": "8",
    "WEBHOOK_CHECK_EVERY": "8",
    "BULK_STUCK_AFTER": "4",
}


class World:
    """What runs, and how to reach it without the proxies."""

    def __init__(self, folder: Path, settings: Mapping[str, str], *, redis_keeps_a_file: bool) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self.redis = EmbeddedRedis(folder / "redis", aof=redis_keeps_a_file)
        self.ports = {name: free_port() for name in ("sandbox", "ingress", "status")}
        self.listeners = {
            name: listen(f"{name.upper()}_BIND", f"{HOST}:{self.ports[name]}")
            for name in ("ingress", "status")
        }
        self.proxies = {
            "postgres": Proxy(lambda: self.postgres.port),
            "redis": Proxy(lambda: self.redis.port),
            "shopify": Proxy(lambda: self.ports["sandbox"]),
            "webhooks": Proxy(lambda: self.ports["ingress"]),
        }
        self.settings = dict(settings)
        self.services: dict[str, Service] = {}
        self.supervisor: Supervisor | None = None
        self.http = httpx.AsyncClient(timeout=HARNESS_WAITS, limits=KEPT)

    @property
    def database_url(self) -> str:
        return self.postgres.url(DATABASE)

    @property
    def sandbox_url(self) -> str:
        return f"http://{HOST}:{self.ports['sandbox']}"

    @property
    def ingress_url(self) -> str:
        return f"http://{HOST}:{self.ports['ingress']}"

    @property
    def status_url(self) -> str:
        return f"http://{HOST}:{self.ports['status']}"

    @property
    def headers(self) -> dict[str, str]:
        """What a call of the management API needs."""
        return {"Authorization": f"Bearer {API_KEY}"}

    def log_of(self, name: str) -> str:
        """What a service wrote so far."""
        file = self.folder / "logs" / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to a service; False if it is not running at this moment."""
        process = self.services[name].process
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        return True

    def wake_all(self) -> None:
        """Whoever was stopped goes on."""
        for name in self.services:
            self.signal(name, signal.SIGCONT)

    def calm(self) -> None:
        """No proxy misbehaves any more."""
        for proxy in self.proxies.values():
            proxy.calm()

    @property
    def restarts(self) -> int:
        """How often the supervisor had to start a service again."""
        return sum(service.restarts for service in self.services.values())

    def environment(self) -> dict[str, str]:
        """The settings of every service, with the proxies' addresses."""
        ports = {name: proxy.port for name, proxy in self.proxies.items()}
        machine = {name: os.environ[name] for name in OF_THE_MACHINE if name in os.environ}
        return (
            machine
            | {
                "DATABASE_URL": _through(self.database_url, self.postgres.port, ports["postgres"]),
                "REDIS_URL": _through(self.redis.url, self.redis.port, ports["redis"]),
                "SHOPIFY_ORIGIN": f"http://{HOST}:{ports['shopify']}/{{shop}}",
                "SHOPIFY_CLIENT_ID": "sandbox-client-id",
                "SHOPIFY_CLIENT_SECRET": "sandbox-client-secret",
                "INGRESS_URL": f"http://{HOST}:{ports['webhooks']}",
                "INGRESS_BIND": f"{HOST}:{self.ports['ingress']}",
                "STATUS_URL": self.status_url,
                "STATUS_BIND": f"{HOST}:{self.ports['status']}",
                "BACKSTOCK_API_KEY": API_KEY,
                "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
            }
            | OFTEN
            | self.settings
        )

    def prepare(self) -> None:
        """What is to be supervised; the sandbox ends last, for the others still talk to it."""
        env = self.environment()
        bind = f"{HOST}:{self.ports['sandbox']}"
        sandbox = Service(
            "sandbox",
            [command("sandbox"), "--bind", bind, "--shop", ""],
            env,
            f"http://{bind}/healthz",
            stops_last=True,
        )
        self.services = {name: self._service(name, env) for name in SERVICES}
        self.supervisor = Supervisor(
            [sandbox, *self.services.values()],
            [self.postgres, self.redis],
            self.folder,
            self._say,
        )

    def _service(self, name: str, env: dict[str, str]) -> Service:
        program = name.rstrip("-12")
        port = self.ports.get(name) or free_port()
        held = self.listeners.get(name)
        own = {"HEALTH_BIND": "" if held else f"{HOST}:{port}"}
        return Service(
            name,
            [command(program)],
            env | own,
            f"http://{HOST}:{port}/readyz",
            listeners={f"{name.upper()}_BIND": held} if held else {},
        )

    def _say(self, name: str, line: str) -> None:
        if line.startswith("ended"):
            with (self.folder / "logs" / "supervisor.log").open("a") as log:
                log.write(f"{name} {line}\n")


@asynccontextmanager
async def running(
    folder: Path, settings: Mapping[str, str], *, redis_keeps_a_file: bool = False
) -> AsyncIterator[World]:
    """Everything is ready inside and gone after it."""
    world = World(folder, settings, redis_keeps_a_file=redis_keeps_a_file)
    (folder / "logs").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(world.http.aclose)
        for listener in world.listeners.values():
            stack.enter_context(listener)
        for server in (world.postgres, world.redis):
            stack.callback(server.stop)
            server.start()
        await _create_database(world)
        for wire in WIRES:
            stack.push_async_callback(world.proxies[wire].stop)
            await world.proxies[wire].start()
        world.prepare()
        assert world.supervisor  # noqa: S101 - made the line before
        async with world.supervisor.running():
            stack.callback(world.calm)
            try:
                yield world
            finally:
                world.wake_all()  # a stopped process would not hear the signal that ends it


@contextlib.contextmanager
def temporary_folder() -> Generator[Path, None, None]:
    """Where the servers' account can go, also as root."""
    folder = Path(tempfile.mkdtemp(prefix="backstock-chaos-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _create_database(world: World) -> None:
    connection = await asyncpg.connect(world.postgres.url())
    try:
        await connection.execute(f"create database {DATABASE}")
    finally:
        await connection.close()
    await migrate(world.database_url)


def _through(url: str, port: int, proxy: int) -> str:
    return url.replace(f":{port}/", f":{proxy}/")
