"""Reading progress anew and deleting old events, against a real Postgres."""

from __future__ import annotations

import asyncio
import random

import pytest
from status_history import Story, first_sync

from shared.db import connect
from shared.dead_letters import bury
from shared.errors import LeaseLostError
from shared.lease import lease
from shared.outbox import emit
from status import prune
from status.history import delete_events
from status.on_event import ProgressWriter
from status.rebuild import rebuild

SHOWN = "select state::text, document::text, version, epoch from control.progress where connection_id = $1"


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def store(pool, brand="acme") -> Story:
    connection_id = await pool.fetchval(
        "insert into control.connections (brand_id, shop) values ($1, $1 || '.myshopify.com') returning id",
        brand,
    )
    return Story(connection_id, brand)


async def tell(pool, *events) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *events)


async def count(pool, *events) -> None:
    writer = ProgressWriter(pool, ())
    await asyncio.gather(*(writer.take(event) for event in events))


async def settle(pool, *events) -> None:
    """As if every other service had handled them, too."""
    ids = [event.event_id for event in events]
    await pool.execute(
        "update control.outbox set published_at = now(), settled_at = now() - interval '1 hour' "
        "where event_id = any($1)",
        ids,
    )


async def delete(pool, limit=1000) -> int:
    async with pool.acquire() as tx, tx.transaction():
        return await delete_events(tx, 60.0, limit)


async def test_a_rebuild_is_the_live_model_byte_for_byte_whatever_was_deleted(pool):
    """Two stores, events in any order and some twice, deletions in between: nothing changes, no new epoch."""
    draw = random.Random(5)
    stories = [await store(pool), await store(pool, "other")]
    events = [event for story in stories for event in first_sync(story)]
    await tell(pool, *events)
    draw.shuffle(events)
    for start in range(0, len(events), 40):
        part = events[start : start + 40]
        await count(pool, *part, *draw.sample(part, 5))
        await settle(pool, *draw.sample(part, len(part) // 2))
        await delete(pool, limit=15)
        for story in stories:
            before = await pool.fetchrow(SHOWN, story.who["connection_id"])
            done = await rebuild(pool, story.who["connection_id"], ())
            assert not done.changed
            assert await pool.fetchrow(SHOWN, story.who["connection_id"]) == before
    assert 0 < done.folded < done.events == len(first_sync())
    assert await pool.fetchval("select count(*) from control.outbox") < len(events)


async def test_a_wrong_model_is_corrected_under_a_new_epoch_and_percent_stays_unless_told(pool):
    """What was shown does not fall for those who watch; `--reset` lets it."""
    story = await store(pool)
    job = story.queued("bulk_orders", orders=100)
    events = [story.connected(), job, *story.batch(job, {"orders": 40}, "bulk")]
    await tell(pool, *events)
    await count(pool, *events)
    right = await pool.fetchrow(SHOWN, 1)
    await pool.execute(
        "update control.progress set state = jsonb_set(state, '{jobs,bulk_orders,promoted,orders}', '99'), "
        "document = jsonb_set(document, '{percent}', '77.0')"
    )
    done = await rebuild(pool, 1, ())
    now = await pool.fetchrow("select *, state::text as text from control.progress")
    assert (done.changed, done.events, now["version"]) == (True, 4, 5)
    assert (now["document"]["resources"][0]["promoted"], now["document"]["percent"]) == (40, 77)
    assert now["epoch"] != right["epoch"]
    await rebuild(pool, 1, (), reset=True)
    assert (await pool.fetchrow(SHOWN, 1))["state"] == right["state"]


async def test_a_rebuild_beside_the_running_service_counts_each_event_once(pool):
    """Writers, rebuilds and deletions at the same time."""
    story = await store(pool)
    job = story.queued("bulk_orders", orders=1000)
    events = [job, *(e for _ in range(60) for e in story.batch(job, {"orders": 5}, "bulk"))]
    await tell(pool, *events)
    await settle(pool, *events)  # the service's own inbox row is what deletion must wait for
    await pool.execute("update control.outbox set settled_at = null")
    writers = [ProgressWriter(pool, ()) for _ in range(2)]

    async def settle_and_delete():
        await pool.execute(
            "update control.outbox o set settled_at = now() - interval '1 hour' "
            "where exists (select from control.inbox i where i.event_id = o.event_id)"
        )
        await delete(pool, limit=20)

    work = [writer.take(event) for event in events for writer in writers]
    work += [rebuild(pool, 1, ()) for _ in range(6)]
    work += [settle_and_delete() for _ in range(6)]
    random.Random(3).shuffle(work)
    await asyncio.gather(*work)
    document = await pool.fetchval("select document from control.progress")
    assert document["resources"][0]["promoted"] == 300
    assert not (await rebuild(pool, 1, ())).changed


async def test_what_is_not_handled_or_put_aside_is_neither_counted_nor_deleted(pool):
    """A dead letter can be sent again, and counts then; one that was dropped goes, and never counts."""
    story = await store(pool)
    job = story.queued("bulk_orders", orders=100)
    staged, promoted = story.batch(job, {"orders": 40}, "bulk")
    await tell(pool, job, staged, promoted)
    await count(pool, job)
    async with pool.acquire() as tx, tx.transaction():
        await bury(
            tx,
            event_id=promoted.event_id,
            event_type="Promoted",
            service="status",
            payload="{}",
            error=TypeError("x"),
            deliveries=6,
            event=None,
        )
    await settle(pool, job, promoted)
    assert (await rebuild(pool, 1, ())).events == 1
    assert await delete(pool) == 1
    left = await pool.fetch("select event_type from control.outbox order by id")
    assert [row["event_type"] for row in left] == ["StagedBatch", "Promoted"]
    await pool.execute("update control.dead_letters set dropped_at = now()")
    assert await delete(pool) == 1
    assert (await rebuild(pool, 1, ())).events == 1


async def test_an_event_that_was_counted_and_deleted_is_not_counted_again(pool):
    """Also when its inbox row has gone the same way and Redis hands it out once more."""
    story = await store(pool)
    event = story.connected()
    await tell(pool, event)
    await count(pool, event)
    await settle(pool, event)
    await delete(pool)
    await pool.execute("delete from control.inbox")
    await count(pool, event)
    assert await pool.fetchval("select version from control.progress") == 1


async def test_one_replica_at_a_time_deletes_what_is_old_enough(pool, monkeypatch):
    """Batch by batch until nothing is left to delete; a lost lease stops it before it deletes anything."""
    monkeypatch.setattr(prune, "BATCH", 7)
    story = await store(pool)
    events = first_sync(story)
    await tell(pool, *events)
    await count(pool, *events)
    await settle(pool, *events[5:])
    pruner = prune.Pruner(pool, keep_days=1 / 24 / 2)
    async with lease(pool, "prune-events") as held:
        await pool.execute("update control.leases set epoch = epoch + 1")
        with pytest.raises(LeaseLostError):
            await pruner.prune(held)
        assert await pool.fetchval("select count(*) from control.outbox") == len(events)
        await pool.execute("update control.leases set epoch = epoch - 1")
        assert await pruner.prune(held) == len(events) - 5
    assert not (await rebuild(pool, 1, ())).changed
