"""Loops that outlive what happens around them, and end when they are told to."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared.outages import through_outages

# What a connection that broke in the middle of a statement was seen to raise.
BROKEN = (
    OSError("gone"),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
)


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
async def test_a_loop_outlives_a_broken_connection_whatever_it_is_called(error):
    """The work is done again; the process goes on."""
    again, calls = asyncio.Event(), []

    async def work():
        calls.append(1)
        if len(calls) == 1:
            raise error
        again.set()
        await asyncio.Event().wait()

    loop = asyncio.create_task(through_outages(work))
    await asyncio.wait_for(again.wait(), 5)
    loop.cancel()
    await asyncio.wait({loop})
    assert loop.cancelled()


@pytest.mark.parametrize("error", [ConnectionError("only the connection is closed"), None])
async def test_a_loop_ends_though_a_driver_swallows_the_cancellation(error):
    """Another error or a result came of it, and left a process half alive: its end never came."""
    at_work = asyncio.Event()

    async def work():
        at_work.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error:
                raise error from None

    loop = asyncio.create_task(through_outages(work))
    await at_work.wait()
    loop.cancel()
    await asyncio.wait({loop}, timeout=5)
    assert loop.cancelled()
