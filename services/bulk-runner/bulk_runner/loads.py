"""What of the history is to be loaded, by what may be read now and what could be read before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from bulk_runner.planning import queue_job, set_status
from shared.db import Connection
from shared.events import BULK_JOBS, JobKind, Resource
from shared.scopes import ALL_ORDERS, VISIBLE_DAYS, lacking, readable

EDGE = timedelta(days=1)  # how far the orders that opened later reach into those that were visible


@dataclass(frozen=True)
class Load:
    """A bulk job to queue: all of its resource, or only what was created before a moment."""

    kind: JobKind
    before: datetime | None = None


def to_load(scopes: list[str], loaded: list[asyncpg.Record]) -> list[Load]:
    """What may be read and was not read yet."""
    before = {row["kind"]: row for row in loaded}
    resources = readable(scopes)
    loads = [
        Load(kind) for kind, resource in BULK_JOBS.items() if resource in resources and kind not in before
    ]
    orders = before.get("bulk_orders")
    opened = set(orders["lacking"]) & set(scopes) if orders and "orders" in resources else set()
    if orders and opened == {ALL_ORDERS}:
        loads.append(Load("bulk_orders", orders["created_at"] - timedelta(days=VISIBLE_DAYS) + EDGE))
    elif opened:  # orders name their customers and products only to who may read those
        loads.append(Load("bulk_orders"))
    return loads


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
