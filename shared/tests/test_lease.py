"""Who may work on something: fencing, on a real Postgres."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from shared import db
from shared.db import connect
from shared.errors import LeaseLostError
from shared.lease import LEASE_SECONDS, lease
from shared.outages import OUTAGES


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def expire(pool, key):
    """As if the worker had been paused past its lease."""
    await pool.execute(
        "update control.leases set expires_at = now() - interval '1 second' where key = $1", key
    )


async def test_one_worker_at_a_time(pool):
    """While somebody holds the lease nobody else gets it; released, it is free at once."""
    async with lease(pool, "job:1") as mine:
        assert mine is not None
        async with lease(pool, "job:1") as other, lease(pool, "job:2") as elsewhere:
            assert other is None
            assert elsewhere is not None
    async with lease(pool, "job:1") as next_one:
        assert next_one is not None
        assert next_one.epoch > mine.epoch


async def test_of_many_who_ask_at_once_one_gets_it(pool):
    """Twenty ask together: one works, nineteen are told so."""
    done = asyncio.Event()
    holders = []

    async def work():
        async with lease(pool, "job:1") as held:
            holders.append(held)
            if len(holders) == 20:
                done.set()
            if held:
                await done.wait()

    await asyncio.gather(*(work() for _ in range(20)))
    assert len([held for held in holders if held]) == 1


async def test_a_paused_worker_can_do_no_harm(pool):
    """Its lease ran out and another took over: its next batch fails, and nothing of it is written."""
    async with lease(pool, "job:1") as paused:
        await expire(pool, "job:1")
        async with lease(pool, "job:1") as successor:
            assert successor is not None
            with pytest.raises(LeaseLostError, match="job:1"):  # noqa: PT012 - a transaction is a block
                async with pool.acquire() as tx, tx.transaction():
                    await tx.execute("insert into control.connections (brand_id, shop) values ('a', 'b')")
                    await paused.hold(tx)
            async with pool.acquire() as tx, tx.transaction():
                await successor.hold(tx)
    assert await pool.fetchval("select count(*) from control.connections") == 0


async def test_a_paused_worker_begins_nothing(pool, monkeypatch):
    """By the clock its lease has run out: so it says, until a renewal tells that nobody took it meanwhile."""
    async with lease(pool, "job:1") as paused:
        paused.check()
        awake = time.monotonic() + LEASE_SECONDS
        monkeypatch.setattr("shared.lease.time", SimpleNamespace(monotonic=lambda: awake))
        with pytest.raises(LeaseLostError, match="job:1"):
            paused.check()
        await paused.renew(pool)
        paused.check()
        await pool.execute("update control.leases set epoch = epoch + 1")
        await paused.renew(pool)
        with pytest.raises(LeaseLostError, match="job:1"):
            paused.check()


async def test_a_late_release_does_not_free_the_successors_lease(pool):
    """The paused worker wakes up and leaves: the lease stays with who took over."""
    first = lease(pool, "job:1")
    await first.__aenter__()
    await expire(pool, "job:1")
    async with lease(pool, "job:1") as successor:
        await first.__aexit__(None, None, None)
        async with lease(pool, "job:1") as third:
            assert third is None
        async with pool.acquire() as tx, tx.transaction():
            await successor.hold(tx)


async def test_holding_renews(pool):
    """A worker that was late but was not replaced goes on, and its lease is whole again."""
    async with lease(pool, "job:1") as held:
        await expire(pool, "job:1")
        async with pool.acquire() as tx, tx.transaction():
            await held.hold(tx)
        async with lease(pool, "job:1") as other:
            assert other is None


async def test_a_successor_waits_for_the_commit_that_holds_the_lease(pool):
    """A batch that is being committed under the lease ends before anybody else takes over."""
    async with lease(pool, "job:1") as held:
        async with pool.acquire() as tx:
            transaction = tx.transaction()
            await transaction.start()
            await expire(pool, "job:1")
            await held.hold(tx)
            taking = lease(pool, "job:1")
            successor = asyncio.ensure_future(taking.__aenter__())
            await transaction.commit()
        assert await successor is None  # the commit renewed it
        await taking.__aexit__(None, None, None)


async def test_a_failed_worker_frees_its_lease(pool):
    """Whatever ends the work, the next one need not wait for the lease to run out."""
    with pytest.raises(ZeroDivisionError):
        async with lease(pool, "job:1"):
            raise ZeroDivisionError
    async with lease(pool, "job:1") as held:
        assert held is not None


async def test_a_worker_that_is_paused_in_a_transaction_keeps_no_locks(pool, database_url, monkeypatch):
    """Postgres ends what stands still: others go on, and who wakes finds its connection gone, an outage."""
    monkeypatch.setattr(db, "STANDS_STILL", "300ms")
    paused = await connect(database_url, service="test", size=1)
    await paused.execute("select 1")  # the connection has been given back once
    async with lease(pool, "job:1") as held, paused.acquire() as tx:
        transaction = tx.transaction()
        await transaction.start()
        await held.hold(tx)
        await asyncio.wait_for(expire(pool, "job:1"), 5)  # waits for the row, not for the worker
        with pytest.raises(OUTAGES):
            await tx.execute("select 1")
    await paused.close()
