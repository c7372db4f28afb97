"""Stories with one kind of fault each, for what the design promises line by line.

flushall   Redis is emptied in the middle of a load, under 50 webhooks a second: all rows are equal at the end
zombie     a runner that works is stopped past its lease and woken: it writes nothing more
rolling    every service is ended and started again, one after the other, under webhooks: all are answered
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import redis.asyncio

from chaos.report import Result
from chaos.run import heal
from chaos.schedule import SERVICES, StorePlan
from chaos.shop import Shop
from chaos.world import World, running

Say = Callable[[str], None]

BEGINS_WITHIN = 30.0  # seconds for a load to be under way
READY_WITHIN = 30.0  # seconds for a service to be back
PAST_THE_LEASE = 13.5  # seconds; a lease of a job lasts 12
LOOK_EVERY = 0.05  # seconds
CHANGES = 25.0  # a second: each causes about two webhooks
HOLDS_A_LEASE = (
    "select exists (select from control.leases l "
    "join control.bulk_operations o on l.key = 'operation:' || o.id "
    "where l.expires_at > now() and o.state = 'ready' and o.bytes_done between 1 and o.file_size - 1)"
)
HELD_BY = "select key, epoch from control.leases where expires_at > now() and owner like '%:' || $1"
TAKEN_OVER = (
    "select bool_or(l.epoch > held.epoch) "
    "from unnest($1::text[], $2::bigint[]) as held (key, epoch) join control.leases l using (key)"
)
SLOW = 1_500_000  # bytes a second: a download of some megabytes takes long enough to be stopped in it
STORE = StorePlan(
    orders=2000,
    currency="EUR",
    seed=5,
    changes_per_second=CHANGES,
    objects_per_second=1200,
    clock_skew=0,
    connects_at=0,
)


@dataclass(frozen=True)
class Stage:
    """A store that is being loaded, and the database to look at."""

    world: World
    shop: Shop
    db: asyncpg.Connection[Any]
    say: Say
    began: float  # by the monotonic clock

    async def until(self, query: str, *values: object, within: float = BEGINS_WITHIN) -> None:
        """Wait until the query is true."""
        async with asyncio.timeout(within):
            while not await self.db.fetchval(query, *values):  # noqa: ASYNC110 - it is in Postgres
                await asyncio.sleep(LOOK_EVERY)

    async def restart(self, name: str) -> None:
        """End a service as a deployment does; its supervisor starts it again, and it is ready."""
        restarts = self.world.services[name].restarts
        self.world.signal(name, signal.SIGTERM)
        async with asyncio.timeout(READY_WITHIN):
            while self.world.services[name].restarts == restarts or not await self._is_ready(name):  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(LOOK_EVERY)

    async def _is_ready(self, name: str) -> bool:
        try:
            answer = await self.world.http.get(self.world.services[name].ready_url)
        except httpx.TransportError:
            return False
        return answer.is_success


async def flushall(folder: Path, say: Say, orders: int = STORE.orders) -> Result:
    """Issue: everything in Redis is gone in the middle of a load, and no row is missing."""
    async with _stage(folder, say, replace(STORE, orders=orders)) as stage:
        busy = asyncio.create_task(stage.shop.trade(8))
        await stage.until("select coalesce(max(bytes_done), 0) > 0 from control.bulk_operations")
        async with redis.asyncio.Redis.from_url(stage.world.redis.url) as client:
            await client.flushall()
        say("Redis is empty")
        await busy
        return await _judged(stage, "flushall")


async def zombie(folder: Path, say: Say, orders: int = 6000) -> Result:
    """Issue: a runner is stopped in a download past its lease; another takes over; then it wakes."""
    async with _stage(folder, say, replace(STORE, orders=orders, objects_per_second=0)) as stage:
        wire = stage.world.proxies["shopify"].mood
        wire.bytes_per_second, wire.slow_until = SLOW, time.monotonic() + 120
        await stage.until(HOLDS_A_LEASE)
        name, held = await _holder(stage)
        stage.world.signal(name, signal.SIGSTOP)
        say(f"{name} is stopped, holding {', '.join(held)}")
        await asyncio.sleep(PAST_THE_LEASE)
        await stage.until(TAKEN_OVER, list(held), list(held.values()))
        stage.world.signal(name, signal.SIGCONT)
        stage.world.calm()
        say(f"{name} is awake; others have taken over")
        return await _judged(stage, "zombie", _zombie_faults(stage, name))


async def rolling(folder: Path, say: Say, orders: int = 400) -> Result:
    """Every process is restarted in turn, as a deployment does, while webhooks come."""
    async with _stage(folder, say, replace(STORE, orders=orders)) as stage:
        busy = asyncio.create_task(stage.shop.trade(10))
        for name in SERVICES:
            await stage.restart(name)
            say(f"{name} was restarted")
        await busy
        return await _judged(stage, "rolling", _unanswered(stage))


async def _holder(stage: Stage) -> tuple[str, dict[str, int]]:
    """A runner that holds leases at this moment: its name, and the epochs of its leases."""
    for name in ("bulk-runner-1", "bulk-runner-2"):
        process = stage.world.services[name].process
        rows = await stage.db.fetch(HELD_BY, str(process.pid if process else 0))
        if held := {row["key"]: row["epoch"] for row in rows if row["key"].startswith("operation:")}:
            return name, held
    raise LookupError("no runner holds a download any more: repeat with more orders")


def _zombie_faults(stage: Stage, name: str) -> Callable[[], Awaitable[list[str]]]:
    """It must have noticed; and of every file exactly what is in it was counted."""

    async def look() -> list[str]:
        wrong = await stage.db.fetchval(
            "select count(*) from control.bulk_operations where state = 'staged' and gid is not null "
            "and (lines_done, bytes_done, roots_done) "
            "is distinct from (object_count, coalesce(file_size, 0), root_object_count)"
        )
        faults = [f"{wrong} downloads counted other lines than Shopify"] if wrong else []
        if "LeaseLostError" not in stage.world.log_of(name):
            faults.append(f"{name} did not notice that its lease was lost")
        return faults

    return look


def _unanswered(stage: Stage) -> Callable[[], Awaitable[list[str]]]:
    """No webhook may have met a closed door."""

    async def look() -> list[str]:
        failed = (await stage.shop.counters()).get("webhooks_failed", 0)
        return [f"{failed} deliveries were not answered 2xx within Shopify's five seconds"] if failed else []

    return look


async def _no_faults() -> list[str]:
    return []


@asynccontextmanager
async def _stage(folder: Path, say: Say, plan: StorePlan) -> AsyncIterator[Stage]:
    began = time.monotonic()
    async with running(folder, {"PAGED_UP_TO": "0"}) as world:
        shop = Shop(world, plan, 1)
        await shop.open()
        await shop.connect()
        db = await asyncpg.connect(world.database_url)
        try:
            yield Stage(world, shop, db, say, began)
        finally:
            db.terminate()


async def _judged(stage: Stage, name: str, more: Callable[[], Awaitable[list[str]]] = _no_faults) -> Result:
    calm_at = time.monotonic()
    verdict = await heal(stage.world, [stage.shop], calm_at, stage.say)
    seconds = time.monotonic() - calm_at
    counters = await stage.shop.counters()
    return Result(
        seed=0,
        stores=[f"{stage.shop.plan.orders} {stage.shop.plan.currency}"],
        skews=[0],
        injected=[name],
        schedule=[],
        rows=verdict.rows,
        lost=verdict.count("lost"),
        duplicated=verdict.duplicates,
        stale=verdict.count("stale"),
        resurrected=verdict.count("resurrected"),
        wrong=[*verdict.wrong, *await more()],
        webhooks=counters.get("webhooks_emitted", 0),
        webhooks_failed=counters.get("webhooks_failed", 0),
        restarts=stage.world.restarts,
        frames=0,
        healed_after=seconds,
        took=time.monotonic() - stage.began,
    )


SCENARIOS: dict[str, Callable[[Path, Say], Coroutine[Any, Any, Result]]] = {
    "flushall": flushall,
    "zombie": zombie,
    "rolling": rolling,
}
