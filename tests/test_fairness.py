"""One store never starves another: not one that does not answer, not one whose promotion stands still."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from stores import make_store

LIVE_WITHIN = 60  # seconds; a store that does not answer would be waited for three minutes, six times
BROKEN = 6  # stores: more than there are transactions, and than there once were workers
HELD = 5  # stores, each with more batches than there are transactions
PROMOTION = 1398292816  # the first key of the promoter's advisory locks


@asynccontextmanager
async def nobody_promotes(services, connections):
    """Hold the stores' locks, as a promoter does that takes very long."""
    db = await asyncpg.connect(services.env["DATABASE_URL"])
    try:
        async with db.transaction():
            await db.executemany(
                "select pg_advisory_xact_lock($1::int, $2::int)", [(PROMOTION, id_) for id_ in connections]
            )
            yield
    finally:
        await db.close()


async def test_a_small_store_goes_live_beside_broken_ones_and_held_ones(services, until):
    """Six stores answer 503 and five cannot be promoted: another is live in seconds; then the five."""
    started = {"ingress": await services.start("ingress")}
    async with AsyncExitStack() as stack:

        async def connected(number):
            stores = [
                await stack.enter_async_context(make_store(services, orders=15, seed=n))
                for n in range(number)
            ]
            return stores, await asyncio.gather(*(store.connect() for store in stores))

        broken, _ = await connected(BROKEN)
        for store in broken:
            answer = await store.http.patch(
                f"{store.control}/faults", json={"http": {"status": 503, "retry_after": 60}}
            )
            assert answer.status_code == 200, answer.text
        held, connections = await connected(HELD)
        async with nobody_promotes(services, connections):
            started |= await services.start_all("bulk-runner", "promoter")
            await until(
                lambda: held[0].db.fetchval(
                    "select bool_and(n >= 4) and count(*) = $1 from (select count(*) as n "
                    "from control.batches where connection_id = any($2::int[]) and promoted_at is null "
                    "group by connection_id) b",
                    HELD,
                    connections,
                )
            )
            [small], _ = await connected(1)
            await until(small.is_live, LIVE_WITHIN)
            assert not any([await store.is_live() for store in held])
        for store in held:
            await until(store.is_live, LIVE_WITHIN)
        assert await small.differences() == []
        assert await held[0].differences() == []
        for name in (
            "ingress",
            "bulk-runner",
        ):  # they would wait a while for what waits for the broken stores
            await started[name].kill()
