"""Streams lose what everybody has handled, and nothing else: a real Redis, a real outbox."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from shared import outbox
from shared.db import connect
from shared.events import StagedBatch
from shared.outbox import Relay, emit, stream_name
from shared.trim import Trimmer

STREAM = stream_name(StagedBatch)


def event(batch_id: int) -> StagedBatch:
    return StagedBatch(
        connection_id=1, brand_id="brand", batch_id=batch_id, source="bulk", rows={"orders": batch_id}
    )


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def client(redis_url):
    async with Redis.from_url(redis_url) as client:
        yield client


async def ids(client) -> list[bytes]:
    return [entry for entry, _ in await client.xrange(STREAM)]


async def read(client, group: str, number: int, *, acknowledge: int) -> None:
    taken = await client.xreadgroup(group, "c", {STREAM: ">"}, count=number)
    entries = [entry for entry, _ in taken[0][1]]
    if entries[:acknowledge]:
        await client.xack(STREAM, group, *entries[:acknowledge])


async def test_only_what_every_group_has_acknowledged_goes(pool, client):
    """A group that lags, a message in work, a group that was never there: each keeps what it needs."""
    sent = [await client.xadd(STREAM, {"n": n}) for n in range(10)]
    trimmer = Trimmer(pool, client)
    await client.xgroup_create(STREAM, "promoter", id="0")
    await read(client, "promoter", 8, acknowledge=8)
    assert await trimmer.trim() == 0  # status has no group yet: all of it is new to it
    await client.xgroup_create(STREAM, "status", id="0")
    assert await trimmer.trim() == 0  # it has read nothing
    await read(client, "status", 6, acknowledge=3)
    assert await trimmer.trim() == 3
    assert await ids(client) == sent[3:]  # the fourth is delivered, and not acknowledged
    lag = {"stream": "StagedBatch", "group": "status"}
    assert REGISTRY.get_sample_value("backstock_stream_lag", lag) == 7
    assert await trimmer.trim() == 0


async def test_a_full_stream_leaves_its_events_in_the_outbox(pool, client, monkeypatch):
    """Nothing is pushed out: what does not fit waits, and is sent in its order when there is room."""
    monkeypatch.setattr(outbox, "STREAM_LENGTH", 3)
    relay = Relay(pool, client)
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *(event(n) for n in range(3)))
    assert await relay.publish_pending() == 3
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, event(3))
    assert await relay.publish_pending() == 0
    assert await client.xlen(STREAM) == 3
    for group in ("promoter", "status"):
        await client.xgroup_create(STREAM, group, id="0")
        await read(client, group, 3, acknowledge=3)
    await Trimmer(pool, client).trim()
    assert await relay.publish_pending() == 1
    assert b'"batch_id":3' in (await client.xrange(STREAM))[-1][1][b"__data__"]
