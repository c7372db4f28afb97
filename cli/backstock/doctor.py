"""`backstock doctor`: every setting and everything Backstock needs, each as one check."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
from cryptography.fernet import Fernet

from backstock.checks import check_postgres, check_redis
from backstock.errors import CommandError
from backstock.programs import account_for_servers, find_postgres, find_redis
from backstock.up import DEFAULT_BINDS
from shared.listeners import listen
from shared.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

ANSWERS_WITHIN = 5.0  # seconds
STAND_INS = {
    "DATABASE_URL": "postgresql://embedded/backstock",
    "REDIS_URL": "redis://embedded",
    "BACKSTOCK_API_KEY": "made-by-backstock-up",
    "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
}


def checks() -> Iterator[tuple[str, Coroutine[None, None, str]]]:
    yield "settings", _settings()
    yield "Postgres", _postgres()
    yield "Redis", _redis()
    for service, default in DEFAULT_BINDS.items():
        bind = os.environ.get(f"{service}_BIND") or default
        url = os.environ.get(f"{service}_LOCAL") or os.environ.get(f"{service}_URL") or f"http://{bind}"
        yield service.lower(), _service(service, url, bind)


async def _settings() -> str:
    """All of them at once; what `backstock up` would bring along is not missing."""
    missing = [name for name in STAND_INS if not _is_set(name)]
    for name in missing:
        os.environ[name] = STAND_INS[name]
    try:
        settings: Settings = read_settings()
    finally:
        for name in missing:
            del os.environ[name]
    return f"complete; Admin API {settings.shopify_api_version}, shops at {settings.shopify_origin}"


async def _postgres() -> str:
    if _is_set("DATABASE_URL"):
        return await check_postgres(os.environ["DATABASE_URL"])
    programs = find_postgres(account_for_servers())
    return f"no DATABASE_URL; `backstock up` brings Postgres {programs.major} along"


async def _redis() -> str:
    if not _is_set("REDIS_URL"):
        return f"no REDIS_URL; `backstock up` brings {find_redis(account_for_servers()).name} along"
    return await check_redis(os.environ.get("REDIS_URL") or read_settings().redis_url)


async def _service(service: str, url: str, bind: str) -> str:
    """Ready, or not started and its address free; anything else is in the way."""
    try:
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
            answer = await client.get(f"{url}/readyz")
    except httpx.TransportError:
        listen(f"{service}_BIND", bind).close()
        return f"not running at {url}; `backstock up` starts it"
    if answer.is_success:
        return f"ready at {url}"
    raise CommandError(f"{service}_URL: {url} answers {answer.status_code} {answer.text[:200]}")


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or (name == "REDIS_URL" and os.environ.get("REDIS_HOST")))
