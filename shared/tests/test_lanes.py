"""Whose turn it is, and who rests for whom."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared import lanes as module
from shared.lanes import LOOK_EVERY, REST, SHORT, Lanes
from shared.outages import OutageError

LARGE, SMALL = 1, 2
WORK = 2 * SHORT  # seconds of a turn that owes a rest


async def always(_connection_id: int) -> bool:
    return True


async def work(lanes, store):
    """A turn that takes a while; returns when it began."""
    async with lanes.turn(store):
        began = time.monotonic()
        await asyncio.sleep(WORK)
        return began


async def test_a_store_has_only_its_places():
    """Three of a store ask for its two places: another store gets the third of the process at once."""
    lanes = Lanes(at_once=3, each=2)
    leave = asyncio.Event()
    inside = []

    async def stay(store):
        async with lanes.turn(store):
            inside.append(store)
            await leave.wait()

    async with asyncio.TaskGroup() as tasks:
        for store in (LARGE, LARGE, LARGE, SMALL):
            tasks.create_task(stay(store))
        for _ in range(10):
            await asyncio.sleep(0)
        assert inside == [LARGE, LARGE, SMALL]
        leave.set()


async def test_what_a_store_has_too_much_of_is_put_back():
    """One has its turn and one waits: the next is told to come again, and when."""
    lanes = Lanes(at_once=1, each=1, waiting=1)
    async with lanes.turn(LARGE):
        waits = asyncio.create_task(work(lanes, LARGE))
        await asyncio.sleep(0)
        with pytest.raises(OutageError) as put_back:
            async with lanes.turn(LARGE):
                pass
    assert put_back.value.after > 0
    await waits


async def test_a_rest_is_as_long_as_the_turn_asks_and_holds_no_place():
    """The large store's next turn comes after REST times its last one; a small one's comes at once."""
    lanes = Lanes(at_once=1, each=1, gives_way=always)
    await work(lanes, LARGE)
    ended = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        large = tasks.create_task(work(lanes, LARGE))
        await asyncio.sleep(0)
        small = tasks.create_task(work(lanes, SMALL))
    assert large.result() - ended >= WORK * REST * 0.9
    assert small.result() < large.result() - WORK


async def test_two_places_rest_twice_as_long():
    """Whatever its places, a store that gives way keeps to the same share."""
    lanes = Lanes(at_once=2, each=2, gives_way=always)
    await work(lanes, LARGE)
    ended = time.monotonic()
    assert await work(lanes, LARGE) - ended >= 2 * WORK * REST * 0.9


async def test_nobody_is_starved(monkeypatch):
    """However long a turn was, LONGEST_REST later the store goes on."""
    monkeypatch.setattr(module, "LONGEST_REST", WORK)
    lanes = Lanes(at_once=1, each=1, gives_way=always)
    await work(lanes, LARGE)
    ended = time.monotonic()
    assert await work(lanes, LARGE) - ended < WORK * REST


async def test_a_rest_ends_when_there_is_nobody_to_rest_for(monkeypatch):
    """The small stores are through: the large one does not sit out its rest."""
    monkeypatch.setattr(module, "REST", 1_000)
    answers = iter((True, False))

    async def once(_connection_id):
        return next(answers)

    lanes = Lanes(at_once=1, each=1, gives_way=once)
    await work(lanes, LARGE)
    async with asyncio.timeout(10 * LOOK_EVERY):
        await work(lanes, LARGE)
    assert next(answers, None) is None


async def test_short_turns_owe_nothing():
    """Nobody even asks whether a store that has used next to nothing is to rest."""

    async def never(_connection_id):
        raise AssertionError

    lanes = Lanes(at_once=1, each=1, gives_way=never)
    for _ in range(3):
        async with lanes.turn(SMALL):
            pass
