"""Judging a connection by its letters, on a real Postgres."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from shared.db import connect
from shared.dead_letters import Aside, set_aside
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
