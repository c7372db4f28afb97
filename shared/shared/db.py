"""Postgres: the pool, named queries, transactions that happen once, migrations.

Named queries live in `.sql` files: `-- name: one line of why`, then the statement, with `$1`, `$2`, ...
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, TypeAlias

import asyncpg
import structlog

from shared.errors import MigrationError, NotThereError, SettingError
from shared.events import Event
from shared.roles import taking_role

log = structlog.get_logger()

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

POOL_SIZE = (
    10  # connections a process; four services with spare replicas stay below Postgres's default of 100
)
COMMAND_TIMEOUT = 60.0  # seconds a statement may take; promotion and clean-up are cut to stay far below
STANDS_STILL = "15s"  # Postgres ends a transaction in which nothing comes for so long: its process is paused
MIGRATION_LOCK = 0x5348_4F50  # one advisory lock for everybody who migrates this database
MIGRATION_WAIT = 60.0  # seconds to wait for somebody else's migration
OLDEST_POSTGRES = 150000  # MERGE, and what the migrations were tested with

_NOT_THERE = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ConnectionDoesNotExistError,
)
_HEADING = re.compile(r"^-- (?P<name>[a-z0-9_]+): .*$", re.MULTILINE)
_MIGRATION = re.compile(r"^\d{4}_[a-z0-9_]+\.sql$")


def load_queries(package: str) -> Mapping[str, str]:
    """Split a package's `queries.sql` at its `-- name: why` headings into name -> statement."""
    text = files(package).joinpath("queries.sql").read_text("utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [h.start() for h in headings[1:]] + [len(text)]
    return {h["name"]: text[h.end() : end].strip() for h, end in zip(headings, ends, strict=True)}


async def connect(dsn: str, *, service: str, size: int = POOL_SIZE) -> Pool:
    """Open the pool; NotThereError if Postgres is away, SettingError if it is too old or refuses us."""
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            command_timeout=COMMAND_TIMEOUT,
            init=_preparing(service),
            reset=_make_as_new,
            server_settings={"application_name": f"backstock-{service}"},
        )
        version = await pool.fetchval("select current_setting('server_version_num')::int")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        kind = NotThereError if isinstance(error, _NOT_THERE) else SettingError
        raise kind(
            f"DATABASE_URL: Postgres does not answer ({type(error).__name__}: {error}): "
            "check that the server runs and that host, port, user, password and database are right"
        ) from error
    if version < OLDEST_POSTGRES:
        raise SettingError(f"DATABASE_URL: Postgres {version // 10000} is too old: use 15 or newer")
    return pool


def _preparing(service: str) -> Callable[[asyncpg.Connection[asyncpg.Record]], Coroutine[Any, Any, None]]:
    take_role = taking_role(service)

    async def prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await _use_json(connection)
        await take_role(connection)
        await connection.execute(_end_when_it_stands_still())

    return prepare


async def _make_as_new(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute(f"{connection.get_reset_query()}\n{_end_when_it_stands_still()}")


def _end_when_it_stands_still() -> str:
    """Not as a parameter of the connection: poolers refuse those. `reset all` forgets it."""
    return f"set idle_in_transaction_session_timeout = '{STANDS_STILL}';"


async def _use_json(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog", format="text"
    )


@asynccontextmanager
async def once(pool: Pool, event: Event, service: str) -> AsyncIterator[Connection | None]:
    """One handler, one transaction: yields it, with the event in the inbox; None if it was there before."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection if await settle(connection, event, service) else None


async def settle(tx: Connection, event: Event, service: str) -> bool:
    """Put the event in the service's inbox; False if it was handled before."""
    handled = await tx.fetchval(
        "insert into control.inbox (event_id, service) "
        "values ($1::uuid, $2::text) on conflict do nothing returning true",
        event.event_id,
        service,
    )
    return bool(handled)


async def was_settled(pool: Pool, event: Event, service: str) -> bool:
    """Whether the service has handled the event; long work asks before it starts."""
    found: bool = await pool.fetchval(
        "select exists (select from control.inbox where event_id = $1 and service = $2)",
        event.event_id,
        service,
    )
    return found


async def migrate(dsn: str) -> list[str]:
    """Apply the migrations that are missing, each in a transaction; returns their names.

    Any number of processes may call this at once. MigrationError if a file changed after it was applied,
    or if the database is ahead of this code.
    """
    migrations = {
        f.name: f.read_text("utf-8")
        for f in files("shared").joinpath("migrations").iterdir()
        if _MIGRATION.match(f.name)
    }
    connection = await asyncpg.connect(dsn)
    try:
        await _lock_migrations(connection)
        applied = await _applied_migrations(connection)
        if unknown := sorted(set(applied) - set(migrations)):
            raise MigrationError(f"the database is ahead of this code ({unknown[-1]}): upgrade Backstock")
        return [
            name
            for name, sql in sorted(migrations.items())
            if await _apply(connection, name, sql, applied.get(name))
        ]
    finally:
        await connection.close()


async def _lock_migrations(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    # Asking again and again, not waiting inside Postgres: a waiting statement holds a snapshot, and
    # CREATE INDEX CONCURRENTLY in somebody else's migration would wait for that for ever.
    async with asyncio.timeout(MIGRATION_WAIT):
        while not await connection.fetchval("select pg_try_advisory_lock($1)", MIGRATION_LOCK):  # noqa: ASYNC110 - it is in Postgres, not in this process
            await asyncio.sleep(0.1)


async def _applied_migrations(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    await connection.execute("create schema if not exists control")
    await connection.execute(
        "create table if not exists control.schema_migrations "
        "(name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
    )
    rows = await connection.fetch("select name, sha256 from control.schema_migrations")
    return {row["name"]: row["sha256"] for row in rows}


async def _apply(
    connection: asyncpg.Connection[asyncpg.Record], name: str, sql: str, applied: str | None
) -> bool:
    digest = hashlib.sha256(sql.encode()).hexdigest()
    if applied == digest:
        return False
    if applied is not None:
        raise MigrationError(f"{name} was changed after it was applied: put the change in a new migration")
    async with connection.transaction():
        await connection.execute("set local lock_timeout = '5s'")
        await connection.execute(sql)
        await connection.execute(
            "insert into control.schema_migrations (name, sha256) values ($1, $2)", name, digest
        )
    log.info("migration.applied", migration=name)
    return True


async def check_migrated(pool: Pool) -> None:
    """NotThereError, with the remedy, if the database lacks a migration of this code."""
    wanted = sorted(
        f.name for f in files("shared").joinpath("migrations").iterdir() if _MIGRATION.match(f.name)
    )
    there = await pool.fetchval("select to_regclass('control.schema_migrations') is not null")
    done = await pool.fetch("select name from control.schema_migrations") if there else []
    if missing := sorted(set(wanted) - {row["name"] for row in done}):
        raise NotThereError(
            f"DATABASE_URL: the database lacks migration {missing[0]}: run `backstock migrate`"
        )


def affected(status: str) -> int:
    """How many rows a statement touched, out of asyncpg's status (`UPDATE 1` -> 1)."""
    return int(status.rpartition(" ")[2])
