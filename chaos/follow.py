"""A browser that watches a brand: it comes back when the stream breaks, and remembers the percentage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import msgspec

from chaos.shop import Shop

COMES_BACK_AFTER = 0.3  # seconds
SILENCE = 25.0  # seconds without a heartbeat after which a browser's proxy hangs up


@dataclass
class Follower:
    """What one brand's client has seen."""

    brand: str
    frames: int = 0
    connections: int = 0
    percent: float = 0.0
    falls: list[str] = field(default_factory=list)

    def see(self, line: str) -> None:
        """One line of the stream."""
        if not line.startswith("data: {") or '"percent"' not in line:
            return
        percent = float(msgspec.json.decode(line.removeprefix("data: "))["percent"])
        if percent < self.percent:
            self.falls.append(f"{self.brand}: the percentage fell from {self.percent} to {percent}")
        self.percent = percent
        self.frames += 1


@asynccontextmanager
async def following(shop: Shop) -> AsyncIterator[Follower]:
    """Somebody watches the brand inside."""
    follower = Follower(shop.brand)
    watching = asyncio.create_task(_watch(shop, follower))
    try:
        yield follower
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _watch(shop: Shop, follower: Follower) -> None:
    url = f"{shop.world.status_url}/api/sync/{shop.brand}/events"
    async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=SILENCE), headers=shop.world.headers) as http:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with http.stream("GET", url) as answer:
                    follower.connections += 1
                    async for line in answer.aiter_lines():
                        follower.see(line)
            await asyncio.sleep(COMES_BACK_AFTER)
