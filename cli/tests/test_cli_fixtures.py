"""The fixtures of the root conftest do what the other tests rely on."""

import asyncpg
import redis


async def test_every_test_gets_a_migrated_database_of_its_own(database_url):
    """A test finds the migrations applied and may change what it likes."""
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from control.schema_migrations") >= 0
    await connection.execute("create table only_here (id int primary key)")
    await connection.close()


async def test_a_change_does_not_reach_the_next_test(database_url):
    """What another test created is not there."""
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select to_regclass('only_here')") is None
    await connection.close()


def test_redis_is_empty_at_the_start(redis_url):
    """Keys of an earlier test are gone."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again(redis_url):
    """Keys of the test before are gone, too."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("left") is None
