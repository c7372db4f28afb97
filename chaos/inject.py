"""A fault -> doing it. Each lasts as long as it says and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio
from redis.exceptions import RedisError

from chaos.schedule import Fault
from chaos.shop import Shop
from chaos.world import World

POOL_LEFT_FREE = 0  # connections of Postgres that a full pool leaves to others
HOARD = 250  # connections tried for, more than Postgres allows
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, RedisError)

Injector = Callable[[World, Sequence[Shop], Fault], Awaitable[None]]


async def inject(world: World, shops: Sequence[Shop], fault: Fault) -> None:
    """Do it now, and undo it when its time is over. What is down already cannot be broken once more."""
    with contextlib.suppress(*AWAY):
        await INJECTORS.get(fault.kind, _shopify)(world, shops, fault)


async def _kill(world: World, _: Sequence[Shop], fault: Fault) -> None:
    world.signal(fault.target, signal.SIGKILL)


async def _terminate(world: World, _: Sequence[Shop], fault: Fault) -> None:
    world.signal(fault.target, signal.SIGTERM)


async def _pause(world: World, _: Sequence[Shop], fault: Fault) -> None:
    world.signal(fault.target, signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    world.signal(fault.target, signal.SIGCONT)


async def _redis_kill(world: World, _: Sequence[Shop], __: Fault) -> None:
    if world.redis.process:
        world.redis.process.kill()


async def _redis_flush(world: World, _: Sequence[Shop], __: Fault) -> None:
    async with redis.asyncio.Redis.from_url(world.redis.url, socket_timeout=5) as client:
        await client.flushall()


async def _redis_empty_disk(world: World, _: Sequence[Shop], __: Fault) -> None:
    if world.redis.process:
        world.redis.process.kill()
        world.redis.process.wait(5)  # before the supervisor sees it: nothing else runs in this loop
        shutil.rmtree(world.redis.home / "data", ignore_errors=True)


async def _postgres_kill(world: World, _: Sequence[Shop], __: Fault) -> None:
    """The postmaster and every backend, as when a machine dies."""
    if world.postgres.process:
        backends = _children(world.postgres.process.pid)
        world.postgres.process.kill()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _postgres_crash(world: World, _: Sequence[Shop], __: Fault) -> None:
    """One backend dies hard: Postgres drops everybody and recovers by itself."""
    connection = await asyncpg.connect(world.database_url, timeout=5)
    with contextlib.suppress(ProcessLookupError):
        os.kill(connection.get_server_pid(), signal.SIGKILL)
    connection.terminate()


async def _postgres_drop_connections(world: World, _: Sequence[Shop], __: Fault) -> None:
    connection = await asyncpg.connect(world.database_url, timeout=5)
    try:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where pid <> pg_backend_pid() and application_name like 'backstock%'"
        )
    finally:
        connection.terminate()


async def _postgres_full(world: World, _: Sequence[Shop], fault: Fault) -> None:
    """Take every connection there is, and whatever becomes free, for a while."""
    hoard: list[asyncpg.Connection[Any]] = []
    over = time.monotonic() + fault.seconds
    try:
        while time.monotonic() < over:
            with contextlib.suppress(*AWAY):
                while len(hoard) < HOARD and time.monotonic() < over:
                    hoard.append(await asyncpg.connect(world.database_url, timeout=2))
            await asyncio.sleep(0.05)
    finally:
        for connection in hoard:
            connection.terminate()


async def _postgres_lock(world: World, _: Sequence[Shop], fault: Fault) -> None:
    """Somebody's maintenance: nobody reads or writes the table for a while."""
    connection = await asyncpg.connect(world.database_url, timeout=5)
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {fault.target} in access exclusive mode", timeout=20)
            await asyncio.sleep(fault.seconds)
    finally:
        connection.terminate()


async def _wire_cut(world: World, _: Sequence[Shop], fault: Fault) -> None:
    world.proxies[fault.target].cut()


async def _wire_stall(world: World, _: Sequence[Shop], fault: Fault) -> None:
    world.proxies[fault.target].mood.stalls_until = time.monotonic() + fault.seconds


async def _wire_delay(world: World, _: Sequence[Shop], fault: Fault) -> None:
    mood = world.proxies[fault.target].mood
    mood.delay = float(fault.how["milliseconds"]) / 1000
    mood.delays_until = time.monotonic() + fault.seconds


async def _wire_refuse(world: World, _: Sequence[Shop], fault: Fault) -> None:
    proxy = world.proxies[fault.target]
    proxy.mood.refuses_until = time.monotonic() + fault.seconds
    proxy.cut()


async def _wire_slow(world: World, _: Sequence[Shop], fault: Fault) -> None:
    mood = world.proxies[fault.target].mood
    mood.bytes_per_second = float(fault.how["bytes_per_second"])
    mood.slow_until = time.monotonic() + fault.seconds


async def _shopify(_: World, shops: Sequence[Shop], fault: Fault) -> None:
    """One of the sandbox's faults, at every store."""
    names = {"per_request": "seconds", "pause": "seconds"}
    setting = {names.get(name, name): value for name, value in fault.how.items()}
    await asyncio.gather(*(shop.break_(fault.kind, setting) for shop in shops))
    await asyncio.sleep(fault.seconds)
    await asyncio.gather(*(shop.break_(fault.kind, None) for shop in shops))


INJECTORS: dict[str, Injector] = {
    "kill": _kill,
    "terminate": _terminate,
    "pause": _pause,
    "pause_past_lease": _pause,
    "redis_kill": _redis_kill,
    "redis_flush": _redis_flush,
    "redis_empty_disk": _redis_empty_disk,
    "postgres_kill": _postgres_kill,
    "postgres_crash": _postgres_crash,
    "postgres_drop_connections": _postgres_drop_connections,
    "postgres_full": _postgres_full,
    "postgres_lock": _postgres_lock,
    "wire_cut": _wire_cut,
    "wire_stall": _wire_stall,
    "wire_delay": _wire_delay,
    "wire_refuse": _wire_refuse,
    "wire_slow": _wire_slow,
}


def _children(pid: int) -> list[int]:
    """Of Linux; elsewhere the backends find out by themselves that the postmaster is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
