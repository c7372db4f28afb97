"""Bounds on connections that hold without anybody's misbehaving requests: a real server on a real socket.

Those on heads, bodies and time are attacked in tests/test_attacks.py.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from shared import service, sockets
from shared.service import _Server
from shared.sockets import Gate

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNK = b"x" * 2**20
WITHIN = 20.0  # seconds


class Endless:
    """An app that sends chunks until its client has gone; `gone` says so."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def __call__(self, _scope, receive, send):
        leaving = asyncio.create_task(self._leave(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            await asyncio.sleep(0)
        self.gone.set()

    async def _leave(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.fixture
def serving(until):
    """`async with serving(app, most=3) as port:` a server as services have it, with that gate."""

    @asynccontextmanager
    async def serve(app, **gate):
        server = _Server(app, Gate(**gate))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            yield listener.getsockname()[1]
            server.should_exit = server.force_exit = True
            await asyncio.wait_for(task, WITHIN)

    return serve


async def dial(port):
    return await asyncio.open_connection("127.0.0.1", port, limit=2**16)


async def test_a_client_that_does_not_read_on_is_cut_off(serving, monkeypatch):
    """Its answer waits for STALLED_FOR, and then the connection is gone; whoever reads keeps its own."""
    monkeypatch.setattr(sockets, "STALLED_FOR", 0.5)
    app = Endless()
    async with serving(app) as port:
        reader, reading = await dial(port)
        reading.write(ASK)
        await reader.readexactly(len(CHUNK))
        _, stalled = await dial(port)
        stalled.write(ASK)
        async with asyncio.timeout(WITHIN):
            while not app.gone.is_set():
                await reader.readexactly(len(CHUNK))
        await reader.readexactly(len(CHUNK))
        reading.close()
        stalled.close()


async def test_who_has_waited_longest_makes_room(serving):
    """With every place taken, a new client gets that of the oldest one that has asked nothing yet."""
    async with serving(Endless(), most=3) as port:
        served, asking = await dial(port)
        asking.write(ASK)
        await served.readexactly(len(CHUNK))
        silent = [await dial(port) for _ in range(2)]
        fresh, newest = await dial(port)
        newest.write(ASK)
        async with asyncio.timeout(WITHIN):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await silent[0][0].readexactly(1)
            await fresh.readexactly(len(CHUNK))
            await served.readexactly(len(CHUNK))
        assert not silent[1][0].at_eof()
        for writer in (asking, newest, *(writer for _, writer in silent)):
            writer.close()


@asynccontextmanager
async def two_clients(until):
    """A server that runs, a connection that has asked nothing yet, and one that has been answered."""
    server = _Server(hello, Gate())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ending = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        fresh, used = [await dial(listener.getsockname()[1]) for _ in range(2)]
        assert b"connection: close" not in await asked(used)
        await until(lambda: len(server.server_state.connections) == 2)
        server.should_exit = True
        yield server, fresh, used
        async with asyncio.timeout(WITHIN):
            assert [await reader.read() for reader, _ in (fresh, used)] == [b"", b""]
            await ending
        for _, writer in (fresh, used):
            writer.close()
            await writer.wait_closed()


async def test_a_request_on_its_way_to_a_server_that_ends_is_answered(until, monkeypatch):
    """Also on a connection that has asked nothing yet; with the answer both are closed."""
    monkeypatch.setattr(sockets, "FIRST_REQUEST_WITHIN", WITHIN)  # the test may be slow to ask
    monkeypatch.setattr(sockets, "NEXT_REQUEST_WITHIN", WITHIN)
    monkeypatch.setattr(service, "HTTP_GRACE", WITHIN)
    async with two_clients(until) as (server, fresh, used):
        await until(lambda: server.gate.closing)
        for connection in (fresh, used):
            assert b"connection: close" in await asked(connection)


async def test_who_asks_nothing_more_does_not_hold_up_the_end(until, monkeypatch):
    """Silent connections are closed, not waited for until the end's own bound."""
    monkeypatch.setattr(service, "HTTP_GRACE", 2 * WITHIN)
    async with two_clients(until):
        pass


async def hello(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def asked(connection):
    """The head of one answer, in lower case."""
    reader, writer = connection
    writer.write(ASK)
    async with asyncio.timeout(WITHIN):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
    return head.lower()
