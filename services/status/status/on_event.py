"""any event that names status -> a new version of the connection's progress, and word to whoever shows it.

Events that come while a commit runs share the next one: their inbox rows, one version of progress for each
connection, one word to those who watch it. Rows are locked in the order of their connections, so versions
count up one by one; `epoch` changes when they begin anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce as fold

import msgspec
import structlog
from msgspec.structs import replace

from shared.db import Connection, Pool, load_queries
from shared.events import ConnectionRemoved, Event
from shared.outages import OUTAGES, OutageError
from status.document import draw
from status.history import lock_baseline, read_history
from status.measure import percent
from status.progress import reduce
from status.state import Progress

log = structlog.get_logger()
queries = load_queries("status")

LARGEST_BATCH = 100  # events a transaction; a backlog is written in steps that readers can follow


class ProgressWriter:
    """Writes down together what comes together."""

    def __init__(self, pool: Pool, wanted_scopes: Sequence[str]) -> None:
        self.pool, self.wanted_scopes = pool, wanted_scopes
        self._waiting: list[tuple[Event, asyncio.Future[None]]] = []
        self._writing = asyncio.Lock()

    async def take(self, event: Event) -> None:
        """Return when the event is counted and committed; raises what kept it from that."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, done))
        async with self._writing:  # whoever comes first writes for all who wait
            while not done.done():
                batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
                await self._write(batch)
        done.result()

    async def _write(self, batch: Sequence[tuple[Event, asyncio.Future[None]]]) -> None:
        error: Exception | None = OutageError("whoever wrote for all was stopped")
        try:
            await write_events(self.pool, [event for event, _ in batch], self.wanted_scopes)
            error = None
        except Exception as found:  # noqa: BLE001 - handed to whoever waits
            error = found
        finally:
            if len(batch) == 1 or error is None or isinstance(error, (*OUTAGES, OutageError)):
                for _, done in batch:
                    _settle(done, error)
        if not batch[0][1].done():  # one of them is at fault: the others must not go to the dead letters
            for one in batch:
                await self._write([one])


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
        return
    done.set_exception(error)
    done.exception()  # seen, also where nobody waits any more


@dataclass(frozen=True)
class _Row:
    """A row of control.progress, locked."""

    connection_id: int
    brand_id: str
    epoch: str
    version: int
    state: str
    shown_percent: float
    shop: str
    scopes: list[str]


@dataclass(frozen=True)
class Written:
    """A connection's progress as it is to be written."""

    connection_id: int
    epoch: str
    version: int
    progress: Progress
    document: str


async def write_events(pool: Pool, events: Sequence[Event], wanted_scopes: Sequence[str]) -> None:
    """Count those that were not counted before, all or none, and say which connections changed."""
    async with pool.acquire() as tx, tx.transaction():
        ids = [event.event_id for event in events]
        fresh = {row["event_id"] for row in await tx.fetch(queries["settle_events"], ids)}
        news: dict[int, dict[object, Event]] = defaultdict(dict)
        for event in events:
            if event.event_id in fresh:
                news[event.connection_id][event.event_id] = event
        rows = await lock_progress(tx, sorted(news))
        if gone := news.keys() - {row.connection_id for row in rows}:
            log.info("progress.no_connection", connections=sorted(gone))
        if rows:
            changed = [
                await _changed(tx, row, list(news[row.connection_id].values()), wanted_scopes) for row in rows
            ]
            await write_progress(tx, changed)


async def lock_progress(tx: Connection, connection_ids: Sequence[int]) -> list[_Row]:
    """The connections' rows, one handler at a time; a connection that no longer exists has none."""
    rows = await tx.fetch(queries["lock_progress"], connection_ids)
    if len(rows) < len(connection_ids):
        await tx.execute(queries["begin_progress"], connection_ids, new_epoch())
        rows = await tx.fetch(queries["lock_progress"], connection_ids)
    return [_Row(**row) for row in rows]


async def _changed(
    tx: Connection, row: _Row, events: Sequence[Event], wanted_scopes: Sequence[str]
) -> Written:
    before, epoch = _read(row), row.epoch
    if before is None:  # written by another version of this code; what is new is in the history already
        history = await read_history(tx, row.connection_id, await lock_baseline(tx, row.connection_id))
        ends = any(isinstance(event, ConnectionRemoved) for event in events)
        after, epoch = with_percent(history.progress, 0.0 if ends else row.shown_percent), new_epoch()
    else:
        after = fold(reduce, events, before)
        if before.removed_at != after.removed_at:  # the sync begins anew, and so do its versions
            epoch = new_epoch()
    return drawn(row, epoch, row.version + len(events), after, wanted_scopes)


def drawn(row: _Row, epoch: str, version: int, progress: Progress, wanted_scopes: Sequence[str]) -> Written:
    """The progress with what its connection says, and the document of it."""
    progress = replace(progress, shop=row.shop, missing_scopes=missing_scopes(wanted_scopes, row.scopes))
    document = draw(progress, brand_id=row.brand_id, version=version, now=datetime.now(UTC))
    return Written(row.connection_id, epoch, version, progress, msgspec.json.encode(document).decode())


async def write_progress(tx: Connection, changed: Sequence[Written]) -> None:
    """Write the rows, and say so to whoever shows them."""
    ids = [one.connection_id for one in changed]
    await tx.execute(
        queries["write_progress"],
        ids,
        [one.epoch for one in changed],
        [one.version for one in changed],
        [msgspec.json.encode(one.progress).decode() for one in changed],
        [one.document for one in changed],
    )
    await tx.execute(queries["announce"], ids)


def _read(row: _Row) -> Progress | None:
    try:
        return msgspec.json.decode(row.state, type=Progress)
    except msgspec.ValidationError as error:
        log.warning("progress.unreadable", connection=row.connection_id, error=str(error))
        return None


def with_percent(progress: Progress, shown: float) -> Progress:
    """Percent as the state alone says it, or what was shown, if that was higher."""
    return replace(progress, percent=max(shown, percent(progress)))


def new_epoch() -> str:
    """A name for a run of versions; what a client knows of another run counts for nothing."""
    return secrets.token_hex(4)


def missing_scopes(wanted: Sequence[str], granted: Sequence[str]) -> tuple[str, ...]:
    """The scopes that were asked for and not given; write access includes read access."""
    if not granted:  # not known yet
        return ()
    implied = {scope.replace("write_", "read_", 1) for scope in granted}
    return tuple(scope for scope in wanted if scope not in implied and scope not in granted)
