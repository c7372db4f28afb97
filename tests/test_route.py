"""The whole route with real processes: from connecting a store to tables that equal it."""

from __future__ import annotations

import asyncio
import os
import signal

import redis
from absent import leases_run_out, messages_are_claimable
from stores import make_store

LIVE_WITHIN = 60  # seconds; a test's store is small, two cores may be busy


async def test_a_connected_store_goes_live_with_every_row_equal(services, until):
    """Every column of every row of every table equals what the store holds, and nothing is left behind."""
    await services.start_all()
    async with make_store(services, orders=400) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)

        assert await store.differences() == []
        assert await store.db.fetchval("select count(*) from control.dead_letters") == 0
        assert await store.db.fetchval("select count(*) from stage.orders") == 0
        assert await store.db.fetchval("select count(*) from control.batches where promoted_at is null") == 0
        assert await store.db.fetchval("select equal from control.audits order by id desc limit 1")


async def test_an_empty_store_goes_live_with_every_table_compared(services, until):
    """Nothing at the store and nothing here is equal: a line for each table, and 100 percent."""
    await services.start_all("ingress", "bulk-runner", "promoter", "status")
    async with make_store(services, orders=0, customers=0, products=0) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        url = f"{services.status_url}/api/sync/{store.brand}/status"

        async def progress():
            return (await store.http.get(url, headers=services.headers)).json()

        async def is_shown_live():
            return (await progress())["syncStatus"] == "live"

        await until(is_shown_live)
        shown = await progress()
        assert shown["percent"] == 100
        assert [
            (line["table"], line["shopifyCount"], line["equal"]) for line in shown["audit"]["tables"]
        ] == [
            ("customers", 0, True),
            ("order_line_items", 0, True),
            ("orders", 0, True),
            ("product_variants", 0, True),
            ("products", 0, True),
            ("refunds", 0, True),
        ]


async def test_recent_orders_come_before_the_history(services, until):
    """Before the history has loaded, recent orders are in the table, the newest of all among them."""
    await services.start_all()
    async with make_store(services, orders=2000, objects_per_second=500) as store:
        await store.connect()
        await until(lambda: store.db.fetchval("select count(*) > 0 from shopify.orders"))

        recent = await store.db.fetchrow(
            "select min(source) as source, max(id) as newest from shopify.orders"
        )
        history = await store.db.fetchval(
            "select count(*) from control.jobs where kind = 'bulk_orders' and state = 'completed'"
        )
        answer = await store.http.get(f"{store.control}/truth/orders")
        newest = max(answer.content.splitlines(), key=lambda line: line.partition(b'"created_at":')[2])
        assert recent["source"] == "recent"
        assert history == 0
        assert f'"id":{recent["newest"]},'.encode() in newest


async def test_changes_during_and_after_the_history_arrive(services, until):
    """What changes while history loads, and what changes later, ends as it is at the store."""
    await services.start_all()
    async with make_store(services, orders=600, objects_per_second=400) as store:
        await store.connect()
        await until(
            lambda: store.db.fetchval(
                "select count(*) > 0 from control.bulk_operations where state = 'running'"
            )
        )
        await store.post("traffic", per_second=25, seconds=2, seed=3)
        await until(store.is_live, LIVE_WITHIN)
        await store.post("traffic", per_second=25, seconds=1, seed=4)
        await store.post("webhooks/flush")
        await until(store.equals, LIVE_WITHIN)


async def test_stores_in_other_currencies_keep_every_digit(services, until):
    """A store without decimals (JPY) and one with three (KWD) are copied to the digit."""
    await services.start_all()
    for currency in ("JPY", "KWD"):
        async with make_store(services, orders=60, currency=currency, seed=11) as store:
            await store.connect()
            await until(store.is_live, LIVE_WITHIN)
            assert await store.differences() == []
            assert await store.db.fetchval(
                "select array_agg(distinct o.currency) from shopify.orders o "
                "join control.connections c on c.id = o.connection_id where brand_id = $1",
                store.brand,
            ) == [currency]


async def test_a_deleted_order_stays_deleted(services, until):
    """A delete leaves a tombstone; the update that was sent before it and comes after it changes nothing."""
    await services.start_all()
    async with make_store(services, orders=30) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        order = await store.db.fetchval("select max(id) from shopify.orders")
        name = await store.db.fetchval("select name from shopify.orders where id = $1", order)
        answer = await store.http.delete(f"{store.control}/orders/{order}")
        assert answer.status_code == 200
        await until(
            lambda: store.db.fetchval(
                "select deleted_at is not null from shopify.orders where id = $1", order
            )
        )

        late = f'{{"id": {order}, "name": "{name}", "updated_at": "2020-01-01T00:00:00Z"}}'
        assert await store.deliver("orders/updated", late) == 200
        await until(
            lambda: store.db.fetchval("select count(*) = 0 from control.batches where promoted_at is null")
        )
        assert await store.db.fetchval(
            "select deleted_at is not null from shopify.orders where id = $1", order
        )
        await until(store.equals)


async def test_two_bulk_runners_share_the_work(services, until):
    """Two runner processes are two consumers of one group: both work, and nothing is done twice."""
    await services.start_all("ingress", "promoter", "bulk-runner")
    second = await services.start("bulk-runner")
    first = next(p for p in services.processes if p.name.startswith("bulk-runner") and p is not second)
    stores = [await asyncio.create_task(_connected(services)) for _ in range(4)]
    try:
        for store, _ in stores:
            await until(store.is_live, LIVE_WITHIN)
            assert await store.differences() == []
        with redis.Redis.from_url(services.env["REDIS_URL"]) as client:
            consumers = client.xinfo_consumers("backstock:JobQueued", "bulk-runner")
        assert len(consumers) == 2
        assert "bulk.staged" in first.log
        assert "bulk.staged" in second.log
        started = await stores[0][0].db.fetchval(
            "select count(*) from control.bulk_operations where attempt = 1"
        )
        assert started == 4 * 6  # three to load, three to audit; none was run twice
    finally:
        for _, closing in stores:
            await closing.__aexit__(None, None, None)


async def _connected(services):
    closing = make_store(services, orders=150, objects_per_second=800)
    store = await closing.__aenter__()
    await store.connect()
    return store, closing


async def test_a_killed_runner_is_replaced_where_it_stopped(services, until):
    """`kill -9` in the middle of a download: another process goes on at the checkpoint."""
    started = await services.start_all()
    async with make_store(services, orders=6000) as store:
        await store.connect()
        await until(
            lambda: store.db.fetchval(
                "select max(bytes_done) > 0 from control.bulk_operations where state = 'ready'"
            ),
            LIVE_WITHIN,
        )
        os.kill(started["bulk-runner"].pid, signal.SIGKILL)
        done = await store.db.fetchval("select max(bytes_done) from control.bulk_operations")
        await leases_run_out(store.db, started["bulk-runner"])
        messages_are_claimable(services.env["REDIS_URL"])
        await services.start("bulk-runner")
        await until(store.is_live, LIVE_WITHIN)

        assert await store.differences() == []
        assert done > 0
        assert await store.db.fetchval("select count(*) from control.bulk_operations where attempt > 1") == 0
