"""What is wrong before the start is said in one line that names the setting and the remedy."""

import pytest

from backstock.checks import check_postgres, check_redis, findings
from backstock.errors import CommandError
from backstock.ports import free_port


async def test_servers_that_serve_are_named_with_their_version(database_url, redis_url):
    """`doctor` shows what it found, without the password."""
    postgres, redis = await check_postgres(database_url), await check_redis(redis_url)
    assert postgres.startswith("Postgres 1")
    assert redis.startswith(("Redis", "Valkey"))
    assert "@" not in postgres + redis


async def test_a_server_that_is_away_is_named_with_its_setting():
    """Both lines hold the setting, the address and what to do."""
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        CommandError, match=rf"DATABASE_URL: no Postgres answers at {nobody} .*start it or correct"
    ):
        await check_postgres(f"postgresql://u:secret@{nobody}/db")
    with pytest.raises(CommandError, match=rf"REDIS_URL: no Redis answers at {nobody} .*start it or correct"):
        await check_redis(f"redis://:secret@{nobody}/0")


async def test_refused_credentials_are_told_apart_from_a_missing_server(postgres_server, redis_server):
    """A wrong password is no reason to look for the server."""
    with pytest.raises(CommandError, match="refuses this user or password"):
        await check_postgres(postgres_server.url().replace(postgres_server.password, "guess"))
    with pytest.raises(CommandError, match="refuses this user or password"):
        await check_redis(redis_server.url.replace(redis_server.password, "guess"))


async def test_a_missing_database_is_told(postgres_server):
    """The server is there, the database is not."""
    with pytest.raises(CommandError, match="no such database"):
        await check_postgres(postgres_server.url("not_there"))


async def test_a_redis_that_is_too_old_is_refused(monkeypatch, redis_server):
    """Before 7.0 a dead reader's messages could not be handed on; here everything counts as too old."""
    monkeypatch.setattr("backstock.checks.OLDEST_REDIS", 1000)
    with pytest.raises(CommandError, match=r"REDIS_URL: .* use 1000\.0 or newer, or unset REDIS_URL"):
        await check_redis(redis_server.url)


async def test_a_postgres_that_is_too_old_is_refused(monkeypatch, postgres_server):
    """The SQL needs 15; here everything counts as too old."""
    monkeypatch.setattr("backstock.checks.OLDEST_POSTGRES", 1000)
    with pytest.raises(CommandError, match=r"DATABASE_URL: .* use 1000 or newer"):
        await check_postgres(postgres_server.url())


async def test_doctor_asks_everything_even_when_something_is_wrong():
    """One failing check hides no other."""

    async def fine():
        return "here"

    async def broken():
        raise CommandError("away: start it")

    found = await findings([("one", broken()), ("two", fine())])
    assert [(each.subject, each.ok, each.detail) for each in found] == [
        ("one", False, "away: start it"),
        ("two", True, "here"),
    ]
