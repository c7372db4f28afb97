"""Deliveries: again after a failure, aside when it is of no use, never lost; a real Redis and Postgres.

The waits of production (a lease of 15 s, ...) are set small here; what is done about a failure is not.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from shared import outbox, stream
from shared.db import connect, settle
from shared.dead_letters import LetterError, drop, replay
from shared.errors import LeaseLostError, PermanentError
from shared.events import ConnectionCreated, JobQueued, StagedBatch
from shared.outages import OutageError
from shared.outbox import Relay, emit, stream_name
from shared.shopify_errors import ShopifyUnavailableError
from shared.stream import Route, make_broker

SERVICE = "promoter"
STREAM = stream_name(StagedBatch)
LEASE = 600  # milliseconds


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(stream, "LEASE_MS", LEASE)
    monkeypatch.setattr(stream, "MAX_DELIVERIES", 3)
    monkeypatch.setattr(stream, "BACKOFF_BASE_MS", 40)
    monkeypatch.setattr(stream, "CLAIM_EVERY_MS", 40)
    monkeypatch.setattr(stream, "READ_BLOCK_MS", 100)
    monkeypatch.setattr(stream, "GUARD_EVERY", 0.1)
    monkeypatch.setattr(outbox, "SWEEP_EVERY", 0.2)


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def client(redis_url):
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def consuming(pool, client, redis_url, until):
    """`async with consuming(handler):` a route and a relay run, as in a service; it has begun to read."""

    @asynccontextmanager
    async def run(handler, *, long=False, service=SERVICE, event=StagedBatch, resend_after=0.5):
        route = Route(make_broker(redis_url, pool, service), pool, service)
        (route.on_long if long else route.on)(event, handler, **({"workers": 2} if long else {}))
        relay = Relay(pool, client, resend_after=resend_after)
        tasks = [asyncio.create_task(work) for work in (route.run(), relay.run())]
        try:
            await until(route.is_running)
            yield route
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return run


def event(number=1, **more):
    fields = {"connection_id": 1, "brand_id": "acme", "batch_id": number, "source": "bulk", "rows": {}}
    return StagedBatch(**fields, **more)


async def emitted(pool, *events):
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *events)


class Handler:
    """Fails with the given errors, one a call, then succeeds; notes when it was called for what."""

    def __init__(self, *errors, always=None):
        self.errors, self.always = list(errors), always
        self.calls, self.times = [], []

    async def __call__(self, event, tx=None):
        self.calls.append(getattr(event, "batch_id", 0))
        self.times.append(time.monotonic())
        if tx is not None:  # work that must not outlive a failure
            await tx.execute(
                "insert into control.leases (key, owner, expires_at) values ($1, 'test', now())",
                f"{id(self)}/{len(self.calls)}",
            )
        if self.errors:
            raise self.errors.pop(0)
        if self.always:
            raise self.always

    async def succeeded(self, pool):
        return await pool.fetchval("select count(*) from control.leases")


async def handled(pool, service=SERVICE):
    return await pool.fetchval("select count(*) from control.inbox where service = $1", service)


async def buried(pool):
    return await pool.fetch("select * from control.dead_letters order by id")


async def nothing_pending(client):
    return (await client.xpending(STREAM, SERVICE))["pending"] == 0


async def test_an_event_is_handled_once_however_often_it_comes(pool, client, consuming, until):
    """The inbox and the work share a transaction: a copy of the event finds it done, and is acknowledged."""
    handler = Handler()
    async with consuming(handler):
        said = event()
        await emitted(pool, said)
        await until(lambda: handled(pool))
        for _ in range(3):
            await client.xadd(STREAM, {"__data__": said.model_dump_json()})
        await emitted(pool, event(2))
        await until(lambda: _equal(handled(pool), 2))
        await until(lambda: nothing_pending(client))
    assert handler.calls == [1, 2]
    assert await handler.succeeded(pool) == 2


async def _equal(query, value):
    return await query == value


async def test_a_failure_is_tried_again_after_a_backoff(pool, client, consuming, until):
    """Each try waits longer than the last; what a failed try wrote is rolled back; then it is done."""
    handler = Handler(RuntimeError("once"), RuntimeError("twice"))
    async with consuming(handler):
        await emitted(pool, event())
        await until(lambda: handled(pool))
        await until(lambda: nothing_pending(client))
    assert handler.calls == [1, 1, 1]
    first, second, third = handler.times
    assert second - first >= 0.04  # half of 80 ms, at the least
    assert third - second >= 0.08
    assert await handler.succeeded(pool) == 1
    assert await buried(pool) == []


async def test_what_cannot_be_mended_is_put_aside_at_once(pool, client, consuming, until):
    """A PermanentError is a dead letter after one try, with its reason; the next message is handled."""
    handler = Handler(PermanentError("no such thing"))
    async with consuming(handler):
        await emitted(pool, event(1), event(2))
        await until(lambda: _equal(handled(pool), 2))
        await until(lambda: nothing_pending(client))
    (letter,) = await buried(pool)
    assert letter["event_type"] == "StagedBatch"
    assert (letter["service"], letter["connection_id"], letter["deliveries"]) == (SERVICE, 1, 1)
    assert letter["error"] == "PermanentError: no such thing"
    assert StagedBatch.model_validate_json(letter["payload"]).batch_id in (1, 2)
    assert sorted(handler.calls) == [1, 2]


async def test_poison_is_put_aside_after_the_last_try(pool, client, consuming, until):
    """Any other error gets MAX_DELIVERIES tries, then the message is a dead letter, and stays one."""
    handler = Handler(always=RuntimeError("\x00 always"))
    async with consuming(handler):
        await emitted(pool, event())
        await until(lambda: buried(pool))
        await until(lambda: nothing_pending(client))
        await until(
            lambda: pool.fetchval(
                "select count(*) = 1 from control.inbox where service = $1 and event_id in "
                "(select event_id from control.dead_letters)",
                SERVICE,
            )
        )
    (letter,) = await buried(pool)
    assert letter["deliveries"] == 3
    assert letter["error"] == "RuntimeError: \ufffd always"
    assert handler.calls == [1, 1, 1]
    assert await handler.succeeded(pool) == 0


async def test_the_job_of_a_dead_letter_fails_for_all_to_see(pool, consuming, until):
    """The job, its connection and an event say what went wrong and what helps."""
    connection = await pool.fetchval(
        "insert into control.connections (brand_id, shop) values ('acme', 'a.myshopify.com') returning id"
    )
    job = await pool.fetchval(
        "insert into control.jobs (connection_id, kind) values ($1, 'bulk_orders') returning id", connection
    )
    said = event(job_id=job, kind="bulk_orders", resource="orders")
    async with consuming(Handler(PermanentError("broken"))):
        await emitted(pool, said)
        await until(lambda: buried(pool))
    row = await pool.fetchrow("select state, problem from control.jobs where id = $1", job)
    assert row["state"] == "failed"
    assert "broken" in row["problem"]["message"]
    status = await pool.fetchrow("select sync_status, problem from control.connections")
    assert (status["sync_status"], status["problem"]["code"]) == ("attention", "dead_letter")
    failed = "select payload from control.outbox where event_type = 'JobFailed'"
    assert '"final":true' in await pool.fetchval(failed)


@pytest.mark.parametrize(
    "error",
    [
        OutageError("away"),
        ConnectionResetError(),
        TimeoutError(),
        LeaseLostError(),
        ShopifyUnavailableError(),
    ],
)
async def test_an_outage_is_not_the_messages_fault(pool, consuming, until, error):
    """As long as something around it is away a message is tried again, beyond any count of tries."""
    handler = Handler(*[error] * 6)
    async with consuming(handler):
        await emitted(pool, event())
        await until(lambda: handled(pool))
    assert len(handler.calls) == 7
    assert await buried(pool) == []


async def test_what_cannot_be_read_is_put_aside(pool, client, consuming, until):
    """Garbage, half an event and another one's form go to the dead letters; what comes behind is handled."""
    handler = Handler()
    async with consuming(handler):
        for payload in (b"\xff\x00", b"{", b"{}", b'{"batch_id": "x"}', b"null"):
            await client.xadd(STREAM, {"__data__": payload})
        await client.xadd(STREAM, {"other": "field"})
        await emitted(pool, event(7))
        await until(lambda: _buried_so_many(pool, 6))
        await until(lambda: nothing_pending(client))
        await until(lambda: handler.calls == [7])
    letters = await buried(pool)
    assert {letter["event_type"] for letter in letters} == {"StagedBatch"}
    assert all(letter["connection_id"] is None for letter in letters)


