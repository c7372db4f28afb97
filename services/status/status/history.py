"""The events that progress is made of: the newest in the outbox, the older ones as what they add up to.

    baseline (of the events that were deleted) + handled events in the outbox = progress, each counted once

The reducer does not care about order, so it does not matter which events are in which of the two.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import reduce as fold

import asyncpg
import msgspec
import structlog
from msgspec.structs import replace
from pydantic import ValidationError

from shared.db import Connection, load_queries
from shared.events import EVENTS, Event
from status.progress import reduce
from status.state import Progress

log = structlog.get_logger()
queries = load_queries("status")

READ_AHEAD = 500  # events in memory while a history is read


@dataclass(frozen=True)
class History:
    """What events add up to, and how many they are."""

    progress: Progress
    events: int


async def lock_baseline(tx: Connection, connection_id: int) -> History:
    """What the deleted events add up to; nobody deletes more while this transaction runs."""
    await tx.execute(queries["begin_baselines"], [connection_id])
    row = await tx.fetchrow(queries["lock_baseline"], connection_id)
    if row is None:
        raise LookupError(f"there is no connection {connection_id}")
    return _baseline(row)


async def read_history(tx: Connection, connection_id: int, since: History) -> History:
    """The baseline and every event that was counted since; the baseline must be locked."""
    progress, events = since.progress, since.events
    async for row in tx.cursor(queries["history"], connection_id, prefetch=READ_AHEAD):
        if event := read_event(row):
            progress, events = reduce(progress, event), events + 1
    return History(progress, events)


async def delete_events(tx: Connection, older_than: float, limit: int) -> int:
    """Delete settled events older than so many seconds, into the baselines; returns how many."""
    rows = await tx.fetch(queries["old_events"], older_than, limit)
    of_status: dict[int, list[Event]] = defaultdict(list)
    for row in rows:
        if row["counted"] and (event := read_event(row)):
            of_status[event.connection_id].append(event)
    await _add_to_baselines(tx, of_status)
    await tx.execute(queries["delete_events"], [row["id"] for row in rows])
    return len(rows)


async def _add_to_baselines(tx: Connection, news: dict[int, list[Event]]) -> None:
    await tx.execute(queries["begin_baselines"], sorted(news))
    for row in await tx.fetch(queries["lock_baselines"], sorted(news)):
        events = news[row["connection_id"]]
        before = _baseline(row)
        after = _without_percent(fold(reduce, events, before.progress))
        await tx.execute(
            queries["write_baseline"],
            row["connection_id"],
            msgspec.json.encode(after).decode(),
            before.events + len(events),
        )


def _baseline(row: asyncpg.Record) -> History:
    return History(msgspec.json.decode(row["state"], type=Progress), row["events"])


def _without_percent(progress: Progress) -> Progress:
    """The highest percent depends on the way: it is the viewers', not the history's."""
    return replace(progress, percent=0.0)


def read_event(row: asyncpg.Record) -> Event | None:
    """The event of an outbox row; None, and a word in the log, if this code cannot read it."""
    try:
        return EVENTS[row["event_type"]].model_validate_json(row["payload"])
    except (KeyError, ValidationError) as error:
        log.warning("history.unreadable", type=row["event_type"], error=type(error).__name__)
        return None
