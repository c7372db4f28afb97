"""A TCP proxy that can be asked to misbehave: cut, refuse, stall, delay, slow down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

HOST = "127.0.0.1"
BROKEN = (OSError, RuntimeError, ValueError)  # the names that uvloop has for a closed socket, too
CHUNK = 64 * 1024  # bytes read at once
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: the peer sees a reset, not an end


@dataclass
class Mood:
    """What goes wrong until when (monotonic seconds)."""

    refuses_until: float = 0.0
    stalls_until: float = 0.0
    delays_until: float = 0.0
    delay: float = 0.0  # seconds a chunk
    slow_until: float = 0.0
    bytes_per_second: float = 0.0


class Proxy:
    """Passes bytes between whoever connects and `target()`, the port to connect to now."""

    def __init__(self, target: Callable[[], int]) -> None:
        self.target, self.mood = target, Mood()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._open):
            _reset(writer)

    def calm(self) -> None:
        """Pass everything on again."""
        self.mood = Mood()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if time.monotonic() < self.mood.refuses_until:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target())
        except OSError:
            _reset(writer)
            return
        await self._pass_both_ways((reader, writer), (far_reader, far_writer))

    async def _pass_both_ways(
        self,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        writers = {near[1], far[1]}
        self._open |= writers
        end: Callable[[asyncio.StreamWriter], None] = _reset
        try:
            await asyncio.gather(self._pass(near[0], far[1]), self._pass(far[0], near[1]))
            end = asyncio.StreamWriter.close  # both sides were done: what is still on its way arrives
        except BROKEN:
            pass
        finally:
            self._open -= writers
            for writer in writers:
                end(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            await self._hold_up(len(chunk))
            writer.write(chunk)
            await writer.drain()
        await self._hold_up(0)
        with contextlib.suppress(*BROKEN):
            writer.write_eof()

    async def _hold_up(self, size: int) -> None:
        while (now := time.monotonic()) < self.mood.stalls_until:  # noqa: ASYNC110 - a stall may grow
            await asyncio.sleep(min(0.1, self.mood.stalls_until - now))
        if now < self.mood.delays_until:
            await asyncio.sleep(self.mood.delay)
        if now < self.mood.slow_until and size:
            await asyncio.sleep(size / self.mood.bytes_per_second)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(*BROKEN):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    writer.transport.abort()
