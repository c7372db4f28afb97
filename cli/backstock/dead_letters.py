"""`backstock dead-letters`: what could not be handled, out of the database, without a person's data.

DATABASE_URL -> letters that match -> a table, JSON, one of them; or each replayed or dropped
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from backstock.checks import check_postgres
from backstock.errors import CommandError
from shared import dead_letters
from shared.db import check_migrated, connect
from shared.errors import PermanentError
from shared.events import EVENTS
from shared.secrets import TokenVault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    import asyncpg

    from shared.db import Connection, Pool

SERVICES = ("ingress", "bulk-runner", "promoter", "status")
TEXTS = ("webhook", "bulk line", "page node", "staged row")  # of Shopify's, set aside
SHOWN = 100  # letters a list has unless told
MOST = 100_000  # letters that one replay or drop takes; more is another call
MASK = "***"

_AGE = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Whatever is not known to be harmless is masked.
_HARMLESS = re.compile(
    r"(id|ids|__typename|kind|topic|topics|resource|source|gid|version|shop|code|currency|status|test|"
    r"amount|price|quantity|round|job_state|.*([_a-z]id|Id|_at|At|[Cc]urrency(_code|Code)?|[Ss]tatus))"
)
_ALWAYS_MASKED = re.compile(r"phone|zip|postal|latitude|longitude|token|secret|password|ip", re.IGNORECASE)
_KEY = re.compile(r'"(\w{1,60})"\s*:')


@dataclass(frozen=True)
class Filter:
    """Which letters are meant; what is empty matches all."""

    ids: list[int] = field(default_factory=list)
    brand: str | None = None
    type: str | None = None
    service: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    closed: bool = False

    @property
    def is_empty(self) -> bool:
        return self == Filter(closed=self.closed)


def moment(text: str | None, option: str, now: datetime) -> datetime | None:
    """`2026-11-22`, `2026-11-22T10:30`, `...+02:00` (else UTC), or an age: `90m`, `2h`, `7d`."""
    if text is None:
        return None
    if age := _AGE.fullmatch(text):
        return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{option}: '{text[:60]}' is no time: give 2026-11-22, 2026-11-22T10:30Z or an age such as 2h"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def checked(wanted: Filter) -> Filter:
    """The filter; CommandError for a type or a service that there cannot be."""
    if wanted.type and wanted.type not in EVENTS and not wanted.type.startswith(TEXTS):
        known = ", ".join([*EVENTS, *TEXTS])
        raise CommandError(f"--type: there is no '{wanted.type[:60]}'; the types are {known}")
    if wanted.service and wanted.service not in SERVICES:
        raise CommandError(
            f"--service: there is no '{wanted.service[:60]}'; the services are {', '.join(SERVICES)}"
        )
    return wanted


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Pool]:
    """The database of DATABASE_URL, or of the `backstock up` that runs here."""
    if not url:
        raise CommandError("DATABASE_URL is missing: set it, or run `backstock up` in this folder first")
    await check_postgres(url)
    pool = await connect(url, service="cli", size=2)
    try:
        await check_migrated(pool)
        yield pool
    finally:
        await pool.close()


async def find(pool: Pool, wanted: Filter, limit: int) -> list[asyncpg.Record]:
    """The letters that match, the oldest first; CommandError if one of the ids is not among them."""
    rows = await dead_letters.find(
        pool,
        wanted.ids or None,
        wanted.brand,
        wanted.type,
        wanted.service,
        wanted.since,
        wanted.until,
        wanted.closed,
        limit,
    )
    if missing := sorted(set(wanted.ids) - {row["id"] for row in rows}):
        which = "letter" if wanted.closed else "open letter"
        raise CommandError(
            f"there is no {which} {missing[0]}: `backstock dead-letters list --all` shows what there is"
        )
    return rows


def summary(row: asyncpg.Record) -> dict[str, Any]:
    """A letter in a list: never what it holds."""
    return {
        "id": row["id"],
        "diedAt": row["died_at"],
        "brand": row["brand_id"],
        "service": row["service"],
        "type": row["event_type"],
        "jobId": row["job_id"],
        "deliveries": row["deliveries"],
        "state": "dropped" if row["dropped_at"] else "replayed" if row["replayed_at"] else "open",
        "error": row["error"],
    }


async def detail(pool: Pool, row: asyncpg.Record, keys: str, *, unmasked: bool) -> dict[str, Any]:
    """A letter with what it holds; values that may be personal are masked unless told otherwise."""
    text, why = _text(await dead_letters.text_of(pool, row["id"]), keys)
    shown = why or (_parsed(text) if unmasked else masked(text))
    return {**summary(row), "eventId": str(row["event_id"]), "context": row["context"], "payload": shown}


def _text(row: asyncpg.Record | None, keys: str) -> tuple[str, str]:
    """What the letter holds, or why that cannot be shown."""
    if row is None or (row["sealed"] is None and not row["payload"]):
        return "", "(erased)"
    if row["sealed"] is None:
        return row["payload"], ""
    if not keys:
        return "", "(encrypted: set BACKSTOCK_SECRET_KEYS to see it)"
    try:
        vault = TokenVault(tuple(key.strip() for key in keys.split(",") if key.strip()))
        return vault.unseal(row["sealed"]).decode("utf-8", "replace"), ""
    except (PermanentError, ValueError) as error:
        return "", f"(encrypted: {error})"


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def masked(text: str) -> Any:
    """The same structure with its keys; of a text that is no JSON only its length and what may be keys."""
    try:
        return _masked(msgspec.json.decode(text), "")
    except msgspec.DecodeError:
        return {"unreadable": f"{len(text)} characters", "keys": sorted(set(_KEY.findall(text)))}


def _masked(value: Any, key: str) -> Any:
    match value:
        case dict():
            return {name: _masked(inner, name) for name, inner in value.items()}
        case list():
            return [_masked(inner, key) for inner in value]
        case None | bool():
            return value
        case int() | float() if not _ALWAYS_MASKED.search(key):
            return value
        case _:
            return value if _HARMLESS.fullmatch(key) and not _ALWAYS_MASKED.search(key) else MASK


async def each(
    pool: Pool, rows: Sequence[asyncpg.Record], work: Callable[[Connection, int], Awaitable[None]]
) -> int:
    """Do the work for each letter in a transaction of its own; CommandError, at the end, if some failed."""
    errors: list[PermanentError] = []
    for row in rows:
        try:
            async with pool.acquire() as tx, tx.transaction():
                await work(tx, row["id"])
        except PermanentError as error:
            errors.append(error)
    if errors:
        raise CommandError(f"{errors[0]} ({len(rows) - len(errors)} of {len(rows)} done)")
    return len(rows)
