"""A database of the test's own, and a store whose batches are promoted in it."""

from __future__ import annotations

import json

import asyncpg
import pytest
from promotion import new_store


@pytest.fixture
async def db(database_url):
    """A connection to the test's own database."""
    connection = await asyncpg.connect(database_url)
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    yield connection
    await connection.close()


@pytest.fixture
async def store(db):
    """One connected store."""
    return await new_store(db)
