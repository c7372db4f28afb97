"""What is old goes, what somebody still needs stays: a real Postgres."""

from __future__ import annotations

from uuid import uuid4

import pytest

from promoter import retention
from promoter.retention import Retention
from shared.db import connect

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
    jobs = [
        await pool.fetchval(
            "insert into control.jobs (connection_id, kind, state, ended_at) "
            f"values ($1, 'audit', 'completed', {at}) returning id",
            connection,
        )
        for at in (OLD, OLD)
    ]
    for job in jobs:
        operation = await pool.fetchval(
            "insert into control.bulk_operations (connection_id, job_id, resource, state, gid) "
            "values ($1, $2, 'orders', 'staged', $3) returning id",
            connection,
            job,
            str(job),
        )
        await pool.execute(
            "insert into control.audits (connection_id, job_id, equal, tables, audited_at) "
            f"values ($1, $2, true, '[]', {OLD})",
            connection,
            job,
        )
        for key in (f"job:{job}", f"operation:{operation}"):
            await pool.execute(
                "insert into control.leases (key, owner, expires_at) values ($1, '', '-infinity')", key
            )
    await pool.execute(
        "insert into control.leases (key, owner, expires_at) values ('token:1', '', '-infinity')"
    )
    assert await Retention(pool).forget() == {
        "forget_inbox": 2,
        "forget_deliveries": 1,
        "forget_letters": 1,
        "forget_batches": 1,
        "forget_audits": 1,
        "forget_operations": 1,
        "forget_jobs": 1,
        "forget_leases": 2,
    }
    assert not any((await Retention(pool).forget()).values())
    left = await pool.fetch("select event_id from control.inbox")
    assert {row["event_id"] for row in left} == {SETTLED, OPEN}
    assert [row["id"] for row in await pool.fetch("select id from control.jobs")] == jobs[1:]
    kept = await pool.fetch("select key from control.leases")
    assert {row["key"] for row in kept} == {"token:1", f"job:{jobs[1]}", f"operation:{operation}"}
