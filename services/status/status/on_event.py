"""any event that names status -> a new version of the connection's progress, and word to whoever shows it.

The row is locked, so versions of a connection count up one by one; `epoch` changes when they begin anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import msgspec
import structlog
from msgspec.structs import replace

from shared.db import Connection, load_queries
from shared.events import Event
from status.document import draw
from status.progress import reduce
from status.state import Progress

log = structlog.get_logger()
queries = load_queries("status")


async def on_event(event: Event, tx: Connection, *, wanted_scopes: Sequence[str]) -> None:
    """Take the event into account; a connection that no longer exists has no progress."""
    connection = await tx.fetchrow(queries["connection"], event.connection_id)
    row = await _locked_row(tx, event) if connection else None
    if connection is None or row is None:
        log.info("progress.no_connection", connection=event.connection_id)
        return
    before, epoch = _read(row)
    after = replace(
        reduce(before, event),
        shop=connection["shop"],
        missing_scopes=missing_scopes(wanted_scopes, connection["scopes"]),
    )
    if before.removed_at != after.removed_at:  # the store's sync begins anew, and so do its versions
        epoch = new_epoch()
    version = row["version"] + 1
    document = draw(after, brand_id=event.brand_id, version=version, now=datetime.now(UTC))
    await tx.execute(
        queries["write_progress"],
        event.connection_id,
        epoch,
        version,
        msgspec.json.encode(after).decode(),
        msgspec.json.encode(document).decode(),
    )
    await tx.execute(queries["announce"], str(event.connection_id))


async def _locked_row(tx: Connection, event: Event) -> asyncpg.Record | None:
    row = await tx.fetchrow(queries["lock_progress"], event.connection_id)
    if row is None:
        await tx.execute(queries["begin_progress"], event.connection_id, event.brand_id, new_epoch())
        row = await tx.fetchrow(queries["lock_progress"], event.connection_id)
    return row


def _read(row: asyncpg.Record) -> tuple[Progress, str]:
    try:
        return msgspec.json.decode(row["state"], type=Progress), row["epoch"]
    except msgspec.ValidationError as error:
        # Written by another version of this code: progress is a view, so it begins anew.
        log.warning("progress.unreadable", error=str(error))
        return Progress(), new_epoch()


def new_epoch() -> str:
    """A name for a run of versions; what a client knows of another run counts for nothing."""
    return secrets.token_hex(4)


def missing_scopes(wanted: Sequence[str], granted: Sequence[str]) -> tuple[str, ...]:
    """The scopes that were asked for and not given; write access includes read access."""
    if not granted:  # not known yet
        return ()
    implied = {scope.replace("write_", "read_", 1) for scope in granted}
    return tuple(scope for scope in wanted if scope not in implied and scope not in granted)