async def test_an_event_of_another_version_is_one_letter_however_often_it_comes(
    pool, client, consuming, until
):
    """What a newer service wrote and this one cannot read keeps its identity: it is put aside once."""
    newer = json.loads(event(3).model_dump_json()) | {"source": "something new"}
    handler = Handler()
    async with consuming(handler):
        for _ in range(2):
            await client.xadd(STREAM, {"__data__": json.dumps(newer)})
        await emitted(pool, event(7))
        await until(lambda: handler.calls == [7])
        await until(lambda: nothing_pending(client))
    (letter,) = await buried(pool)
    assert (str(letter["event_id"]), letter["connection_id"]) == (newer["event_id"], newer["connection_id"])


async def _buried_so_many(pool, number):
    return len(await buried(pool)) == number


async def test_a_message_from_before_the_group_is_handled(pool, client, consuming, until):
    """Groups are made at 0: what was published before any consumer existed is not skipped."""
    said = event()
    await client.xadd(STREAM, {"__data__": said.model_dump_json()})
    handler = Handler()
    async with consuming(handler):
        await until(lambda: handled(pool))
    assert handler.calls == [1]


async def test_what_a_dead_process_left_is_claimed(pool, client, consuming, until):
    """A message that was delivered to a process which then died is taken over after its lease."""
    await client.xgroup_create(STREAM, SERVICE, id="0", mkstream=True)
    await client.xadd(STREAM, {"__data__": event().model_dump_json()})
    taken = await client.xreadgroup(SERVICE, "dead-process", {STREAM: ">"})
    assert len(taken[0][1]) == 1
    handler = Handler()
    began = time.monotonic()
    async with consuming(handler):
        await until(lambda: handled(pool))
        await until(lambda: nothing_pending(client))
    assert handler.calls == [1]
    assert time.monotonic() - began >= LEASE / 2000


