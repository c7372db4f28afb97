"""Judging a connection by its letters, on a real Postgres."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from shared.db import connect
from shared.dead_letters import Aside, erase, set_aside
from shared.secrets import TokenVault
from shared.trouble import reconsider

VAULT = TokenVault((Fernet.generate_key().decode(),))
STAGE = "insert into control.batches (connection_id, source, rows) values ($1, 'bulk', '{}')"


@pytest.fixture
async def pool(database_url):
    pool = await connect(database_url, service="test")
    yield pool
    await pool.close()


async def test_files_of_a_store_set_lines_aside_side_by_side(pool):
    """Both hold rows that refer to the connection; the judgement of one does not wait for the other's."""
    connection = await pool.fetchval(
        "insert into control.connections (brand_id, shop) values ('acme', 'a.myshopify.com') returning id"
    )
    async with pool.acquire() as one, pool.acquire() as two:
        began = [tx.transaction() for tx in (one, two)]
        for tx, transaction in zip((one, two), began, strict=True):
            await transaction.start()
            await tx.execute(STAGE, connection)
            aside = Aside(uuid4(), "bulk line orders", b"{}", ValueError("no row"), {})
            await set_aside(tx, aside, "bulk-runner", connection, VAULT, None)
        for tx, transaction in zip((one, two), began, strict=True):
            await asyncio.wait_for(reconsider(tx, connection), 5)
            await transaction.commit()
    assert await pool.fetchval("select trouble ->> 'code' from control.connections") == "set_aside"


async def test_a_privacy_request_waits_for_letters_under_way(pool, until):
    """A text that is being set aside while the request comes is erased by it."""
    connection = await pool.fetchval(
        "insert into control.connections (brand_id, shop) values ('acme', 'a.myshopify.com') returning id"
    )

    async def request():
        async with pool.acquire() as tx, tx.transaction():
            await erase(tx, connection, [207119551])

    async with pool.acquire() as tx, tx.transaction():
        text = b'{"id": 207119551, "email": "bob@example.com"}'
        aside = Aside(uuid4(), "bulk line customers", text, ValueError("no row"), {})
        await set_aside(tx, aside, "bulk-runner", connection, VAULT, None)
        asked = asyncio.create_task(request())
        waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        await until(lambda: pool.fetchval(waits))
    await asyncio.wait_for(asked, 5)
    assert await pool.fetchval("select sealed is null and dropped_at is not null from control.dead_letters")
