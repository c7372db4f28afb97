"""The supervisor keeps processes running and ends them in order; its services here are small real servers."""

import os
import signal
import socket
import sys

import httpx
import pytest

from backstock.embedded import EmbeddedRedis
from backstock.errors import CommandError
from backstock.ports import free_port
from backstock.supervisor import Service, Supervisor

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2])); self.end_headers(); self.wfile.write(b"redis: ConnectionError")
    def log_message(self, *_): pass
print("hello from", sys.argv[1], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""

SAYS_WHEN_IT_ENDS = """
import signal
def end(*_):
    print("ends", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path


def service(name, code=SERVER, status="200", **more):
    port = free_port()
    argv = [sys.executable, "-c", code, str(port), status]
    return Service(name, argv, os.environ, ready_url=f"http://127.0.0.1:{port}/readyz", **more)


def supervisor(folder, *services, stores=(), lines=None):
    shown = [] if lines is None else lines
    return Supervisor(services, stores, folder, lambda name, line: shown.append((name, line)))


async def test_everything_answers_inside_and_nothing_runs_after_it(folder):
    """`running` hands over when each service is ready, and leaves no process."""
    both = service("one"), service("two")
    async with supervisor(folder, *both).running(), httpx.AsyncClient() as client:
        for one in both:
            assert (await client.get(one.ready_url)).is_success
    assert all(one.process.returncode is not None for one in both)


async def test_a_killed_service_comes_back(folder, until):
    """Whatever ended it: it is started again."""
    one = service("one")
    async with supervisor(folder, one).running(), httpx.AsyncClient() as client:
        os.kill(one.process.pid, signal.SIGKILL)
        await until(lambda: one.restarts == 1)

        async def answers():
            return (await client.get(one.ready_url)).is_success

        await until(answers, what="the service answers again")
    assert one.exit_code is not None


async def test_who_connects_while_a_service_starts_again_waits(folder, monkeypatch):
    """The socket is ours: each process in turn takes from it, and nobody is refused."""
    monkeypatch.setattr("backstock.supervisor.FIRST_BACKOFF", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/readyz"
        one = Service(
            "one", [sys.executable, "-c", TAKES_OVER], os.environ, url, listeners={"BIND": listener}
        )
        async with supervisor(folder, one).running(), httpx.AsyncClient(timeout=30) as client:
            for times in range(1, 4):  # each process answers once, and ends
                assert (await client.get(url)).is_success
                assert one.restarts >= times


TAKES_OVER = """
import http.server, os, socket
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
server.socket = socket.socket(fileno=int(os.environ["BIND"].removeprefix("fd://")))
server.handle_request()
"""


async def test_a_service_that_leaves_in_order_comes_back_too(folder, until):
    """Exit code 0 is no reason to stay away: a consumer whose stream is gone ends with it."""
    leaver = service("leaver", SERVER.replace(".serve_forever()", ".handle_request()"))
    async with supervisor(folder, leaver).running():
        await until(lambda: leaver.restarts >= 1)


async def test_lines_go_to_the_screen_and_to_a_file_of_the_service(folder):
    """Each line is shown under its service's name and kept in logs/NAME.log."""
    lines = []
    one = service("one")
    async with supervisor(folder, one, lines=lines).running():
        pass
    said = next(line for name, line in lines if name == "one")
    assert said.startswith("hello from")
    assert said in (folder / "logs" / "one.log").read_text()


async def test_a_service_that_is_never_ready_is_named(folder, monkeypatch):
    """The message says who is not ready and what its readiness answered."""
    monkeypatch.setattr("backstock.supervisor.READY_WITHIN", 1.0)
    with pytest.raises(CommandError, match=r"not ready .*slow: 503 redis: ConnectionError"):
        async with supervisor(folder, service("fine"), service("slow", status="503")).running():
            pytest.fail("not ready, yet handed over")


async def test_a_wrong_setting_ends_the_start_with_the_services_own_words(folder):
    """Exit code 78 is final: the line that the service said is the message."""
    code = "import sys; print('RECENT_DAYS is not a number: give one', flush=True); sys.exit(78)"
    with pytest.raises(CommandError, match="RECENT_DAYS is not a number: give one"):
        async with supervisor(folder, service("one", code)).running():
            pytest.fail("handed over")


async def test_a_service_that_only_crashes_ends_the_start(folder, monkeypatch):
    """A crash at each start is told at once, not after the time for slow starts."""
    monkeypatch.setattr("backstock.supervisor.FIRST_BACKOFF", 0.01)
    with pytest.raises(CommandError, match=r"one ended \d times .* code 3: no such table"):
        async with supervisor(
            folder, service("one", "print('no such table'); raise SystemExit(3)")
        ).running():
            pytest.fail("handed over")


async def test_a_service_that_ignores_sigterm_is_killed(folder, monkeypatch):
    """The end is bounded."""
    monkeypatch.setattr("backstock.supervisor.GRACE", 0.2)
    stubborn = service("stubborn", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER)
    async with supervisor(folder, stubborn).running():
        pass
    assert stubborn.process.returncode == -signal.SIGKILL


async def test_what_others_talk_to_while_they_end_stops_last(folder):
    """The demo's Shopify is there until the services have finished their handlers."""
    lines = []
    shop, worker = (
        service("shop", SAYS_WHEN_IT_ENDS + SERVER, stops_last=True),
        service("worker", SAYS_WHEN_IT_ENDS + SERVER),
    )
    async with supervisor(folder, shop, worker, lines=lines).running():
        pass
    assert [name for name, line in lines if line == "ends"] == ["worker", "shop"]


async def test_a_killed_store_comes_back_on_its_port(folder, server_folder, until):
    """Redis may die at any moment: the same URL works again soon."""
    store = EmbeddedRedis(server_folder / "redis", aof=False).start()
    url, pid = store.url, store.process.pid
    try:
        async with supervisor(folder, stores=[store]).running():
            os.kill(pid, signal.SIGKILL)
            await until(lambda: store.alive() and store.process.pid != pid and store.answers())
            assert store.url == url
    finally:
        store.stop()