async def renewals(client):
    """How often a handler has renewed its message's lease (a beat each third of it)."""
    return (await client.info("commandstats")).get("cmdstat_xclaim", {}).get("calls", 0)


async def test_a_running_handler_keeps_its_message(pool, client, consuming, until):
    """Work that takes three leases is not given to somebody else meanwhile: it runs once."""
    calls, before = [], await renewals(client)

    async def three_leases_later():
        return await renewals(client) >= before + 9

    async def handler(event):
        calls.append(event.batch_id)
        await until(three_leases_later)  # the work
        async with pool.acquire() as tx, tx.transaction():
            await settle(tx, event, SERVICE)

    rare = {"long": True, "resend_after": 60}  # a message is claimed, or it is not: none is sent again
    async with consuming(handler, **rare), consuming(handler, **rare):
        await emitted(pool, event())
        await until(lambda: handled(pool))
    assert calls == [1]


async def test_an_emptied_redis_heals(pool, client, consuming, until):
    """FLUSHALL takes streams and groups: groups are made again, lost events sent again, new ones handled."""
    gate = asyncio.Event()
    done = []

    async def handler(event, tx):
        await gate.wait()
        done.append(event.batch_id)

    async with consuming(handler) as route:
        await emitted(pool, *(event(n) for n in range(20)))
        await until(lambda: client.xlen(STREAM))
        await client.flushall()
        gate.set()
        await emitted(pool, event(20))
        await until(lambda: _equal(handled(pool), 21), 30)
        await until(route.is_running)
    assert sorted(done) == list(range(21))
    assert await buried(pool) == []


