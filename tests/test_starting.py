"""Services start in any order, and say what they wait for; real processes, signals and servers."""

from __future__ import annotations

import signal

import asyncpg
import httpx
import pytest

from backstock.embedded import EmbeddedRedis
from backstock.ports import free_port
from shared.db import migrate

ENDS_WITHIN = 15


@pytest.fixture
async def bare_database(postgres_server):
    """A database that nobody has migrated yet."""
    name = f"bare_{free_port()}"
    admin = await asyncpg.connect(postgres_server.url())
    await admin.execute(f"create database {name}")
    yield postgres_server.url(name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_services_wait_for_migrations(services, bare_database, until):
    """All four are started before the database is prepared: each says so, and is ready when it is."""
    started = [
        await services.start(name, ready=False, DATABASE_URL=bare_database)
        for name in ("ingress", "bulk-runner", "promoter", "status")
    ]
    for process in started:
        await until(lambda p=process: "service.waits" in p.log, 30)
        assert "run `backstock migrate`" in process.log
    await migrate(bare_database)
    for process in started:
        await process.until_ready()


async def test_what_never_comes_ends_in_one_line(services, until):
    """When the time is up the process ends with code 78, naming the setting; a signal ends it with 0."""
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    impatient = await services.start("promoter", ready=False, REDIS_URL=nowhere, START_WITHIN="1")
    patient = await services.start("promoter", ready=False, REDIS_URL=nowhere)
    await until(lambda: not impatient.alive, ENDS_WITHIN)
    assert impatient.popen.returncode == 78
    assert impatient.log.splitlines()[-1].startswith("promoter: REDIS_URL: Redis does not answer")
    await until(lambda: "service.waits" in patient.log)
    assert await patient.kill(signal.SIGTERM) == 0


async def test_a_wrong_password_is_not_waited_with(services, until):
    """Waiting would not mend it."""
    wrong = services.env["DATABASE_URL"].replace("postgres:", "postgres:not-", 1)
    process = await services.start("promoter", ready=False, DATABASE_URL=wrong)
    await until(lambda: not process.alive, ENDS_WITHIN)
    assert process.popen.returncode == 78
    assert "service.waits" not in process.log


async def test_readiness_tells_what_is_missing_and_heals(services, until, server_folder):
    """Redis comes late, goes, and comes back: the service waits, says 503 with its name, is ready again."""
    redis = EmbeddedRedis(server_folder / "redis", aof=False).start()
    try:
        url = redis.url
        redis.stop()
        process = await services.start("promoter", ready=False, REDIS_URL=url)
        await until(lambda: "service.waits" in process.log)
        redis.start()  # where it was
        await process.until_ready()
        redis.stop()
        async with httpx.AsyncClient(timeout=10) as http:
            await until(lambda: _failing(http, process.url))
        redis.start()
        await process.until_ready()
    finally:
        redis.stop()


async def _failing(http, url: str) -> bool:
    answer = await http.get(f"{url}/readyz")
    return answer.status_code == 503 and "redis" in answer.json()["failing"]
