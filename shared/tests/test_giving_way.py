"""Which store leaves processors to which, on a real Postgres."""

from __future__ import annotations

import pytest

from shared.db import connect
from shared.events import JobQueued, ShopWaits, WebhooksRegistered
from shared.giving_way import LOADED_MUCH, MOVES_WITHIN, GivingWay
from shared.outbox import emit


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def loading(pool, brand, lines, status="backfilling"):
    """A store that has loaded so many lines in a job under way."""
    connection = await pool.fetchval(
        "insert into control.connections (brand_id, shop, sync_status) values ($1, $1, $2) returning id",
        brand,
        status,
    )
    job = await pool.fetchval(
        "insert into control.jobs (connection_id, kind, state) values ($1, 'bulk_orders', 'running') "
        "returning id",
        connection,
    )
    await pool.execute(
        "insert into control.bulk_operations (connection_id, job_id, resource, lines_done) "
        "select $1, $2, 'orders', $3 from generate_series(1, 2)",
        connection,
        job,
        lines // 2,
    )
    return connection


async def moves(pool, connection, event=WebhooksRegistered, **fields):
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, event(connection_id=connection, brand_id=str(connection), **fields))


async def test_who_has_loaded_much_gives_way_to_who_has_not_and_never_the_other_way_round(pool):
    """The lines of all its operations count."""
    large, small = await loading(pool, "large", LOADED_MUCH), await loading(pool, "small", LOADED_MUCH - 2)
    gives_way = GivingWay(pool)
    assert not await gives_way(large)
    for connection in (large, small):
        await moves(pool, connection)
    assert await gives_way(large)
    assert not await gives_way(small)


@pytest.mark.parametrize(
    ("status", "lines"),
    [("live", 0), ("attention", 0), ("removed", 0), ("backfilling", LOADED_MUCH)],
)
async def test_nobody_rests_for_stores_that_are_through_or_as_large(pool, status, lines):
    """Webhooks of live stores leave a large one its speed, and so do other large ones."""
    large, other = await loading(pool, "large", LOADED_MUCH), await loading(pool, "other", lines, status)
    await moves(pool, other)
    assert not await GivingWay(pool)(large)


async def test_nobody_rests_for_a_store_that_stands_still(pool):
    """One that waits for Shopify, or whose last work was a while ago, holds nobody up."""
    large, other = await loading(pool, "large", LOADED_MUCH), await loading(pool, "other", 0)
    await moves(pool, other, ShopWaits, until="2026-11-01T00:00:00Z", reason="unavailable")
    assert not await GivingWay(pool)(large)
    await moves(pool, other, JobQueued, job_id=1, kind="recent_sync")
    assert await GivingWay(pool)(large)
    await pool.execute(
        "update control.outbox set created_at = now() - $1 * interval '1 second'", 2 * MOVES_WITHIN
    )
    assert not await GivingWay(pool)(large)


async def test_who_has_loaded_before_starts_anew(pool):
    """Only jobs under way count: a store that is loaded again is small at first."""
    large, other = await loading(pool, "large", LOADED_MUCH), await loading(pool, "other", 0)
    await moves(pool, other)
    await pool.execute("update control.jobs set state = 'completed' where connection_id = $1", large)
    assert not await GivingWay(pool)(large)