async def test_two_services_each_get_every_event(pool, consuming, until):
    """One group a service: the promoter's reading takes nothing away from status."""
    promoter, status = Handler(), Handler()
    async with consuming(promoter), consuming(status, service="status"):
        await emitted(pool, *(event(n) for n in range(5)))
        await until(lambda: _equal(handled(pool), 5))
        await until(lambda: _equal(handled(pool, "status"), 5))
        await until(lambda: pool.fetchval("select bool_and(settled_at is not null) from control.outbox"))
    assert sorted(promoter.calls) == sorted(status.calls) == list(range(5))


async def test_a_handler_for_somebody_elses_event_is_refused(pool, redis_url):
    """An event that does not name the service would never be swept for it: wiring it is an error."""
    route = Route(make_broker(redis_url, pool, SERVICE), pool, SERVICE)
    with pytest.raises(TypeError, match="JobQueued does not name promoter"):
        route.on(JobQueued, Handler())


async def test_a_stopping_service_lets_its_handler_finish(pool, consuming):
    """On the way down a running handler ends and commits."""
    started, may_end = asyncio.Event(), asyncio.Event()

    async def handler(event, tx):
        started.set()
        await may_end.wait()

    async with consuming(handler):
        await emitted(pool, event())
        await asyncio.wait_for(started.wait(), 10)
        asyncio.get_running_loop().call_later(0.2, may_end.set)  # while the route is being stopped
    assert await handled(pool) == 1


async def test_a_stream_that_is_lost_while_a_handler_runs_is_read_again(pool, client, consuming, until):
    """A subscriber that still waits for its handlers is not started: its end would end the new start, too."""
    running, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event, tx):
        running.set()
        await go_on.wait()

    async with consuming(slow) as route:
        looks = looks_of_the_guard(route)
        await emitted(pool, event(1))
        await running.wait()
        await client.flushall()
        await until(lambda: not route.is_running())
        looked = len(looks)
        await until(lambda: len(looks) >= looked + 5)  # while the handler still runs
        go_on.set()
        await until(route.is_running)
        await emitted(pool, event(2))
        await until(lambda: _handled_both(pool))
        looked = len(looks)
        await until(lambda: len(looks) >= looked + 2)
        assert route.is_running()


def looks_of_the_guard(route):
    """A list that grows with each look at the subscribers."""
    looks, look = [], route._end_the_lame

    async def counted():
        looks.append(None)
        await look()

    route._end_the_lame = counted
    return looks


async def _handled_both(pool):
    return await handled(pool) == 2


async def test_what_was_in_an_emptied_redis_is_sent_again_at_once(pool, client, consuming, until):
    """Nobody waits for the sweeper: the relay publishes what was not handled."""
    handler = Handler()
    async with consuming(handler, resend_after=600) as route:
        await until(route.is_running)
        lost = event(1)  # published, as the outbox says, and gone with the stream
        await pool.execute(
            "insert into control.outbox "
            "(event_id, event_type, payload, consumers, published_at, times_published) "
            "values ($1, 'StagedBatch', $2, '{promoter}', now(), 1)",
            lost.event_id,
            lost.model_dump_json(),
        )
        await client.flushall()
        await until(lambda: bool(handler.calls), 5)


async def connected(pool, status="backfilling"):
    return await pool.fetchval(
        "insert into control.connections (brand_id, shop, sync_status) "
        "values ('acme', 'a.myshopify.com', $1) returning id",
        status,
    )


async def shown(pool):
    """Where the connection stands, and the code of its problem."""
    row = await pool.fetchrow("select sync_status, problem from control.connections")
    return row["sync_status"], row["problem"]["code"] if row["problem"] else None


async def within(pool, work, letter_id):
    async with pool.acquire() as tx, tx.transaction():
        await work(tx, letter_id)


async def said_by(pool, event_type):
    """The payloads of the events of a type, in order."""
    rows = await pool.fetch(
        "select payload::jsonb from control.outbox where event_type = $1 order by id", event_type
    )
    return [row["payload"] for row in rows]


