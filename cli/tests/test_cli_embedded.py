"""Postgres and Redis of our own: they persist, survive crashes, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import redis

from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.ports import port_is_free
from backstock.server import AlreadyRunningError, EmbeddedServerError

LAUNCHER = """
import sys, pathlib
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
folder = pathlib.Path(sys.argv[1])
postgres, redis = EmbeddedPostgres(folder / "postgres").start(), EmbeddedRedis(folder / "redis").start()
print(postgres.process.pid, redis.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def postgres(server_folder):
    server = EmbeddedPostgres(server_folder / "postgres", durable=False).start()
    yield server
    server.stop()


@pytest.fixture
def embedded_redis(server_folder):
    server = EmbeddedRedis(server_folder / "redis").start()
    yield server
    server.stop()


async def execute(url, *statements):
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def test_rows_and_address_outlive_a_restart(postgres):
    """After stop and start the same URL leads to the same rows."""
    before = postgres.url()
    await execute(before, "create table kept (x int)", "insert into kept values (1)", "select 1")
    postgres.stop()
    postgres.start()
    assert postgres.url() == before
    assert await execute(before, "select count(*) from kept") == 1


async def test_rows_outlive_a_killed_server(server_folder):
    """A durable server killed with -9 starts again on its folder, committed rows intact."""
    server = EmbeddedPostgres(server_folder / "postgres").start()
    try:
        await execute(server.url(), "create table kept (x int)", "insert into kept values (1)", "select 1")
        server.process.kill()
        server.process.wait()
        assert not server.alive()
        server.start()
        assert await execute(server.url(), "select count(*) from kept") == 1
    finally:
        server.stop()


async def test_a_process_number_in_use_by_somebody_else_blocks_no_start(postgres):
    """After a reboot the old pid may be another program's: it is left alone and the server starts."""
    postgres.stop()
    (postgres.home / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.home / 'data'}\n")
    postgres.start()
    assert await execute(postgres.url(), "select 1") == 1


async def test_postgres_asks_for_the_password(postgres):
    """Other users of the machine do not get in."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url().replace(postgres.password, "guess"))


async def test_postgres_is_set_up_as_asked(postgres):
    """Settings reach the server; it listens on this machine only, and orders text alike everywhere."""
    assert await execute(postgres.url(), "show listen_addresses") == "127.0.0.1"
    assert await execute(postgres.url(), "show max_connections") == "200"
    assert await execute(postgres.url(), "show server_encoding") == "UTF8"
    assert int(await execute(postgres.url(), "show server_version_num")) >= 150000


def test_a_folder_takes_one_server(postgres, server_folder):
    """A second start on the same folder says that one is running."""
    with pytest.raises(AlreadyRunningError, match="already running"):
        EmbeddedPostgres(server_folder / "postgres").start()


def test_a_taken_port_is_replaced(embedded_redis):
    """The remembered port may be somebody else's by now."""
    port = embedded_redis.port
    embedded_redis.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        assert not port_is_free(port)
        embedded_redis.start()
    assert embedded_redis.port != port


def test_redis_keeps_its_data_and_asks_for_the_password(embedded_redis):
    """Keys outlive a restart; nobody reads them without the password."""
    with redis.Redis.from_url(embedded_redis.url) as client:
        client.set("kept", "yes")
    embedded_redis.stop()
    embedded_redis.start()
    with redis.Redis.from_url(embedded_redis.url) as client:
        assert client.get("kept") == b"yes"
    with redis.Redis(port=embedded_redis.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("kept")


def test_a_server_that_cannot_start_names_its_log(embedded_redis):
    """The message holds the reason and where more of it stands."""
    embedded_redis.stop()
    data = embedded_redis.home / "data"
    for manifest in data.glob("appendonlydir/*.manifest"):
        manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedServerError, match=r"did not start .*server\.log"):
        embedded_redis.start()


def test_secrets_are_readable_by_their_owner_only(postgres, embedded_redis):
    """Password files and data folders are closed to others."""
    for server in (postgres, embedded_redis):
        assert (server.home / "password").stat().st_mode & 0o077 == 0
        assert (server.home / "data").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent was killed")
async def test_a_killed_launcher_leaves_no_orphan_and_its_folder_starts_again(server_folder, until):
    """`kill -9` of the launcher ends both servers; the next start finds a usable folder."""
    launcher = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do meanwhile
        [sys.executable, "-c", LAUNCHER, server_folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        servers = [int(pid) for pid in launcher.stdout.readline().split()]
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        await until(lambda: not any(map(is_running, servers)), what="both servers end")
    server = EmbeddedPostgres(server_folder / "postgres").start()
    server.stop()


def is_running(pid):
    """A zombie that nobody has waited for does not run any more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
