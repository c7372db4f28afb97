"""Bounds on connections that hold without anybody's misbehaving requests: a real server on a real socket.

Those on heads, bodies and time are attacked in tests/test_attacks.py.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn

from shared import sockets
from shared.service import _Server
from shared.sockets import ClientConnection, Gate

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
        connection = partial(ClientConnection, Gate(**gate))
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", http=connection, ws="none"))
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
