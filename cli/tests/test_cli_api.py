"""The client of ingress and status, against a small real server that answers as they do."""

import asyncio
import io
import json
import re
from contextlib import asynccontextmanager

import msgspec
import pytest
from rich.console import Console

from backstock.api import Api, Progress
from backstock.audit import audit
from backstock.errors import CommandError
from backstock.ports import free_port
from backstock.watch import bars, watch

KEY = "test-api-key-0123456789"


def document(percent, status="backfilling", **more):
    resource = {
        "name": "orders",
        "phase": "downloading",
        "expected": 200,
        "promoted": percent * 2,
        "percent": percent,
    }
    return {
        "brandId": "b",
        "shop": "s",
        "syncStatus": status,
        "percent": percent,
        "resources": [resource],
    } | more


def frame(doc):
    return f"id: 1-1\ndata: {json.dumps(doc)}\n\n"


@asynccontextmanager
async def serving(answer):
    """A server whose answers are a function: request line -> (status, content type, body)."""
    requests = []

    async def handle(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line = head.partition("\r\n")[0].rpartition(" ")[0]
        requests.append((line, head))
        status, kind, body = answer(line)
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Api.open(url, url, KEY) as api:
            yield api, requests


async def collected(api):
    return [(each.sync_status, each.percent) async for each in api.follow("b")]


async def test_following_ends_when_the_brand_is_live():
    """Documents come as they are sent; comments, the end event and what follows carry none."""
    body = ": hb\n\n" + frame(document(10)) + frame(document(100, "live")) + "event: end\ndata: {}\n\n"
    async with serving(lambda _: (200, "text/event-stream", body)) as (api, requests):
        assert await collected(api) == [("backfilling", 10), ("live", 100)]
    assert f"authorization: bearer {KEY}" in requests[0][1].lower()


async def test_a_dropped_stream_is_opened_again(monkeypatch):
    """A connection that breaks is no end of the sync."""
    monkeypatch.setattr("backstock.api.POLL", 0.01)
    bodies = iter([frame(document(10)), frame(document(20)), frame(document(100, "live"))])
    async with serving(lambda _: (200, "text/event-stream", next(bodies))) as (api, _):
        assert [percent for _, percent in await collected(api)] == [10, 20, 100]


async def test_polling_takes_over_where_streams_are_cut_off(monkeypatch):
    """Some proxies swallow streams; the status document still tells."""
    monkeypatch.setattr("backstock.api.POLL", 0.01)
    polled = iter([document(50), document(100, "live")])

    def answer(line):
        if line.endswith("/events"):
            return 200, "text/event-stream", ""
        return 200, "application/json", json.dumps(next(polled))

    async with serving(answer) as (api, _):
        assert await collected(api) == [("backfilling", 50), ("live", 100)]


async def test_an_outage_is_waited_out_and_told_of_once(monkeypatch):
    """A service that restarts ends no watching; one that has never answered does at once."""
    monkeypatch.setattr("backstock.api.POLL", 0.01)
    answers = iter([(200, 10)] + [(503, 0)] * 5 + [(200, 60), (503, 0), (200, 100)])
    told = []

    def answer(line):
        status, percent = next(answers)
        doc = document(percent, "live" if percent == 100 else "backfilling")
        by_stream = line.endswith("/events")
        return status, "text/event-stream", frame(doc) if by_stream else json.dumps(doc)

    async with serving(answer) as (api, _):
        seen = [each.percent async for each in api.follow("b", lambda: told.append(1))]
    assert (seen, told) == ([10, 60, 100], [1])
    async with serving(lambda _: (503, "text/plain", "away")) as (api, _):
        with pytest.raises(CommandError, match="503"):
            assert [each async for each in api.follow("b")] == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, "no brand 'b': connect it with `backstock connect"),
        (401, "set BACKSTOCK_API_KEY"),
        (503, "503 Postgres is away"),
    ],
)
async def test_a_refusal_says_what_to_do(status, says):
    """Unknown brand, wrong key, or the problem document's own words."""
    problem = json.dumps({"title": "Not ready", "detail": "Postgres is away"})
    async with serving(lambda _: (status, "application/problem+json", problem)) as (api, _):
        with pytest.raises(CommandError, match=says):
            await api.progress("b")


async def test_a_service_that_is_not_there_is_named_with_its_setting():
    """The line says where it was looked for and how to start it."""
    url = f"http://127.0.0.1:{free_port()}"
    async with Api.open(url, url, KEY) as api:
        with pytest.raises(
            CommandError, match=rf"ingress does not answer at {url} .*backstock up.*INGRESS_URL"
        ):
            await api.connections()


async def test_the_dashboard_address_holds_the_brands_own_token():
    """What is handed to a browser is the short-lived token, never the API key."""
    async with serving(lambda _: (201, "application/json", '{"token":"a b","expiresAt":"x"}')) as (
        api,
        requests,
    ):
        assert await api.dashboard("b") == f"{api.status_url}/?brand=b&token=a+b"
    assert requests[0][0] == "POST /api/sync/b/token"