async def test_a_replay_takes_the_job_back_to_work(pool, consuming, until):
    """Job and connection stand where they stood; a letter that dies again fails them again."""
    connection = await connected(pool)
    job = await pool.fetchval(
        "insert into control.jobs (connection_id, kind, state) "
        "values ($1, 'bulk_orders', 'running') returning id",
        connection,
    )
    state = "select state from control.jobs"
    handler = Handler(PermanentError("broken"), PermanentError("still broken"))
    async with consuming(handler):
        await emitted(pool, event(job_id=job, kind="bulk_orders", resource="orders"))
        await until(lambda: _equal(pool.fetchval(state), "failed"))
        assert await shown(pool) == ("attention", "dead_letter")
        (letter,) = await buried(pool)
        for dies in (True, False):
            await within(pool, replay, letter["id"])
            if dies:
                await until(lambda: _error_of_the_open_letter(pool, "still broken"))
                assert (await pool.fetchval(state), (await shown(pool))[0]) == ("failed", "attention")
        assert await pool.fetchval(state) == "running"
        assert await shown(pool) == ("backfilling", None)
        await until(lambda: handler.succeeded(pool))
    assert handler.calls == [1, 1, 1]
    assert [failure["final"] for failure in await said_by(pool, "JobFailed")] == [True, False, True, False]
    with pytest.raises(LetterError, match=f"no open dead letter {letter['id']}"):
        await within(pool, replay, letter["id"])


async def _error_of_the_open_letter(pool, text):
    (letter,) = await buried(pool)
    return letter["replayed_at"] is None and text in letter["error"]


@pytest.mark.parametrize("heal", [replay, drop])
async def test_an_event_without_a_job_halts_its_connection(pool, consuming, until, heal):
    """Nothing fails but the sync waits: the connection says so, and no longer when the letter is closed."""
    connection = await connected(pool, "recent")
    handler = Handler(PermanentError("broken"))
    async with consuming(handler, service="bulk-runner", event=ConnectionCreated):
        await emitted(
            pool, ConnectionCreated(connection_id=connection, brand_id="acme", shop="a.myshopify.com")
        )
        await until(lambda: buried(pool))
        assert await shown(pool) == ("attention", "dead_letter")
        (letter,) = await buried(pool)
        await within(pool, heal, letter["id"])
        assert await shown(pool) == ("connecting", None)
        if heal is replay:
            await until(lambda: handler.succeeded(pool))
    said = await said_by(pool, "TroubleChanged")
    assert [(each["halts"], each["problem"] is None) for each in said] == [(True, False), (False, True)]
    assert "backstock dead-letters replay --brand acme" in said[0]["problem"]["action"]


async def test_a_replay_is_for_the_service_that_failed(pool, consuming, until):
    """Though inbox and outbox were pruned since: the others, who read the same stream, do nothing twice."""
    promoter, status = Handler(PermanentError("broken")), Handler()
    async with consuming(promoter), consuming(status, service="status"):
        await emitted(pool, event())
        await until(lambda: handled(pool, "status"))
        await until(lambda: buried(pool))
        await pool.execute("delete from control.outbox")
        await pool.execute("delete from control.inbox where service = 'status'")
        (letter,) = await buried(pool)
        await within(pool, replay, letter["id"])
        await until(lambda: _equal(promoter.succeeded(pool), 2))  # status's first, and this one
        await emitted(pool, event(2))
        await until(lambda: 2 in status.calls)
    assert status.calls == [1, 2]


async def test_a_subscriber_that_only_half_started_is_started_anew(pool, consuming, until):
    """A start that broke off says that it runs, and reads nothing: that is seen, and mended."""
    handler = Handler()
    async with consuming(handler) as route:
        await until(route.is_running)
        for subscriber in route.broker.subscribers:
            await subscriber.stop()
            subscriber.running = True
        assert not route.is_running()
        await emitted(pool, event(1))
        await until(lambda: bool(handler.calls))
        await until(route.is_running)
