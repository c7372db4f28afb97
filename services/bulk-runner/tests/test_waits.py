"""Which waits are worth an event."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from bulk_runner.waits import Waits
from shared.db import connect
from shared.events import ShopWaits


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def test_long_waits_are_told_once_with_their_end(pool, until):
    """Not the short ones, nor what ends hardly later than what was told, nor those of a store that left."""
    await pool.execute("insert into control.connections (brand_id, shop) values ('acme', 'a.example')")
    waits = Waits(pool)
    for shop, seconds in (("a.example", 1.0), ("gone.example", 9.0), ("a.example", 5.0), ("a.example", 5.5)):
        waits.hear(shop, seconds, "points")

    async def told(count: int) -> list[ShopWaits]:
        rows = await pool.fetch("select payload from control.outbox order by id")
        assert len(rows) == count
        return [ShopWaits.model_validate_json(row["payload"]) for row in rows]

    running = asyncio.create_task(waits.run())
    (event,) = await until(lambda: told(1))
    assert (event.brand_id, event.reason) == ("acme", "points")
    assert 3 < (event.until - datetime.now(UTC)).total_seconds() <= 5
    waits.hear("a.example", 5.5, "points")
    waits.hear("a.example", 30.0, "unavailable")
    assert (await until(lambda: told(2)))[1].reason == "unavailable"
    running.cancel()
