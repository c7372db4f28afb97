"""The `backstock` command itself, run as a user runs it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from backstock.ports import free_port

BACKSTOCK = Path(sys.executable).parent / "backstock"
ENDS_WITHIN = 60


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder with no settings but those given."""

    def run(*arguments, **settings):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "200", "TERM": "dumb"} | settings
        return subprocess.run(
            [BACKSTOCK, *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN,
            check=False,
        )

    return run


def one_line(result):
    """What a failed command said: exactly one line, no traceback, nothing on stdout."""
    assert result.returncode == 1, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def test_migrate_says_what_it_did(run, postgres_server):
    """An up-to-date database is told so; a missing one is named with the setting."""
    assert "DATABASE_URL is missing" in one_line(run("migrate"))
    url = postgres_server.url()
    assert "applied 0001_" in run("migrate", DATABASE_URL=url).stdout
    assert "up to date" in run("migrate", DATABASE_URL=url).stdout


def test_rebuild_progress_says_what_it_found(run, database_url):
    """Each brand with its events, and whether what was shown was right; an unknown brand is one line."""

    async def prepare():
        connection = await asyncpg.connect(database_url)
        await connection.execute("insert into control.connections (brand_id, shop) values ('acme', 'a.b')")
        await connection.close()

    asyncio.run(prepare())
    first = run("rebuild-progress", "acme", DATABASE_URL=database_url).stdout
    assert "corrected" in first
    assert "connecting" in first
    assert "was right" in run("rebuild-progress", "--all", DATABASE_URL=database_url).stdout
    assert "no store is connected for brand 'b'" in one_line(
        run("rebuild-progress", "b", DATABASE_URL=database_url)
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rebuild-progress"], "name a brand, or say --all"),
        (["rebuild-progress", "b", "--all"], "name a brand, or say --all"),
        (["rebuild-progress", "b"], "DATABASE_URL is missing"),
        (["up", "--only", "ingres"], "there is no service 'ingres'; the services are ingress"),
        (["up", "--demo", "--only", "ingress"], "leave --only out"),
        (["status", "b"], "BACKSTOCK_API_KEY is missing"),
    ],
)
def test_a_wrong_call_is_one_line(run, arguments, says):
    """Nothing is started, and the line says what is right."""
    assert says in one_line(run(*arguments))


def test_up_with_a_wrong_setting_names_it(run, database_url, redis_url):
    """The services' own check speaks before any of them is started."""
    stores = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    assert "SHOPIFY_CLIENT_SECRET is missing" in one_line(run("up", "--only", "promoter", **stores))
    assert "RECENT_DAYS" in one_line(
        run("up", "--only", "promoter", RECENT_DAYS="soon", SHOPIFY_CLIENT_SECRET="x", **stores)
    )


def test_commands_that_need_the_services_say_how_to_start_them(run):
    """Nothing answers at the default address, or the one that is set."""
    said = one_line(run("status", "b", BACKSTOCK_API_KEY="k" * 20, STATUS_URL="http://127.0.0.1:9"))
    assert "status does not answer at http://127.0.0.1:9" in said
    assert "backstock up" in said


def test_doctor_checks_everything_and_fails_if_something_is_wrong(run, database_url, redis_url):
    """A line per subject; exit code 1 as long as one of them is wrong."""
    binds = {"INGRESS_BIND": "127.0.0.1:0", "STATUS_BIND": "127.0.0.1:0"}
    bad = run("doctor", **binds)
    assert bad.returncode == 1
    assert "wrong settings: SHOPIFY_CLIENT_SECRET is missing" in bad.stdout
    good = run("doctor", DATABASE_URL=database_url, REDIS_URL=redis_url, SHOPIFY_CLIENT_SECRET="x", **binds)
    assert good.returncode == 0, good.stdout + good.stderr
    for subject in ("settings", "Postgres", "Redis", "ingress", "status"):
        assert f"ok    {subject}: " in good.stdout


async def test_up_runs_until_it_is_told_to_stop(tmp_path, run, database_url, redis_url, until):
    """It says when all runs; a second one in the folder is refused; SIGTERM ends it in order, exit code 0."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SHOPIFY_CLIENT_SECRET": "x",
    }
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do meanwhile
            [BACKSTOCK, "up", "--only", "promoter"], cwd=tmp_path, env=env, stdout=out, stderr=out
        )
    try:
        await until(lambda: "Running: promoter" in log.read_text(), timeout=40)
        assert "API key (kept in " in log.read_text()
        assert (tmp_path / ".backstock/running.env").exists()
        assert "already running" in one_line(run("up", "--only", "promoter"))
    finally:
        up.send_signal(signal.SIGTERM)
        code = up.wait(30)
    assert code == 0, log.read_text()
    assert "Stopped." in log.read_text()
    assert not (tmp_path / ".backstock/running.env").exists()


async def test_up_needs_no_way_in_from_outside(tmp_path, run, database_url, redis_url, until):
    """Public addresses that lead nowhere yet: it starts, the commands reach it, and its links are public."""
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SHOPIFY_CLIENT_SECRET": "x",
        "INGRESS_URL": "https://ingress.invalid",
        "STATUS_URL": "https://status.invalid",
        "INGRESS_BIND": f"127.0.0.1:{free_port()}",
        "STATUS_BIND": f"127.0.0.1:{free_port()}",
    }
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "200"} | settings
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen([BACKSTOCK, "up"], cwd=tmp_path, env=env, stdout=out, stderr=out)  # noqa: ASYNC220
    try:
        await until(lambda: "Running: ingress" in log.read_text(), timeout=40)
        assert "Dashboard: https://status.invalid/" in log.read_text()
        assert "no brand 'b'" in one_line(run("status", "b", **settings))
        assert "no brand 'b'" in one_line(run("disconnect", "b", **settings))
        assert run("doctor", **settings).returncode == 0
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(30)
