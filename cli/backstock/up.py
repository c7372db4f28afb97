"""`backstock up`: from nothing to four running services on this machine.

keys, .env -> ports taken; settings and own servers right? -> Postgres, Redis (embedded where no URL is set)
-> migrate -> services -> ready
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack, asynccontextmanager, chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from backstock.checks import check_postgres, check_redis
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.errors import CommandError
from backstock.ports import HOST, free_port, port_is_free
from backstock.supervisor import Service, Supervisor
from shared.db import migrate
from shared.listeners import bind_address, listen
from shared.settings import read_settings

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from backstock.home import Home
    from backstock.server import Server
    from shared.settings import Settings

T = TypeVar("T")

SERVICES = ("ingress", "bulk-runner", "promoter", "status")
DATABASE = "backstock"
DEFAULT_BINDS = {"INGRESS": f"{HOST}:8001", "STATUS": f"{HOST}:8002"}


@dataclass
class Plan:
    """What to start, with which environment; `extra` are processes beside the four services."""

    home: Home
    env: dict[str, str]
    show: Callable[[str, str], None]
    only: Sequence[str] = SERVICES
    bulk_runners: int = 1
    extra: list[Service] = field(default_factory=list)


@asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[None]:
    """Everything runs inside. `plan.env` then holds the addresses of what was started."""
    with ExitStack() as stack:
        stack.enter_context(plan.home.locked())
        listeners = _listen(plan, stack)
        await _check_what_is_given(plan)
        stores = await _start_stores(plan, stack)
        settings = _checked_settings(plan, plan.env)
        await migrate(settings.database_url)
        supervisor = Supervisor(
            [*plan.extra, *_services(plan, listeners)], stores, plan.home.folder, plan.show
        )
        async with supervisor.running():
            stack.enter_context(plan.home.announced(_published(settings) | local_urls(plan)))
            yield


def settle_addresses(env: dict[str, str], *, avoid_busy: bool) -> None:
    """Where ingress and status listen, and how they are reached from outside unless a URL says otherwise."""
    for name, default in DEFAULT_BINDS.items():
        bind = env.setdefault(f"{name}_BIND", default)
        if avoid_busy and not port_is_free(bind_address(bind)[1]):
            bind = env[f"{name}_BIND"] = f"{HOST}:{free_port()}"
        env.setdefault(f"{name}_URL", f"http://{bind}")


def local_urls(plan: Plan) -> dict[str, str]:
    """Where the services of this machine answer on it: their public addresses may lead here only later."""
    return {
        f"{name}_LOCAL": f"http://{_reachable(plan.env[f'{name}_BIND'])}"
        for name in DEFAULT_BINDS
        if name.lower() in plan.only
    }


async def until_cancelled() -> None:
    """Returns on the first Ctrl-C or SIGTERM (see `ending_in_order`), so that what follows ends in order."""
    task = asyncio.current_task()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if task:
            task.uncancel()


async def ending_in_order(work: Coroutine[None, None, T]) -> T:
    """Ctrl-C and SIGTERM cancel the work once; more of them do not disturb its end, which is bounded."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def cancel_once() -> None:
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, lambda: None)
        task.cancel()

    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, cancel_once)
    return await task


def command(name: str) -> str:
    """A console command of this installation, whatever PATH says."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise CommandError(f"the command {name} is not installed beside {sys.executable}: run `make setup`")
    return str(path)


def _listen(plan: Plan, stack: ExitStack) -> dict[str, socket.socket]:
    """The sockets of ingress and status by their settings, open until the end of everything."""
    settings = [f"{name}_BIND" for name in DEFAULT_BINDS if name.lower() in plan.only]
    return {name: stack.enter_context(listen(name, plan.env[name])) for name in settings}


async def _start_stores(plan: Plan, stack: ExitStack) -> list[Server]:
    stores: list[Server] = []
    if not plan.env.get("DATABASE_URL"):
        postgres = EmbeddedPostgres(plan.home.folder / "postgres")
        stack.callback(postgres.stop)
        stores.append(postgres.start())
        await _create_database(postgres.url())
        plan.env["DATABASE_URL"] = postgres.url(DATABASE)
    if not (plan.env.get("REDIS_URL") or plan.env.get("REDIS_HOST")):
        redis = EmbeddedRedis(plan.home.folder / "redis")
        stack.callback(redis.stop)
        stores.append(redis.start())
        plan.env["REDIS_URL"] = redis.url
    return stores


async def _create_database(server_url: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        if not await connection.fetchval("select true from pg_database where datname = $1", DATABASE):
            await connection.execute(f"create database {DATABASE}")
    finally:
        await connection.close()


async def _check_what_is_given(plan: Plan) -> None:
    """Settings and servers of the user's own, before anything is made: what is wrong is said at once."""
    own_redis = plan.env.get("REDIS_URL") or plan.env.get("REDIS_HOST")
    later = {"DATABASE_URL": "postgresql://embedded/backstock"}
    later |= {} if own_redis else {"REDIS_URL": "redis://embedded"}
    settings = _checked_settings(plan, later | plan.env)
    if plan.env.get("DATABASE_URL"):
        await check_postgres(settings.database_url)
    if own_redis:
        await check_redis(settings.redis_url)


def _checked_settings(plan: Plan, env: dict[str, str]) -> Settings:
    """The settings as the services will read them: from the environment alone, `.env` is in it already."""
    os.environ.update(env)
    with chdir(plan.home.folder):
        return read_settings()


def _published(settings: Settings) -> dict[str, str]:
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "INGRESS_URL": settings.ingress_url,
        "STATUS_URL": settings.status_url,
        "BACKSTOCK_API_KEY": settings.backstock_api_key.get_secret_value(),
    }


def _services(plan: Plan, listeners: Mapping[str, socket.socket]) -> list[Service]:
    names = [name for name in plan.only if name != "bulk-runner"]
    if "bulk-runner" in plan.only:
        count = plan.bulk_runners
        names += (
            ["bulk-runner"] if count == 1 else [f"bulk-runner-{number}" for number in range(1, count + 1)]
        )
    return [_service(name, plan.env, listeners) for name in names]


def _service(name: str, env: dict[str, str], listeners: Mapping[str, socket.socket]) -> Service:
    """Ingress and status answer where the settings say; the others get a health address of their own."""
    setting = f"{name.upper()}_BIND"
    own = {setting: listeners[setting]} if setting in listeners else {}
    bind = env[setting] if own else f"{HOST}:{free_port()}"
    env = os.environ | env | {"HEALTH_BIND": "" if own else bind}
    program = "bulk-runner" if name.startswith("bulk-runner") else name
    ready_url = f"http://{_reachable(bind)}/readyz"
    return Service(name, [command(program)], env, ready_url, listeners=own)


def _reachable(bind: str) -> str:
    """0.0.0.0 is an address to listen on, not one to ask."""
    host, port = bind_address(bind)
    host = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
