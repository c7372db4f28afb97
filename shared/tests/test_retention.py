"""What is old goes, what somebody still needs stays: a real Postgres."""

from __future__ import annotations

from uuid import uuid4

import pytest

from shared import retention
from shared.db import connect
from shared.retention import Retention

OLD, NEW = "now() - interval '200 days'", "now()"
SETTLED, OPEN = uuid4(), uuid4()


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def test_only_what_is_old_and_needed_by_nobody_goes(pool, monkeypatch):
    """Of each kind the old one goes; an event still in the outbox, an open letter, an open batch stay."""
    monkeypatch.setattr(retention, "ROWS", 1)  # so that it takes several statements
    connection = await pool.fetchval(
        "insert into control.connections (brand_id, shop) values ('a', 'a.myshopify.com') returning id"
    )
    await pool.execute(
        "insert into control.outbox (event_id, event_type, payload, consumers) "
        "values ($1, 'Promoted', '{}', '{status}')",
        SETTLED,
    )
    for event in (SETTLED, OPEN, uuid4(), uuid4()):
        await pool.execute(
            f"insert into control.inbox (event_id, service, handled_at) values ($1, 's', {OLD})", event
        )
    letter = "insert into control.dead_letters (event_id, event_type, service, payload, error, deliveries, "
    await pool.execute(f"{letter} died_at) values ($1, 'Promoted', 's', '', '', 1, {OLD})", OPEN)
    await pool.execute(f"{letter} replayed_at) values ($1, 'Promoted', 's', '', '', 1, {OLD})", uuid4())
    for at in (OLD, NEW, "null"):
        await pool.execute(
            "insert into control.batches (connection_id, source, rows, staged_at, promoted_at) "
            f"values ($1, 'bulk', '{{}}', {OLD}, {at})",
            connection,
        )
    for name, at in (("old", OLD), ("new", NEW)):
        await pool.execute(
            "insert into control.webhook_deliveries (connection_id, webhook_id, topic, received_at) "
            f"values ($1, $2, 't', {at})",
            connection,
            name,
        )
    assert await Retention(pool).forget() == {
        "forget_inbox": 2,
        "forget_deliveries": 1,
        "forget_letters": 1,
        "forget_batches": 1,
    }
    assert not any((await Retention(pool).forget()).values())
    left = await pool.fetch("select event_id from control.inbox")
    assert {row["event_id"] for row in left} == {SETTLED, OPEN}
