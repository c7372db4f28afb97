"""What of the history is to be loaded, by what may be read now and what could be read before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from bulk_runner.planning import queue_job, set_status
from shared.db import Connection
from shared.events import BULK_JOBS, JobKind, Resource
from shared.scopes import ALL_ORDERS, SCOPE_OF, VISIBLE_DAYS, lacking, readable

EDGE = timedelta(days=1)  # how far the orders that opened later reach into those that were visible


@dataclass(frozen=True)
class Load:
    """A bulk job to queue: all of its resource, or only what was created before a moment."""

    kind: JobKind
    before: datetime | None = None


def to_load(scopes: list[str], loaded: list[asyncpg.Record]) -> list[Load]:
    """What may be read and was not read yet."""
    opened = {row["kind"]: set(row["lacking"]) & set(scopes) for row in loaded}
    allowed = {kind: resource for kind, resource in BULK_JOBS.items() if resource in readable(scopes)}
    loads = [_load(kind, resource, opened.get(kind)) for kind, resource in allowed.items()]
    return [load for load in loads if load]


def _load(kind: JobKind, resource: Resource, opened: set[str] | None) -> Load | None:
    """All of it if it was never loaded; else by the scopes `opened` that its last load lacked."""
    if opened is None or SCOPE_OF[resource] in opened:
        return Load(kind)
    if kind != "bulk_orders" or not opened:
        return None
    if opened == {ALL_ORDERS}:
        return Load(kind, datetime.now(UTC) - timedelta(days=VISIBLE_DAYS) + EDGE)
    return Load(kind)  # orders name their customers and products only to who may read those


async def queue_loads(
    tx: Connection,
    connection_id: int,
    brand_id: str,
    loads: Sequence[Load],
    scopes: Sequence[str],
    expected: Mapping[Resource, int] | None = None,
) -> None:
    """Queue the bulk jobs, each with what Shopify says is to be expected of it. -> JobQueued"""
    if loads:
        await set_status(tx, connection_id, "backfilling")
    for load in loads:
        resource = BULK_JOBS[load.kind]
        await queue_job(
            tx,
            connection_id,
            brand_id,
            load.kind,
            before=load.before,
            lacking=lacking(scopes),
            expected={resource: expected[resource]} if expected else None,
        )
