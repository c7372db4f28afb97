"""What stops `backstock up` stops it before anything is made, and in one line."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstock.ports import free_port

COMMANDS = Path(sys.executable).parent
ENDS_WITHIN = 60.0  # seconds
SECRET = {"SHOPIFY_CLIENT_SECRET": "x"}
INFO = b"redis_version:6.2.14\r\n"


@pytest.fixture
def up(server_folder):
    """Runs `backstock up` in an empty folder; its one line on stderr, after a look that nothing was made."""

    def run(**settings) -> str:
        result = subprocess.run(
            [COMMANDS / "backstock", "up"],
            cwd=server_folder,
            env=environment(server_folder, settings),
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN,
            check=False,
        )
        assert result.returncode == 1, result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert not (server_folder / ".backstock/postgres").exists()
        return result.stderr

    return run


def environment(folder, settings) -> dict[str, str]:
    binds = {f"{name}_BIND": f"127.0.0.1:{free_port()}" for name in ("INGRESS", "STATUS")}
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", "TERM": "dumb"}
    return bare | binds | settings


class OldRedis(socketserver.StreamRequestHandler):
    """Answers as 6.2 does, as far as it is asked."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                self.rfile.readline()
                words.append(self.rfile.readline().strip().upper())
            if words[0] == b"INFO":
                self.wfile.write(b"$%d\r\n%s\r\n" % (len(INFO), INFO))
            else:
                self.wfile.write(b"-ERR unknown subcommand\r\n" if words[0] == b"CLIENT" else b"+OK\r\n")


@contextmanager
def old_redis():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()


def test_settings_and_own_servers_are_checked_before_anything_is_made(up):
    """A missing secret, a Redis that is away or too old, a busy port: one line, and no database is made."""
    assert "SHOPIFY_CLIENT_SECRET is missing" in up()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        here = f"127.0.0.1:{busy.getsockname()[1]}"
        assert "set INGRESS_BIND to another address" in up(INGRESS_BIND=here, **SECRET)
    assert "REDIS_URL: no Redis answers" in up(REDIS_URL=f"redis://{here}", **SECRET)
    with old_redis() as url:
        assert "is Redis 6.2.14" in up(REDIS_URL=url, **SECRET)


def test_a_home_that_is_a_file_is_told(up, server_folder):
    """No traceback."""
    (server_folder / "file").touch()
    for home in ("file", "file/below"):
        assert "BACKSTOCK_HOME: " in up(BACKSTOCK_HOME=home, **SECRET)


@pytest.mark.parametrize(("service", "setting"), [("ingress", "INGRESS_BIND"), ("promoter", "HEALTH_BIND")])
async def test_a_service_names_the_setting_of_its_busy_port(services, service, setting):
    """One line, exit code 78."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        here = f"127.0.0.1:{busy.getsockname()[1]}"
        process = await services.start(service, ready=False, **{setting: here})
        assert process.popen.wait(ENDS_WITHIN) == 78
    last = process.log.strip().splitlines()[-1]
    assert last.startswith(f"{service}: {setting}: cannot listen on {here} (")
    assert "Traceback" not in process.log


async def test_ctrl_c_while_the_database_is_made_ends_in_order(server_folder, until):
    """The terminal tells the whole group; the exit code is the shell's for Ctrl-C, and nothing failed."""
    log = server_folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do meanwhile
            [COMMANDS / "backstock", "up"],
            cwd=server_folder,
            env=environment(server_folder, SECRET),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        await until((server_folder / ".backstock/postgres/data").exists, timeout=30)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(ENDS_WITHIN) == 130, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "failed" not in log.read_text()
    assert "Traceback" not in log.read_text()