async def test_disconnecting_goes_by_the_brand():
    """The connection that is still there is the one; removed ones of the same brand are history."""
    gone = {"connectionId": 1, "brandId": "b", "shop": "s", "removedAt": "2026-01-01T00:00:00Z"}
    here = {"connectionId": 2, "brandId": "b", "shop": "s"}

    def answer(line):
        return (
            (204, "text/plain", "")
            if line.startswith("DELETE")
            else (200, "application/json", json.dumps([gone, here]))
        )

    async with serving(answer) as (api, requests):
        assert (await api.disconnect("b")).connection_id == 2
        with pytest.raises(CommandError, match="no brand 'other'"):
            await api.disconnect("other")
    assert "DELETE /api/connections/2" in [line for line, _ in requests]


async def shown(documents, *, terminal):
    async def feed():
        for each in documents:
            yield Progress(each["brandId"], each["syncStatus"], each["percent"], [], shop=each["shop"])

    screen = io.StringIO()
    last = await watch(Console(file=screen, force_terminal=terminal, width=100), feed())
    return screen.getvalue(), last


async def test_a_log_gets_a_line_per_step():
    """Without a terminal: a line at each change of phase or 5 %, not one per document."""
    text, last = await shown(
        [document(p) for p in (10, 11, 12, 15)] + [document(100, "live")], terminal=False
    )
    assert text.splitlines() == ["b: backfilling, 10 %", "b: backfilling, 15 %", "b: live, 100 %"]
    assert last.sync_status == "live"


async def test_bars_show_what_is_left_and_what_is_wrong():
    """Counts, rate, time to go, phases as words, the error and what helps."""
    doc = document(
        10, "attention", lastError={"code": "x", "message": "No token.", "action": "Connect again."}
    )
    doc["resources"][0] |= {"ratePerSecond": 1234.4, "etaSeconds": 61}
    doc["resources"].append({"name": "products", "phase": "waiting_for_slot"})
    doc["limits"] = {"historyLimitedTo60Days": True, "missingScopes": ["read_all_orders"]}
    screen = io.StringIO()
    doc["throttledUntil"] = "2026-11-23T05:16:14.123456Z"
    Console(file=screen, width=110).print(bars(msgspec.convert(doc, Progress), 110))
    assert re.search(r"wait until \d\d:\d\d:\d\d \S+$", screen.getvalue().replace(" \n", "\n"), re.MULTILINE)
    for text in (
        "20 of 200",
        "1,234/s",
        "0:01:01 left",
        "waiting for slot",
        "60 days",
        "No token. Connect again.",
    ):
        assert text in screen.getvalue()


@pytest.mark.parametrize(
    ("width", "figures"), [(80, "1,234,567 of 7,654,321|1,234/s|0:01:01 left"), (40, "16 %")]
)
async def test_a_narrow_terminal_cuts_no_figure(width, figures):
    """Bars shrink, and go where there is no room; every figure that is shown is whole, in one line."""
    doc = document(10)
    size = {"promoted": 1_234_567, "expected": 7_654_321, "percent": 16.1}
    doc["resources"] = [{"name": "customers", "ratePerSecond": 1234.4, "etaSeconds": 61} | size]
    screen = io.StringIO()
    Console(file=screen, width=width).print(bars(msgspec.convert(doc, Progress), width))
    line = next(line for line in screen.getvalue().splitlines() if "customers" in line)
    assert "…" not in screen.getvalue()
    assert all(text in line for text in ["1,234,567 of 7,654,321", *figures.split("|")])


async def test_a_terminal_shows_the_newest_state():
    """With a terminal the screen ends with the last document."""
    text, _ = await shown([document(10), document(100, "live")], terminal=True)
    assert "b: live, 100 %" in text


def audited(at, *, extra):
    check = {"table": "orders", "shopifyCount": 9, "ourCount": 9 + extra, "extra": extra, "equal": not extra}
    return {"equal": not extra, "jobId": at, "tables": [check]}


@pytest.mark.parametrize(("heal", "equal"), [(False, False), (True, True)])
async def test_an_audit_shows_new_results_only_and_heal_waits_for_an_equal_one(monkeypatch, heal, equal):
    """The result from before is not shown; the first new one counts, or with --heal the first equal one."""
    monkeypatch.setattr("backstock.audit.LOOK_EVERY", 0.01)
    old = document(100, "live", audit=audited(1, extra=0))
    found = document(100, "auditing", audit=audited(2, extra=1))
    healed = document(100, "live", audit=audited(3, extra=0))
    looks = iter([old, old, found, found, healed])

    def answer(line):
        accepted = {"brandId": "b", "jobs": [{"jobId": 2, "kind": "audit"}]}
        body = json.dumps(accepted if line.startswith("POST") else next(looks))
        return 202 if line.startswith("POST") else 200, "application/json", body

    console = Console(file=io.StringIO(), width=160)
    async with serving(answer) as (api, requests):
        assert await audit(api, console, "b", heal=heal, limit=10) is equal
    assert [line for line, _ in requests if line.startswith("POST")] == ["POST /api/sync/b"]
    assert console.file.getvalue().count("NOT EQUAL") == 1
