"""The service comes late, is killed, comes twice: what it shows is the truth all the same."""

from __future__ import annotations

import signal
import time

import httpx
import msgspec
import redis
from status_history import first_sync
from test_status_http import Status, next_document

from backstock.ports import free_port
from shared.db import connect
from shared.service import HTTP_GRACE


async def another(services):
    """A second replica, on an address of its own."""
    bind = f"127.0.0.1:{free_port()}"
    process = await services.start("status", ready=False, STATUS_BIND=bind)
    process.url = f"http://{bind}"
    await process.until_ready()
    return process


async def counted(pool, version) -> bool:
    return await pool.fetchval("select version from control.progress") == version


async def test_a_service_that_comes_last_or_was_killed_catches_up_and_replicas_agree(
    services, database_url, redis_url, until
):
    """Started after half of the events, killed, Redis emptied: both replicas end live, equal to the byte."""
    pool = await connect(database_url, service="test")
    async with httpx.AsyncClient(base_url=services.status_url, timeout=10) as http:
        status = Status(None, services, pool, http)
        history = first_sync(await status.connection())
        half, most = len(history) // 2, len(history) - 5
        await status.tell(*history[:half])
        process = await services.start("status")
        await until(lambda: counted(pool, half))
        async with status.events() as stream:
            before = await next_document(stream)
        await process.kill(signal.SIGKILL)
        await status.tell(*history[half:most])
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        await process.restart()
        second = await another(services)
        await until(lambda: counted(pool, most))
        async with status.events(Last_Event_ID=before.id) as stream:
            resumed = await next_document(stream)
            assert resumed.document["version"] == most
            assert resumed.document["percent"] >= before.document["percent"]
            await status.tell(*history[most:-1])
            await until(lambda: counted(pool, len(history) - 1))
            *_, last, end = [message async for message in stream if message.data]
        assert (end.event, last.document["syncStatus"]) == ("end", "live")
        await status.tell(history[-1])
        await until(lambda: counted(pool, len(history)))
        shown = [
            await http.get(f"{url}/api/sync/acme/status", headers=status.bearer())
            for url in (process.url, second.url)
        ]
        assert shown[0].content == shown[1].content
        assert shown[0].headers["etag"] == shown[1].headers["etag"]
        assert msgspec.json.decode(shown[0].content)["audit"]["equal"]
    await pool.close()


async def test_the_end_of_the_process_is_a_clean_break_and_clients_go_on_after_it(
    services, database_url, until
):
    """SIGTERM: a time to come back, a complete answer, at once; with its last id nothing is heard twice."""
    pool = await connect(database_url, service="test")
    async with httpx.AsyncClient(base_url=services.status_url, timeout=10) as http:
        status = Status(await services.start("status"), services, pool, http)
        story = await status.connection()
        await status.tell(story.connected())
        await until(lambda: counted(pool, 1))
        async with status.events() as stream:
            seen = await next_document(stream)
            began = time.monotonic()
            process = status.process.popen
            process.send_signal(signal.SIGTERM)
            rest = [message async for message in stream]
            assert time.monotonic() - began < HTTP_GRACE  # uvicorn's patience was not needed
        assert 500 <= int(rest[-1].retry) <= 5000
        await until(lambda: process.poll() == 0)
        assert "Exception in ASGI" not in status.process.log
        await status.tell(story.queued("recent_sync"))
        await status.process.restart()
        async with status.events(Last_Event_ID=seen.id) as stream:
            assert (await next_document(stream)).document["version"] == 2
    await pool.close()
