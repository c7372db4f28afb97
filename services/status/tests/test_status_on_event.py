"""The handler and its SQL, against a real Postgres: rows, versions, epochs, notifications."""

from __future__ import annotations

import asyncio
import json

import pytest
from status_history import Story, first_sync

from shared.db import connect, load_queries
from shared.events import BulkFinished
from shared.outbox import emit
from status.on_event import ProgressWriter, missing_scopes

WANTED = ["read_orders", "read_all_orders", "read_customers"]


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def connection(pool, brand="acme", scopes=()) -> int:
    return await pool.fetchval(
        "insert into control.connections (brand_id, shop, scopes) values ($1, $2, $3) returning id",
        brand,
        f"{brand}.myshopify.com",
        list(scopes),
    )


async def tell(pool, *events) -> None:
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *events)


async def handle(pool, *events) -> None:
    """Told, then handled one by one."""
    known = set(await pool.fetch("select event_id from control.outbox"))
    await tell(pool, *(event for event in events if (event.event_id,) not in known))
    writer = ProgressWriter(pool, WANTED)
    for event in events:
        await writer.take(event)


async def row(pool, connection_id):
    return await pool.fetchrow("select * from control.progress where connection_id = $1", connection_id)


async def test_every_query_is_valid_against_the_migrated_database(pool):
    """A named query that Postgres cannot prepare is found here, not in production."""
    async with pool.acquire() as one:
        for name, sql in load_queries("status").items():
            assert await one.prepare(sql), name


async def test_a_history_ends_in_a_live_document_and_each_event_is_a_version(pool):
    """The stored document is what readers of the table see."""
    story = Story(await connection(pool))
    events = first_sync(story)
    await handle(pool, *events)
    stored = await row(pool, 1)
    assert (stored["document"]["syncStatus"], stored["document"]["percent"]) == ("live", 100.0)
    assert stored["version"] == stored["document"]["version"] == len(events)


async def test_an_event_that_comes_twice_counts_once(pool):
    """The inbox and the progress change in one transaction."""
    story = Story(await connection(pool))
    job = story.queued("bulk_orders", orders=100)
    batch = list(story.batch(job, {"orders": 40}, "bulk"))
    await handle(pool, job, *batch)
    await handle(pool, *batch, job)
    stored = await row(pool, 1)
    assert stored["document"]["resources"][0]["promoted"] == 40
    assert stored["version"] == 3


async def test_events_at_the_same_moment_are_all_counted(pool):
    """Two replicas get every event at once; each counts once, and the first one makes the row."""
    story = Story(await connection(pool))
    job = story.queued("bulk_orders", orders=100)
    batches = [event for _ in range(20) for event in story.batch(job, {"orders": 5}, "bulk")]
    await tell(pool, job, *batches)
    replicas = [ProgressWriter(pool, WANTED) for _ in range(2)]
    await asyncio.gather(*(replica.take(event) for event in [job, *batches] for replica in replicas))
    stored = await row(pool, 1)
    assert (stored["version"], stored["document"]["resources"][0]["promoted"]) == (41, 100)


async def test_an_event_of_a_connection_that_is_gone_is_settled_without_a_trace(pool):
    """Nothing to show is no reason to try again."""
    await handle(pool, Story(connection_id=77).connected())
    assert await pool.fetchval("select count(*) from control.progress") == 0
    assert await pool.fetchval("select count(*) from control.inbox") == 1


async def test_a_removal_begins_a_new_epoch_and_versions_go_on(pool):
    """What a client remembers of the old connection is not taken for the new one."""
    story = Story(await connection(pool))
    await handle(pool, story.connected())
    before = await row(pool, 1)
    await handle(pool, story.removed())
    after = await row(pool, 1)
    assert (before["epoch"] != after["epoch"], after["version"]) == (True, 2)


async def test_state_that_cannot_be_read_is_read_anew_from_the_history(pool):
    """A view is rebuilt rather than an event buried, and nothing of it is lost."""
    story = Story(await connection(pool))
    job = story.queued("bulk_orders", orders=100)
    await handle(pool, story.connected(), job, *story.batch(job, {"orders": 40}, "bulk"))
    before = await row(pool, 1)
    await pool.execute("""update control.progress set state = '{"jobs": 3}'""")
    await handle(pool, *story.batch(job, {"orders": 10}, "bulk"))
    after = await row(pool, 1)
    assert after["document"]["resources"][0]["promoted"] == 50
    assert after["document"]["shop"] == "acme.myshopify.com"
    assert after["epoch"] != before["epoch"]


async def test_a_removal_ends_at_nothing_also_where_state_is_read_anew(pool):
    """What was shown last is no floor for a store that was disconnected since."""
    story = Story(await connection(pool))
    await handle(pool, *first_sync(story))
    assert (await row(pool, 1))["document"]["percent"] == 100
    await pool.execute("""update control.progress set state = '{"jobs": 3}'""")
    await handle(pool, story.removed())
    assert (await row(pool, 1))["document"]["percent"] == 0


async def test_one_event_that_cannot_be_counted_does_not_take_its_neighbours_along(pool):
    """Events that share a transaction are tried one by one when it fails."""
    story = Story(await connection(pool))
    good, bad = story.connected(), BulkFinished(**story.who, gid="gid://1", shopify_status="COMPLETED")
    await tell(pool, good, bad)
    writer = ProgressWriter(pool, WANTED)
    came = await asyncio.gather(*(writer.take(event) for event in (bad, good)), return_exceptions=True)
    assert (type(came[0]), came[1]) == (TypeError, None)
    assert (await row(pool, 1))["version"] == 1


async def test_whoever_listens_is_told_which_connection_changed(pool):
    """The payload is the connection's id, after the commit."""
    story = Story(await connection(pool))
    told: asyncio.Queue[str] = asyncio.Queue()

    def hear(*word: object) -> None:
        told.put_nowait(word[-1])

    async with pool.acquire() as listener:
        await listener.add_listener("backstock_progress", hear)
        await handle(pool, story.connected())
        assert await asyncio.wait_for(told.get(), 5) == "1"
        await listener.remove_listener("backstock_progress", hear)


async def test_scopes_that_were_not_granted_are_named(pool):
    """The document says what the data lack and why."""
    story = Story(await connection(pool, scopes=["read_orders", "write_customers"]))
    await handle(pool, story.connected())
    document = (await row(pool, 1))["document"]
    assert document["limits"] == {"historyLimitedTo60Days": True, "missingScopes": ["read_all_orders"]}
    assert json.dumps(document)


def test_scopes_not_yet_known_are_not_called_missing():
    """Before the token was asked, nobody can tell."""
    assert missing_scopes(WANTED, []) == ()
    assert missing_scopes(WANTED, ["write_orders", "read_all_orders", "read_customers"]) == ()
