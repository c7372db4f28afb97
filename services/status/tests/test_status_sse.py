"""Streams one by one, without a network: lifetimes, heartbeats, limits."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared.answers import ProblemError
from status import hub as hub_module
from status import sse
from status.hub import Channel, Hub, encode
from status.snapshot import Snapshot
from status.sse import EventStream
from status.state import Progress


def snapshot(version=1, epoch="e") -> Snapshot:
    return Snapshot(1, "acme", epoch, version, Progress(shop="acme.myshopify.com"))


@pytest.fixture
async def hub(monkeypatch):
    monkeypatch.setattr(hub_module, "LOOK_EVERY", 0.01)
    hub = Hub(pool=None, dsn="")
    hub.channels["acme"] = Channel(snapshot(), encode(snapshot()), shown_at=time.monotonic())
    looking = asyncio.create_task(hub._refresh())
    yield hub
    looking.cancel()


class Wire:
    """An ASGI connection that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.left = asyncio.Event()
        self.complete = False

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message.get("body", b""))
        self.complete = message["type"] == "http.response.body" and not message["more_body"]

    @property
    def text(self) -> str:
        return b"".join(self.sent).decode()

    def got(self, version) -> bool:
        return f"id: e-{version}\n" in self.text


async def follow(hub, wire, seen="", **times) -> None:
    await EventStream(hub, "acme", seen, **times)({}, wire.receive, wire.send)


async def test_a_stream_ends_after_its_lifetime_with_a_complete_answer(hub):
    """The client comes back by itself; the answer is not cut."""
    wire = Wire()
    await asyncio.wait_for(follow(hub, wire, lifetime=0.1), 2)
    assert wire.complete
    assert wire.text.startswith("retry: 2000\n\nid: e-1\ndata: {")
    assert hub.clients == 0


async def test_silence_is_broken_by_comments(hub):
    """Proxies close silent connections."""
    wire = Wire()
    await follow(hub, wire, lifetime=0.2, heartbeat=0.05)
    assert wire.text.count(": still here\n\n") >= 2


async def test_a_client_that_leaves_ends_its_stream_at_once(hub, until):
    """No waiting for the next heartbeat to find out."""
    wire = Wire()
    task = asyncio.create_task(follow(hub, wire))
    await until(lambda: wire.got(1))
    assert hub.clients == 1
    wire.left.set()
    await asyncio.wait_for(task, 1)
    assert (hub.clients, hub.channels) == (0, {})


async def test_a_cancelled_stream_completes_its_answer(hub, until):
    """The end of the process is a clean end for the client."""
    wire = Wire()
    task = asyncio.create_task(follow(hub, wire))
    await until(lambda: wire.got(1))
    task.cancel()
    await asyncio.wait_for(task, 1)
    assert wire.complete


async def test_a_slow_client_skips_to_the_newest_version(hub, until):
    """One frame is pending at most: what it missed meanwhile is not sent later."""
    wire, gate = Wire(), asyncio.Event()

    async def slow_send(message):
        await wire.send(message)
        if b"id: e-1\n" in message.get("body", b""):
            await gate.wait()

    task = asyncio.create_task(EventStream(hub, "acme", "")({}, wire.receive, slow_send))
    await until(lambda: wire.got(1))
    for version in range(2, 50):
        hub.channels["acme"].show(snapshot(version))
    gate.set()
    await until(lambda: wire.got(49))
    wire.left.set()
    await task
    assert [part for part in wire.sent if b"id: " in part][1:] == [hub_frame(wire, 49)]


def hub_frame(wire, version) -> bytes:
    return next(part for part in wire.sent if f"id: e-{version}\n".encode() in part)


async def test_all_clients_of_a_brand_share_one_encoded_frame(hub, until):
    """A frame is encoded once a version, not once a client."""
    wires = [Wire() for _ in range(50)]
    tasks = [asyncio.create_task(follow(hub, wire)) for wire in wires]
    await until(lambda: all(wire.got(1) for wire in wires))
    before = hub_module.frames_encoded._value.get()
    hub.channels["acme"].show(snapshot(2))
    await until(lambda: all(wire.got(2) for wire in wires))
    assert hub_module.frames_encoded._value.get() - before == 1
    assert len({id(wire.sent[-1]) for wire in wires}) == 1
    for wire in wires:
        wire.left.set()
    await asyncio.gather(*tasks)


async def test_a_full_process_sends_clients_away_with_a_time_to_come_back(hub, monkeypatch):
    """A bound on clients protects those who are there."""
    monkeypatch.setattr(hub_module, "MAX_CLIENTS", 1)
    await hub.join("acme")
    with pytest.raises(ProblemError) as refused:
        await hub.join("acme")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "10")


async def test_one_brand_cannot_take_all_the_room(hub, monkeypatch):
    """Another brand's page still finds a place."""
    monkeypatch.setattr(hub_module, "MAX_BRAND_CLIENTS", 1)
    other = Snapshot(2, "other", "e", 1, Progress())
    hub.channels["other"] = Channel(other, encode(other), shown_at=time.monotonic())
    await hub.join("acme")
    with pytest.raises(ProblemError):
        await hub.join("acme")
    assert await hub.join("other")


async def test_a_client_that_never_reads_loses_its_place_after_its_lifetime(hub, monkeypatch):
    """Its message waits in vain; the place is somebody else's then."""
    monkeypatch.setattr(sse, "STALLED", 0.05)
    wire = Wire()

    async def never(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await asyncio.wait_for(EventStream(hub, "acme", "", lifetime=0.05)({}, wire.receive, never), 2)
    assert (hub.clients, hub.channels) == (0, {})


async def test_clients_are_sent_off_one_by_one_when_the_process_ends(hub, until):
    """Each gets a time of its own to come back, and a complete answer."""
    wires = [Wire() for _ in range(20)]
    tasks = [asyncio.create_task(follow(hub, wire)) for wire in wires]
    await until(lambda: all(wire.got(1) for wire in wires))
    hub.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 1)
    assert all(wire.complete for wire in wires)
    assert len({wire.text.rpartition("retry: ")[2] for wire in wires}) > 10
