"""Everything that can be wrong before the start, each with one line that says what to do.

`backstock up` asks before it starts anything; `backstock doctor` asks all and prints the answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import redis.asyncio
from redis.exceptions import AuthenticationError, RedisError

from backstock.errors import CommandError
from backstock.programs import OLDEST_POSTGRES, OLDEST_REDIS
from shared.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

ANSWERS_WITHIN = 10.0  # seconds; a managed database far away, waking up


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`."""

    subject: str
    ok: bool
    detail: str


async def check_postgres(url: str) -> str:
    """The version of a Postgres that serves; CommandError for one that does not."""
    where = _without_password(url)
    try:
        connection = await asyncpg.connect(url, timeout=ANSWERS_WITHIN)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        raise CommandError(f"DATABASE_URL: {where} refuses this user or password: correct them") from None
    except asyncpg.InvalidCatalogNameError:
        raise CommandError(f"DATABASE_URL: {where} has no such database: create it") from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CommandError(
            f"DATABASE_URL: no Postgres answers at {where} ({_reason(error)}): start it or correct the URL"
        ) from None
    try:
        version = connection.get_server_version()
    finally:
        await connection.close()
    if version.major < OLDEST_POSTGRES:
        raise CommandError(
            f"DATABASE_URL: {where} is Postgres {version.major}: use {OLDEST_POSTGRES} or newer"
        )
    return f"Postgres {version.major}.{version.minor} at {where}"


async def check_redis(url: str) -> str:
    """The version of a Redis that serves; CommandError for one that does not."""
    where = _without_password(url)
    client = redis.asyncio.Redis.from_url(
        url, socket_connect_timeout=ANSWERS_WITHIN, socket_timeout=ANSWERS_WITHIN
    )
    try:
        info = await client.info("server")
    except AuthenticationError:
        raise CommandError(f"REDIS_URL: {where} refuses this user or password: correct them") from None
    except (OSError, RedisError) as error:
        raise CommandError(
            f"REDIS_URL: no Redis answers at {where} ({_reason(error)}): start it or correct the URL"
        ) from None
    finally:
        await client.aclose()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info["redis_version"])
    if int(version.partition(".")[0]) < OLDEST_REDIS:
        raise CommandError(
            f"REDIS_URL: {where} is Redis {version}, which cannot hand on what a dead reader left: "
            f"use {OLDEST_REDIS}.0 or newer, or unset REDIS_URL"
        )
    return f"{name} {version} at {where}"


async def findings(named: Iterable[tuple[str, Coroutine[None, None, str]]]) -> list[Finding]:
    """Asks all at once; what goes wrong becomes a finding."""
    subjects, checks = zip(*named, strict=True)
    answers = await asyncio.gather(*checks, return_exceptions=True)
    return [_finding(subject, answer) for subject, answer in zip(subjects, answers, strict=True)]


def _finding(subject: str, answer: str | BaseException) -> Finding:
    match answer:
        case str():
            return Finding(subject, ok=True, detail=answer)
        case CommandError() | SettingError():
            return Finding(subject, ok=False, detail=str(answer))
        case _:
            raise answer


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "a socket", parts.port
    except ValueError:
        raise CommandError("that is not a URL: percent-encode special characters in the password") from None
    return f"{host}:{port}" if port else host


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
