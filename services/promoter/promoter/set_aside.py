"""A batch of which Postgres refuses a row: all else of it is promoted, what was refused is set aside.

An object (an order, a customer, a product) goes with everything of it that is in the batch: half an order
would be a wrong one. A replay has it read anew from Shopify (bulk_runner/on_letter_replayed.py).
"""

from __future__ import annotations

from collections import Counter

import asyncpg
import msgspec
import structlog

from shared.db import Connection, load_queries
from shared.dead_letters import Aside, letter_key, set_all_aside
from shared.events import BULK_JOBS
from shared.secrets import TokenVault
from shared.staging import sift

log = structlog.get_logger()
queries = load_queries("promoter")

MOST_REFUSED = 100  # objects of a batch; where more are refused it is not the rows that are wrong


async def promote_by_object(
    tx: Connection, connection_id: int, batch: asyncpg.Record, vault: TokenVault
) -> dict[str, int]:
    """Promote all objects of the batch that Postgres takes; returns how many rows of each table are no more.

    PermanentError when it refuses more than MOST_REFUSED.
    """
    objects = await tx.fetch(queries["objects"], batch["id"])

    async def put(some: list[asyncpg.Record]) -> None:
        resources, ids = [o["resource"] for o in some], [o["id"] for o in some]
        await tx.execute(queries["promote_objects"], batch["id"], resources, ids)

    refused = await sift(tx, [(o, [o]) for o in objects], put, most=MOST_REFUSED)
    asides = [await _take(tx, connection_id, batch, o, error) for o, error in refused.items()]
    if asides:
        # Of these jobs the next run reads everything anew.
        job_id = batch["job_id"] if batch["kind"] in BULK_JOBS else None
        await set_all_aside(tx, asides, "promoter", connection_id, vault, job_id)
    return dict(sum((_rows(aside) for aside in asides), Counter[str]()))


async def _take(
    tx: Connection, connection_id: int, batch: asyncpg.Record, refused: asyncpg.Record, error: Exception
) -> Aside:
    resource, id_ = refused["resource"], refused["id"]
    kind = f"staged row {resource}"
    text = await tx.fetchval(queries["take_object"], batch["id"], resource, id_)
    log.warning("batch.object_set_aside", batch=batch["id"], resource=resource, error=type(error).__name__)
    return Aside(
        key=letter_key(connection_id, kind, id_),
        kind=kind,
        text=text.encode(),
        error=error,
        context={"resource": resource, "root": id_, "source": batch["source"], "batch": batch["id"]},
    )


def _rows(aside: Aside) -> Counter[str]:
    return Counter({table: len(rows) for table, rows in msgspec.json.decode(aside.text).items()})
