"""Which catch_up follows which job, so that no change falls between two of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bulk_runner.on_job_completed import on_job_completed
from bulk_runner.planning import queue_job
from shared.db import connect
from shared.events import JobCompleted

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


class Store:
    """A connection and its jobs, without services."""

    def __init__(self, pool, id_):
        self.pool, self.id = pool, id_

    async def job(self, kind, state, **columns):
        names = ["connection_id", "kind", "state", *columns]
        values = ", ".join(f"${place}" for place in range(1, len(names) + 1))
        return await self.pool.fetchval(
            f"insert into control.jobs ({', '.join(names)}) values ({values}) returning id",
            *(self.id, kind, state, *columns.values()),
        )

    async def is_asked_for(self, since, round_=1):
        async with self.pool.acquire() as tx, tx.transaction():
            await queue_job(tx, self.id, "acme", "catch_up", since=since, round_=round_)

    async def ends(self, job, kind):
        await self.pool.execute("update control.jobs set state = 'completed' where id = $1", job)
        event = JobCompleted(connection_id=self.id, brand_id="acme", job_id=job, kind=kind)
        async with self.pool.acquire() as tx, tx.transaction():
            await on_job_completed(event, tx)

    async def waiting(self):
        rows = await self.pool.fetch(
            "select id, kind, since, round from control.jobs where state = 'queued' order by id"
        )
        return [tuple(row)[1:] for row in rows]

    async def announced(self):
        return await self.pool.fetchval("select count(*) from control.outbox where event_type = 'JobQueued'")

    async def status(self):
        return await self.pool.fetchval("select sync_status from control.connections")


@pytest.fixture
async def store(database_url):
    pool = await connect(database_url, service="test")
    id_ = await pool.fetchval(
        "insert into control.connections (brand_id, shop, sync_status, scopes) "
        "values ('acme', 'a.myshopify.com', 'catching_up', '{read_orders}') returning id"
    )
    yield Store(pool, id_)
    await pool.close()


async def test_a_catch_up_under_way_owes_what_it_was_not_asked_for(store):
    """The sync needs changes from before those that one under way reads: another follows, then the audit."""
    begun = await store.job("catch_up", "running", since=ago(minutes=30))
    await store.is_asked_for(ago(hours=3), round_=2)
    assert await store.waiting() == []
    await store.ends(begun, "catch_up")
    assert await store.waiting() == [("catch_up", ago(hours=3), 2)]
    assert await store.status() == "catching_up"
    assert await store.announced() == 1
    following = await store.pool.fetchval("select max(id) from control.jobs")
    await store.ends(following, "catch_up")
    assert await store.waiting() == [("audit", None, 2)]
    assert await store.status() == "auditing"


async def test_newer_changes_do_not_keep_a_sync_from_its_audit(store):
    """Webhooks that ask for a catch_up may come for ever; a live store reads what they are about."""
    for status, follows in (("catching_up", "audit"), ("live", "catch_up")):
        await store.pool.execute("update control.connections set sync_status = $1", status)
        begun = await store.job("catch_up", "running", since=ago(hours=1))
        await store.is_asked_for(ago(seconds=5))
        await store.ends(begun, "catch_up")
        ((kind, since, _),) = await store.waiting()
        assert (kind, since) == (follows, ago(seconds=5) if follows == "catch_up" else None)
        await store.pool.execute("update control.jobs set state = 'canceled' where state = 'queued'")


async def test_the_catch_up_after_the_history_covers_what_was_read_by_pages(store):
    """Pages that an outage held up for hours: changes are read from the first page on."""
    await store.pool.execute("update control.connections set sync_status = 'backfilling'")
    history = await store.job("bulk_orders", "running", started_at=ago(hours=5))
    await store.ends(history, "bulk_orders")
    assert await store.waiting() == [("catch_up", ago(hours=5), 1)]


async def test_one_resource_loaded_anew_does_not_go_back_to_the_first_load(store):
    """The others were caught up every hour since: a year of their changes need not be read once more."""
    await store.pool.execute("update control.connections set sync_status = 'backfilling'")
    await store.job("bulk_customers", "completed", started_at=ago(days=365))
    await store.job("catch_up", "completed", created_at=ago(hours=1))
    history = await store.job("bulk_orders", "running", started_at=ago(minutes=20))
    await store.ends(history, "bulk_orders")
    assert await store.waiting() == [("catch_up", ago(hours=1), 1)]


async def test_scopes_that_came_while_the_history_loaded_load_what_they_open(store):
    """Orders that were read without read_customers do not name their customers: they are read once more."""
    await store.pool.execute(
        "update control.connections set sync_status = 'backfilling', scopes = '{read_orders,read_customers}'"
    )
    await store.job("bulk_customers", "completed", started_at=ago(hours=1))
    history = await store.job(
        "bulk_orders", "running", started_at=ago(hours=1), lacking=["read_all_orders", "read_customers"]
    )
    await store.ends(history, "bulk_orders")
    ((kind, _, _),) = await store.waiting()
    assert kind == "bulk_orders"
    assert await store.status() == "backfilling"
    again = await store.pool.fetchrow("select id, lacking from control.jobs where state = 'queued'")
    assert again["lacking"] == ["read_all_orders", "read_products"]
    await store.ends(again["id"], "bulk_orders")
    ((kind, _, _),) = await store.waiting()
    assert kind == "catch_up"


async def test_attention_that_came_meanwhile_does_not_keep_a_load_from_its_audit(store):
    """A catch_up after a load is followed by the audit, whatever is shown; one of a proven store is not."""
    await store.pool.execute("update control.connections set sync_status = 'attention'")
    await store.job("bulk_orders", "completed", started_at=ago(hours=1))
    for follows in ([("audit", None, 1)], []):
        begun = await store.job("catch_up", "running", since=ago(hours=1))
        await store.ends(begun, "catch_up")
        assert await store.waiting() == follows
        await store.pool.execute("update control.jobs set state = 'completed'")


async def test_an_operation_may_have_begun_before_its_job_by_shopifys_clock(store):
    """What was adopted, or a clock that is behind: the earlier of both counts."""
    await store.pool.execute("update control.connections set sync_status = 'backfilling'")
    history = await store.job("bulk_orders", "running", started_at=ago(hours=5))
    for hours in (4, 6):
        await store.pool.execute(
            "insert into control.bulk_operations "
            "(connection_id, job_id, resource, state, shopify_created_at) "
            "values ($1, $2, 'orders', 'staged', $3)",
            *(store.id, history, ago(hours=hours)),
        )
    await store.ends(history, "bulk_orders")
    assert await store.waiting() == [("catch_up", ago(hours=6), 1)]
