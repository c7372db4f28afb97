"""What must hold when it is over, and in how far it does not.

Rows: every value of every table as at the store. Bookkeeping: nothing owed, nothing left, nothing twice.
Progress: live, 100 %, the counters those of the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import redis.asyncio
from redis.exceptions import RedisError

from chaos.differences import TABLES, Difference, differences
from chaos.shop import Shop
from chaos.world import World

SETTLES_WITHIN = 15.0  # seconds that an event of everyday work may take from emission to the last inbox
JOB_ENDS_WITHIN = 30.0  # seconds for a catch-up or audit of everyday work
AT_WORK = {"CREATED", "RUNNING", "CANCELING"}
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, httpx.HTTPError, RedisError, TimeoutError)

# What nothing may be left of, as counts.
OWED = {
    "events that some service has not handled": (
        f"select count(*) from control.outbox where settled_at is null "
        f"and created_at < now() - interval '{SETTLES_WITHIN} seconds'"
    ),
    "batches that are not promoted": (
        "select count(*) from control.batches where promoted_at is null "
        f"and staged_at < now() - interval '{SETTLES_WITHIN} seconds'"
    ),
    "jobs that do not end": (
        "select count(*) from control.jobs where state in ('queued', 'running', 'staged') "
        f"and created_at < now() - interval '{JOB_ENDS_WITHIN} seconds'"
    ),
    "failed jobs": "select count(*) from control.jobs where state = 'failed'",
    "dead letters": "select count(*) from control.dead_letters",
    "bulk operations under way": (
        "select count(*) from control.bulk_operations where state in ('planned', 'running', 'ready') "
        f"and created_at < now() - interval '{JOB_ENDS_WITHIN} seconds'"
    ),
}


@dataclass
class Verdict:
    """What was compared, and what was wrong."""

    rows: int = 0
    differences: list[Difference] = field(default_factory=list)
    duplicates: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.differences or self.duplicates or self.faults)

    def count(self, kind: str) -> int:
        """Differing rows of a kind (a row with two wrong values counts once)."""
        return len({tuple(d.text.split()[:2]) for d in self.differences if d.kind == kind})

    @property
    def wrong(self) -> list[str]:
        """All that was found, a line each."""
        twice = [f"{self.duplicates} rows are there twice"] if self.duplicates else []
        return [*self.faults, *twice, *map(str, self.differences)]


async def judge(world: World, shops: Sequence[Shop], *, thoroughly: bool = False) -> Verdict:
    """Look at everything once; unless `thoroughly`, at the rows only when all else is right.

    What cannot be looked at is a fault as well.
    """
    verdict = Verdict()
    try:
        db = await asyncpg.connect(world.database_url, timeout=5, command_timeout=30)
        try:
            verdict.faults = await _bookkeeping_faults(world, shops, db)
            if thoroughly or not verdict.faults:
                for shop in shops:
                    verdict.differences += await differences(db, world.http, shop.control, shop.brand)
                verdict.rows, verdict.duplicates = await _counted(db)
        finally:
            db.terminate()
    except AWAY as error:
        verdict.faults.append(f"not everything can be looked at: {error!r}")
    return verdict


async def _bookkeeping_faults(world: World, shops: Sequence[Shop], db: asyncpg.Connection[Any]) -> list[str]:
    faults = await _owed(db)
    for shop in shops:
        faults += await _progress_faults(db, shop)
        faults += await _bulk_faults(db, shop)
    return faults + await _left_in_streams(world) + await _not_ready(world)


async def _owed(db: asyncpg.Connection[Any]) -> list[str]:
    counts = {what: await db.fetchval(query) for what, query in OWED.items()}
    return [f"{count} {what}" for what, count in counts.items() if count]


async def _counted(db: asyncpg.Connection[Any]) -> tuple[int, int]:
    """Rows that are there, and how many of them there are twice under one brand."""
    rows = duplicates = 0
    for table in TABLES:
        row = await db.fetchrow(
            "select count(*) as rows, count(*) - count(distinct (c.brand_id, t.id)) as twice "
            f"from shopify.{table} t join control.connections c on c.id = t.connection_id "
            "where t.deleted_at is null"
        )
        if row:
            rows, duplicates = rows + row["rows"], duplicates + row["twice"]
    return rows, duplicates


async def _progress_faults(db: asyncpg.Connection[Any], shop: Shop) -> list[str]:
    answer = await shop.world.http.get(
        f"{shop.world.status_url}/api/sync/{shop.brand}/status", headers=shop.world.headers
    )
    if answer.status_code != httpx.codes.OK:
        return [f"{shop.brand}: status answers {answer.status_code}"]
    document = answer.json()
    truth = (await shop.world.http.get(f"{shop.control}/truth")).json()
    kept = await db.fetchval("select sync_status from control.connections where brand_id = $1", shop.brand)
    return [f"{shop.brand}: {fault}" for fault in document_faults(document, truth, str(kept))]


def document_faults(document: dict[str, Any], truth: dict[str, Any], kept_status: str) -> list[str]:
    """Where the progress document and the store disagree: pure."""
    faults = []
    if (document["syncStatus"], kept_status) != ("live", "live"):
        faults.append(f"is shown as {document['syncStatus']} and kept as {kept_status}")
    if document["percent"] != 100:
        faults.append(f"stands at {document['percent']} %")
    if document["lastError"]:
        faults.append(f"shows the error {document['lastError']}")
    if not (document["audit"] and document["audit"]["equal"]):
        faults.append(f"has no equal audit: {document['audit']}")
    faults += [
        f"milestone {m['key']} is {m['state']}" for m in document["milestones"] if m["state"] != "done"
    ]
    for resource in document["resources"]:
        count = truth[resource["name"]]["count"]
        shown = {name: resource[name] for name in ("expected", "downloaded", "staged", "promoted")}
        if set(shown.values()) != {count} or resource["percent"] != 100:
            faults.append(f"{resource['name']}: {count} at the store, {shown}, {resource['percent']} %")
    return faults


async def _bulk_faults(db: asyncpg.Connection[Any], shop: Shop) -> list[str]:
    """Ours that still run, that were started twice, or that nobody knows."""
    theirs = await shop.bulk_queries()
    rows = await db.fetch(
        "select gid from control.bulk_operations where connection_id = $1 and state = 'running'",
        shop.connection_id,
    )
    known = {row["gid"] for row in rows}
    left = [each["id"] for each in theirs if each["status"] in AT_WORK and each["id"] not in known]
    markers = Counter(each["query"].partition("\n")[0] for each in theirs)
    twice = [marker for marker, count in markers.items() if count > 1]
    return [f"{shop.brand}: bulk operation {gid} was left running" for gid in left] + [
        f"{shop.brand}: a bulk operation was started {markers[marker]} times: {marker}" for marker in twice
    ]


async def _left_in_streams(world: World) -> list[str]:
    faults = []
    async with redis.asyncio.Redis.from_url(
        world.redis.url, decode_responses=True, socket_timeout=5
    ) as client:
        async for stream in client.scan_iter("backstock:*", _type="stream"):
            for group in await client.xinfo_groups(stream):
                stuck = await client.xpending_range(
                    stream, group["name"], "-", "+", 10, idle=int(SETTLES_WITHIN * 1000)
                )
                if stuck:
                    faults.append(f"{len(stuck)} entries of {stream} are not acknowledged by {group['name']}")
    return faults


async def _not_ready(world: World) -> list[str]:
    faults = []
    for name, service in world.services.items():
        answer = await world.http.get(service.ready_url)
        if answer.status_code != httpx.codes.OK:
            faults.append(f"{name} is not ready: {answer.text[:200]}")
    return faults
