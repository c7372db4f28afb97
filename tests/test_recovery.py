"""What happens when something fails in the middle: `make chaos` draws it from a seed, here are stories."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing

import redis
from absent import leases_run_out, messages_are_claimable
from hostile import open_target
from stores import make_store

from backstock.supervisor import Service, Supervisor
from backstock.up import command
from shared.listeners import listen

LIVE_WITHIN = 60  # seconds; a test's store is small, two cores may be busy
CHANGES = 25  # a second: about two webhooks each


async def test_an_emptied_redis_loses_nothing_under_webhooks(services, until):
    """FLUSHALL while history loads and 50 webhooks a second come: it is sent again, all is equal."""
    await services.start_all()
    async with make_store(services, orders=1500, objects_per_second=1500) as store:
        await store.connect()
        busy = asyncio.create_task(store.post("traffic", per_second=CHANGES, seconds=4, seed=5))
        await until(
            lambda: store.db.fetchval("select max(bytes_done) > 0 from control.bulk_operations"), LIVE_WITHIN
        )
        with redis.Redis.from_url(services.env["REDIS_URL"]) as client:
            client.flushall()
        await busy
        await until(store.is_live, LIVE_WITHIN)
        await store.post("webhooks/flush")
        await until(store.equals, LIVE_WITHIN)


async def test_a_runner_that_was_stopped_past_its_lease_writes_nothing(services, until):
    """Another one ends its download meanwhile; awake, it finds its lease lost; lines count once."""
    await services.start_all()
    zombie = next(process for process in services.processes if process.name.startswith("bulk-runner"))
    async with make_store(services, orders=6000) as store:
        await store.connect()
        await until(lambda: _stopped_in_a_download(store, zombie), LIVE_WITHIN)
        await services.start("bulk-runner")
        messages_are_claimable(services.env["REDIS_URL"])
        await until(lambda: store.db.fetchval(DOWNLOADED), LIVE_WITHIN)
        batches = await store.db.fetchval(BATCHES)

        await zombie.kill(signal.SIGCONT)
        await until(lambda: "LeaseLostError" in zombie.log)
        await until(store.is_live, LIVE_WITHIN)
        assert await store.db.fetchval(BATCHES) == batches
        assert await store.db.fetchval(MISCOUNTED) == 0
        assert await store.differences() == []


DOWNLOADED = (
    "select not exists (select from control.jobs where kind like 'bulk_%' "
    "and state not in ('staged', 'completed'))"
)
BATCHES = "select count(*) from control.batches where source = 'bulk'"
MISCOUNTED = (
    "select count(*) from control.bulk_operations where gid is not null "
    "and (lines_done, bytes_done, roots_done) is distinct from (object_count, file_size, root_object_count)"
)


async def _stopped_in_a_download(store, runner):
    """Stop it between two batches of a file; its leases are made to run out, which spares a wait of 12 s."""
    if not await store.db.fetchval(
        "select exists (select from control.bulk_operations where state = 'ready' "
        "and bytes_done between 1 and file_size - 1)"
    ):
        return False
    await runner.kill(signal.SIGSTOP)
    if await leases_run_out(store.db, runner):
        return True
    await runner.kill(signal.SIGCONT)
    return False


async def test_every_service_restarts_under_webhooks_and_none_is_lost(services, until):
    """SIGTERM and a new start, one after the other: what was not answered comes again, and all is equal."""
    await services.start_all("ingress", "bulk-runner", "promoter", "status")
    async with make_store(services, orders=200) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        busy = asyncio.create_task(store.post("traffic", per_second=CHANGES, seconds=8, seed=5))
        for process in services.processes:
            await process.restart(signal.SIGTERM)
            assert process.popen.returncode is None
        await busy
        await store.post("webhooks/flush")
        await until(store.equals, LIVE_WITHIN)
        counters = (await store.http.get(f"{store.control}/log")).json()["counters"]
        assert counters["webhooks_delivered"] >= 8 * CHANGES
        assert "webhooks_subscriptions_removed" not in counters


async def test_a_restart_of_ingress_refuses_no_webhook(services, until):
    """SIGTERM under webhooks: who comes while no ingress runs waits for the next one, which answers."""
    (services.folder / "logs").mkdir()
    with closing(listen("INGRESS_BIND", services.ingress_url.removeprefix("http://"))) as listener:
        ingress = Service(
            "ingress",
            [command("ingress")],
            services.env,
            f"{services.ingress_url}/readyz",
            listeners={"INGRESS_BIND": listener},
        )
        async with Supervisor([ingress], [], services.folder, lambda *_: None).running():
            target = await open_target(services, "restarted")
            answers, enough = [], asyncio.Event()

            async def deliver():
                while not enough.is_set():
                    answer = await target.webhook("orders/delete", b'{"id": 1}', Connection="close")
                    answers.append(answer.status_code)

            async with asyncio.TaskGroup() as deliveries:
                for _ in range(SENDERS):
                    deliveries.create_task(deliver())
                await until(lambda: len(answers) > 2 * SENDERS)
                first = ingress.process.pid
                os.kill(first, signal.SIGTERM)
                await until(lambda: ingress.process.pid != first, RESTARTED_WITHIN)
                before = len(answers)
                await until(lambda: len(answers) > before + 2 * SENDERS, RESTARTED_WITHIN)
                enough.set()
            assert set(answers) == {200}
            assert await target.count("control.webhook_deliveries") == len(answers)
            await target.http.aclose()
            await target.db.close()


SENDERS = 8
RESTARTED_WITHIN = 30  # seconds; one takes two, also on two busy cores


async def test_a_service_ends_after_the_transaction_it_is_in(services, until):
    """SIGTERM in the middle of a promotion: it commits, and the process ends well."""
    started = await services.start_all("ingress", "promoter")
    promoter = started["promoter"]
    async with make_store(services, orders=1) as store:
        await store.connect()
        uri = f"{services.ingress_url}/webhooks/shopify"
        async with store.db.transaction():
            await store.db.execute("lock table shopify.orders in share row exclusive mode")
            await store.post("deliver", topic="orders/create", body=ORDER, uri=uri)
            await until(lambda: store.db.fetchval(WAITS_FOR_ORDERS))
            ending = asyncio.create_task(promoter.kill(signal.SIGTERM))
            ended, _ = await asyncio.wait({ending}, timeout=MEANWHILE)
            assert not ended
        assert await ending == 0
        assert await store.db.fetchval("select count(*) from shopify.orders where id = 7") == 1
        assert await store.db.fetchval("select bool_and(promoted_at is not null) from control.batches")
        assert await store.db.fetchval(UNFINISHED) == 0


MEANWHILE = 2.0  # seconds; a service with nothing to do ends in a fraction of that, GRACE is 5
ORDER = '{"id": 7, "updated_at": "2026-11-20T10:00:00Z"}'
WAITS_FOR_ORDERS = (
    "select exists (select from pg_locks where relation = 'shopify.orders'::regclass and not granted)"
)
UNFINISHED = (
    "select count(*) from control.outbox o where event_type = 'StagedBatch' and not exists "
    "(select from control.inbox i where i.event_id = o.event_id and i.service = 'promoter')"
)
