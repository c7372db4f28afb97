"""From a transaction into the streams, once or again: a real Postgres, a real Redis."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import outbox
from shared.db import connect, settle
from shared.events import JobFailed, Problem, StagedBatch
from shared.outbox import Relay, emit, stream_name

STREAM = "backstock:StagedBatch"


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


def event(number=1):
    return StagedBatch(connection_id=1, brand_id="acme", batch_id=number, source="bulk", rows={"orders": 1})


async def emitted(pool, *events):
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *events)


async def sent(client, stream=STREAM):
    """The events of a stream, in order."""
    return [StagedBatch.model_validate_json(fields[b"__data__"]) for _, fields in await client.xrange(stream)]


async def age(pool, seconds):
    """As if everything had been published so much earlier."""
    await pool.execute(
        "update control.outbox set published_at = published_at - $1::float8 * interval '1 second'", seconds
    )


async def handled_by(pool, what, *services):
    async with pool.acquire() as tx, tx.transaction():
        for service in services:
            assert await settle(tx, what, service)


async def test_an_event_is_as_durable_as_its_work(pool, client):
    """Committed with the work, it is sent; rolled back with it, it never was."""
    relay = Relay(pool, client)
    with contextlib.suppress(ZeroDivisionError):
        async with pool.acquire() as tx, tx.transaction():
            await emit(tx, event(1))
            raise ZeroDivisionError
    await emitted(pool, event(2))
    assert await relay.publish_pending() == 1
    assert [e.batch_id for e in await sent(client)] == [2]


async def test_events_are_sent_in_order_and_once(pool, client):
    """What was written first is sent first; a second look sends nothing."""
    relay = Relay(pool, client)
    events = [event(n) for n in range(20)]
    await emitted(pool, *events[:5])
    await emitted(pool, *events[5:])
    assert await relay.publish_pending() == 20
    assert await relay.publish_pending() == 0
    assert await sent(client) == events


async def test_relays_share_the_work(pool, client, monkeypatch):
    """Four relays at once: every event is sent by one of them."""
    monkeypatch.setattr(outbox, "RELAY_BATCH", 7)
    await emitted(pool, *(event(n) for n in range(100)))
    relays = [Relay(pool, client) for _ in range(4)]

    async def drain(relay):
        while await relay.publish_pending():
            pass

    await asyncio.gather(*map(drain, relays))
    assert sorted(e.batch_id for e in await sent(client)) == list(range(100))


async def test_a_dead_redis_loses_nothing(pool, client):
    """While Redis is away events wait in Postgres; when it is back they are sent."""
    async with Redis.from_url("redis://127.0.0.1:1") as nobody:
        await emitted(pool, event(1))
        with pytest.raises(RedisError):
            await Relay(pool, nobody).publish_pending()
    assert await pool.fetchval("select count(*) from control.outbox where published_at is null") == 1
    assert await Relay(pool, client).publish_pending() == 1
    assert [e.batch_id for e in await sent(client)] == [1]


async def test_only_what_somebody_lacks_is_sent_again(pool, client):
    """Each consumer must have the event in its inbox; one that has not gets it again, the rest is settled."""
    relay = Relay(pool, client, resend_after=30)
    full, half = event(1), event(2)
    await emitted(pool, full, half)
    await relay.publish_pending()
    await handled_by(pool, full, "promoter", "status")
    await handled_by(pool, half, "status")

    assert await relay.sweep() == 0  # it is too early
    await age(pool, 31)
    assert await relay.sweep() == 1
    assert [e.batch_id for e in await sent(client)] == [1, 2, 2]
    assert await pool.fetchval("select count(*) from control.outbox where settled_at is null") == 1

    await age(pool, 31)
    assert await relay.sweep() == 0  # the second time after twice as long
    await age(pool, 31)
    assert await relay.sweep() == 1
    await handled_by(pool, half, "promoter")
    await age(pool, 10_000)
    assert await relay.sweep() == 0
    assert await pool.fetchval("select count(*) from control.outbox where settled_at is null") == 0


async def test_an_emptied_redis_gets_what_is_unhandled_again(pool, client):
    """FLUSHALL: what was handled stays handled, what was not is sent again from Postgres."""
    relay = Relay(pool, client, resend_after=0)
    done, lost = event(1), event(2)
    await emitted(pool, done, lost)
    await relay.publish_pending()
    await handled_by(pool, done, "promoter", "status")
    await client.flushall()
    assert await relay.sweep() == 1
    assert [e.batch_id for e in await sent(client)] == [2]


async def test_an_event_goes_to_the_stream_of_its_type(pool, client):
    """One stream an event type; the consumers are written down with the event."""
    problem = Problem(code="x", message="m", action="a")
    failed = JobFailed(connection_id=1, brand_id="acme", job_id=1, kind="audit", problem=problem)
    await emitted(pool, event(1), failed)
    await Relay(pool, client).publish_pending()
    assert await client.xlen(stream_name(JobFailed)) == await client.xlen(STREAM) == 1
    consumers = await pool.fetch("select event_type, consumers from control.outbox order by id")
    assert [tuple(row) for row in consumers] == [
        ("StagedBatch", ["promoter", "status"]),
        ("JobFailed", ["status"]),
    ]


async def test_an_event_of_a_newer_version_waits_for_it_and_holds_up_nobody(pool, client):
    """After a release was taken back: its new event types are sent by who knows them."""
    await emitted(pool, event(1), event(2))
    await pool.execute("update control.outbox set event_type = 'OfTomorrow' where id = 1")
    relay = Relay(pool, client, resend_after=0)
    assert await relay.publish_pending() == 1
    await relay.sweep()
    assert {e.batch_id for e in await sent(client)} == {2}
    assert await pool.fetchval("select published_at is null from control.outbox where id = 1")


async def test_the_running_relay_is_woken_by_the_commit(pool, client, until, monkeypatch):
    """Nobody waits for the next look: a commit's notification sends its events at once."""
    monkeypatch.setattr(outbox, "RELAY_IDLE", 60.0)
    relay = asyncio.create_task(Relay(pool, client).run())
    try:
        for number in range(1, 4):
            await emitted(pool, event(number))
            await until(lambda: _sent_so_many(client, number), 5)  # noqa: B023 - awaited here
    finally:
        relay.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await relay


async def _sent_so_many(client, number):
    return await client.xlen(STREAM) == number
