"""The service as a process: what it answers, what it streams, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx
import msgspec
import pytest
from cryptography.fernet import Fernet
from status_history import Story, first_sync

from shared.db import connect
from shared.outbox import emit
from shared.widget_tokens import WidgetTokens
from status.data import DataReader
from status.hub import REFRESH


@dataclass
class Message:
    id: str = ""
    event: str = "message"
    data: str = ""
    comment: str = ""
    retry: str = ""

    @property
    def document(self):
        return msgspec.json.decode(self.data)


class Status:
    """The running service, and a store to tell events about."""

    def __init__(self, process, services, pool, http) -> None:
        self.process, self.services, self.pool, self.http = process, services, pool, http
        self.tokens = WidgetTokens((services.env["BACKSTOCK_SECRET_KEYS"],))

    async def connection(self, brand="acme") -> Story:
        connection_id = await self.pool.fetchval(
            "insert into control.connections (brand_id, shop, currency) values ($1, $2, 'EUR') returning id",
            brand,
            f"{brand}.myshopify.com",
        )
        return Story(connection_id, brand)

    async def tell(self, *events) -> None:
        async with self.pool.acquire() as tx, tx.transaction():
            await emit(tx, *events)

    def bearer(self, brand="acme", **lifetime) -> dict[str, str]:
        token, _ = self.tokens.issue(brand, *lifetime.values())
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def events(self, brand="acme", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/api/sync/{brand}/events"
        async with self.http.stream("GET", url, headers=self.bearer(brand) | headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield messages(answer)


async def messages(answer):
    message = Message()
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            setattr(message, name or "comment", value)
        else:
            yield message
            message = Message()


async def next_document(stream):
    async for message in stream:
        if message.data:
            return message
    raise AssertionError("the stream ended")


@pytest.fixture
async def running(services, database_url):
    process = await services.start("status")
    pool = await connect(database_url, service="test")
    async with httpx.AsyncClient(base_url=process.url, timeout=10) as http:
        yield Status(process, services, pool, http)
    await pool.close()


async def test_the_document_follows_the_events_from_outbox_to_json(running, until):
    """A whole first sync, told through Redis, ends live at 100 percent."""
    story = await running.connection()
    await running.tell(*first_sync(story))

    async def live():
        answer = await running.http.get("/api/sync/acme/status", headers=running.bearer())
        return answer.json() if answer.json()["syncStatus"] == "live" else None

    document = await until(live)
    assert document["percent"] == 100
    assert document["audit"]["equal"]
    assert document["shop"] == "acme.myshopify.com"


async def test_an_unchanged_live_document_is_answered_with_304(running, until):
    """Polling a live brand costs no body."""
    story = await running.connection()
    history = first_sync(story)
    await running.tell(*history)
    url, headers = "/api/sync/acme/status", running.bearer()
    await until(lambda: _version(running, len(history)))
    first = await running.http.get(url, headers=headers)
    again = await running.http.get(url, headers=headers | {"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_a_brand_without_events_is_connecting(running):
    """Between the connection and its first event the page already has something to show."""
    await running.connection()
    answer = await running.http.get("/api/sync/acme/status", headers=running.services.headers)
    assert (answer.json()["syncStatus"], answer.json()["version"]) == ("connecting", 0)


async def test_who_may_read_what(running):
    """401 without a valid token, 403 for any other brand, there or not, 404 for those who may know."""
    await running.connection("acme")
    await running.connection("other")
    get, key = running.http.get, running.services.headers

    async def refused(url, **headers) -> int:
        answer = await get(url, headers=headers)
        assert answer.headers["content-type"].startswith("application/problem+json")
        body = answer.json()
        assert set(body) >= {"type", "title", "status", "detail"}
        assert body["status"] == answer.status_code
        return answer.status_code

    for what in ("status", "events", "data"):
        over = running.bearer("acme", lifetime=timedelta(seconds=-5))
        assert await refused(f"/api/sync/acme/{what}") == 401
        assert await refused(f"/api/sync/acme/{what}", Authorization="Bearer nonsense") == 401
        assert await refused(f"/api/sync/acme/{what}", **over) == 401
        assert await refused(f"/api/sync/other/{what}", **running.bearer("acme")) == 403
        assert await refused(f"/api/sync/nobody/{what}", **running.bearer("acme")) == 403
        assert await refused(f"/api/sync/nobody/{what}", **key) == 404
        assert await refused(f"/api/sync/nobody/{what}", **running.bearer("nobody")) == 404
    missing = await get("/api/sync/acme/status")
    assert missing.headers["www-authenticate"] == "Bearer"
    by_address = {"token": running.services.api_key}
    assert (await get("/api/sync/acme/status", params=by_address)).status_code == 401
    token, _ = running.tokens.issue("acme")
    assert (await get("/api/sync/acme/status", params={"token": token})).status_code == 200


async def test_a_token_lives_as_long_as_its_key(running):
    """Signed by a key that became the second one it is still good; by one that was taken away, it is not."""
    await running.connection()
    env, token = running.process.env, running.bearer()
    old, new = env["BACKSTOCK_SECRET_KEYS"], Fernet.generate_key().decode()
    for keys, status in ((f"{new},{old}", 200), (new, 401)):
        env["BACKSTOCK_SECRET_KEYS"] = keys
        await running.process.restart(signal.SIGTERM)
        assert (await running.http.get("/api/sync/acme/status", headers=token)).status_code == status


async def test_tokens_are_for_operators_to_give(running):
    """The API key gets a token that reads one brand; a brand's token gets none."""
    await running.connection()
    post, key = running.http.post, running.services.headers
    answer = await post("/api/sync/acme/token", headers=key)
    assert answer.status_code == 201
    assert set(answer.json()) == {"token", "expiresAt"}
    assert answer.headers["cache-control"] == "no-store"
    assert running.tokens.brand(answer.json()["token"]) == "acme"
    assert (await post("/api/sync/acme/token", headers=running.bearer())).status_code == 401
    assert (await post("/api/sync/nobody/token", headers=key)).status_code == 404


async def test_operators_list_brands_page_by_page(running):
    """`next` leads through all of them."""
    for brand in ("a", "b", "c"):
        await running.connection(brand)
    headers = running.services.headers
    first = (await running.http.get("/api/sync", params={"limit": 2}, headers=headers)).json()
    rest = (await running.http.get("/api/sync", params={"after": first["next"]}, headers=headers)).json()
    assert [brand["brandId"] for brand in first["brands"] + rest["brands"]] == ["a", "b", "c"]
    assert rest["next"] is None
    assert (await running.http.get("/api/sync", headers=running.bearer("a"))).status_code == 401


async def test_the_stream_starts_with_a_frame_and_ends_when_live(running):
    """First frame at once, versions rise, `end` comes once, then the connection closes."""
    story = await running.connection()
    history = first_sync(story)
    async with running.events() as stream:
        first = await next_document(stream)
        assert first.document["syncStatus"] == "connecting"
        await running.tell(*history[:20])
        seen = [first]
        while seen[-1].document["version"] < 20:
            seen.append(await next_document(stream))
        await running.tell(*history[20:])
        seen += [message async for message in stream if message.data]
    assert seen[-1].event == "end"
    assert [message.event for message in seen].count("end") == 1
    frames = [message.document for message in seen[:-1]]
    assert frames[-1]["syncStatus"] == "live"
    percents = [frame["percent"] for frame in frames]
    assert percents == sorted(percents)
    assert seen[-2].id.endswith(f"-{frames[-1]['version']}")


async def test_many_changes_become_few_frames(running):
    """At most ten frames a second, and the last one is the newest version."""
    story = await running.connection()
    job = story.queued("bulk_orders", orders=1000)
    await running.tell(story.connected(), job)
    async with running.events() as stream:
        await next_document(stream)
        began = time.monotonic()
        batches = [event for _ in range(100) for event in story.batch(job, {"orders": 10}, "bulk")]
        await running.tell(*batches)
        frames = 0
        while True:
            message = await next_document(stream)
            frames += 1
            if message.document["resources"][0]["promoted"] == 1000:
                break
        assert frames <= (time.monotonic() - began) * 10 + 2


async def test_while_a_sync_runs_frames_come_without_news(running, until):
    """Times to go are told anew within five seconds, under the same id."""
    story = await running.connection()
    await running.tell(story.connected(), story.queued("recent_sync"))
    await until(lambda: _version(running, 2))
    async with running.events() as stream:
        first = await next_document(stream)
        began = time.monotonic()
        second = await next_document(stream)
        assert time.monotonic() - began < 2 * REFRESH  # due within one; the rest is for a busy machine
        assert second.id == first.id
        assert second.document["asOf"] > first.document["asOf"]


async def test_a_client_that_comes_back_gets_only_what_it_has_not_seen(running, until):
    """Same id: silence until a change; another epoch or an older version: the newest frame at once."""
    story = await running.connection()
    await running.tell(story.connected())
    await until(lambda: _version(running, 1))
    async with running.events() as stream:
        first = await next_document(stream)
    async with running.events(Last_Event_ID=first.id) as stream:
        assert (await anext(stream)).retry  # the stream has begun; with what was seen before, it would be now
        await running.tell(story.queued("recent_sync"))
        assert (await asyncio.wait_for(next_document(stream), 3)).document["version"] == 2
    for unknown in ("0badc0de-1", first.id, "nonsense"):
        async with running.events(Last_Event_ID=unknown) as stream:
            assert (await asyncio.wait_for(next_document(stream), 1)).document["version"] == 2


async def _version(running, version) -> bool:
    answer = await running.http.get("/api/sync/acme/status", headers=running.bearer())
    return answer.json()["version"] == version


async def test_the_stream_goes_on_after_the_listener_was_cut_off(running, until):
    """The listener comes back, and what changed meanwhile is read."""
    story = await running.connection()
    async with running.events() as stream:
        await next_document(stream)
        cut = await running.pool.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = 'backstock-status-listener'"
        )
        assert len(cut) == 1
        await running.tell(story.connected(), story.queued("recent_sync"))

        async def recent() -> bool:
            return (await next_document(stream)).document["syncStatus"] == "recent"

        await until(recent)


async def test_a_client_that_does_not_read_holds_nobody_up(running):
    """One stalled socket; the reader beside it gets the end within its usual time."""
    story = await running.connection()
    token, _ = running.tokens.issue("acme")
    host, port = running.process.url.removeprefix("http://").split(":")
    _, stalled = await asyncio.open_connection(host, int(port), limit=1)
    stalled.write(f"GET /api/sync/acme/events?token={token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await stalled.drain()
    async with running.events() as stream:
        await next_document(stream)
        await running.tell(*first_sync(story))
        seen = [message async for message in stream if message.data]
    assert seen[-1].event == "end"
    stalled.close()


async def test_clients_that_leave_are_forgotten(running, until):
    """The gauge falls back to zero, so rooms of a process do not fill with ghosts."""
    await running.connection()
    for _ in range(3):
        async with running.events() as stream:
            await next_document(stream)

    async def nobody() -> bool:
        return "backstock_sse_clients 0.0" in (await running.http.get("/metrics")).text

    await until(nobody)


async def test_kept_data_ends_with_the_step_it_was_read_in(running, monkeypatch):
    """A store that is live shows no totals of when it was loading, however long they were to be kept."""
    monkeypatch.setattr("status.data.KEEP_AT_LEAST", 60)
    reader = DataReader(running.pool)
    story = await running.connection()
    connection_id = story.who["connection_id"]

    async def orders(step):
        await running.pool.execute(
            "insert into shopify.orders (connection_id, id, created_at, source, sent_at, revision) "
            "select $1, count(*), now(), 'bulk', now(), 1 from shopify.orders",
            connection_id,
        )
        return (await reader.read(connection_id, step)).totals.orders

    steps = ("backfilling", "backfilling", "live", "live")
    assert [await orders(step) for step in steps] == [1, 1, 3, 3]


async def test_data_shows_what_has_landed_of_this_connection_only(running):
    """Totals, newest orders, days and products; neither test orders, deleted ones, nor those of others."""
    story, other = await running.connection(), await running.connection("other")
    mine, foreign = story.who["connection_id"], other.who["connection_id"]
    orders = [
        (mine, 1, False, None),
        (mine, 2, True, None),
        (mine, 3, False, "now"),
        (foreign, 4, False, None),
    ]
    for connection_id, order_id, test, deleted in orders:
        await running.pool.execute(
            "insert into shopify.orders (connection_id, id, name, created_at, total_price, currency, email, "
            "financial_status, test, deleted_at, source, sent_at, revision) values ($1, $2, '#1', now(), "
            "10.50, 'EUR', 'a@b.c', 'PAID', $3, $4::text::timestamptz, 'bulk', now(), 1)",
            connection_id,
            order_id,
            test,
            deleted,
        )
    await running.pool.execute(
        "insert into shopify.order_line_items (connection_id, id, order_id, product_id, title, quantity, "
        "discounted_total, source, sent_at, revision) "
        "values ($1, 9, 1, 5, 'Tote', 2, 10.50, 'bulk', now(), 1)",
        mine,
    )
    answer = await running.http.get("/api/sync/acme/data", headers=running.bearer())
    data = answer.json()
    assert (data["totals"]["orders"], data["totals"]["orderValue"]) == (1, "10.50")
    assert [(order["id"], order["items"]) for order in data["newestOrders"]] == [("1", 2)]
    assert [period["orders"] for period in data["ordersPerDay"]] == [1]
    assert [period["orders"] for period in data["ordersPerMonth"]] == [1]
    assert data["topProducts"] == [{"productId": "5", "title": "Tote", "quantity": 2, "value": "10.50"}]
    assert "a@b.c" not in answer.text


async def test_pages_are_served_with_a_strict_policy_and_no_inline_script(running):
    """Nothing from other hosts, no inline script, no referrer that could carry a token away."""
    page = await running.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "<script>" not in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    for path in ("/widget.js", "/dashboard.js", "/dashboard.css", "/favicon.svg"):
        answer = await running.http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        etag = answer.headers["etag"]
        assert (await running.http.get(path, headers={"If-None-Match": etag})).status_code == 304
        assert "innerHTML" not in answer.text
    assert len((await running.http.get("/widget.js")).content) < 15_000


async def test_widgets_may_read_from_any_page_but_not_write(running):
    """CORS: GET from everywhere, without cookies; a token cannot be fetched by a foreign page."""
    await running.connection()
    origin = {"Origin": "https://shop.example"}
    answer = await running.http.get("/api/sync/acme/status", headers=running.bearer() | origin)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    ask = origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    assert (await running.http.options("/api/sync/acme/status", headers=ask)).status_code == 204
    ask["Access-Control-Request-Method"] = "POST"
    for path in ("/api/sync/acme/token", "/api/sync", "/metrics"):
        answer = await running.http.options(path, headers=ask)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_an_unknown_path_and_a_wrong_method_are_problem_documents(running):
    """Every error has the same form."""
    for answer in (await running.http.get("/nothing"), await running.http.put("/api/sync/acme/status")):
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["status"] == answer.status_code
    assert answer.status_code == 405


async def test_health_readiness_and_metrics_answer(running):
    """What an orchestrator asks."""
    assert (await running.http.get("/healthz")).status_code == 200
    assert (await running.http.get("/readyz")).status_code == 200
    assert "backstock_sse_clients" in (await running.http.get("/metrics")).text


async def test_no_token_reaches_the_log(running):
    """Tokens travel in addresses, so addresses are not logged."""
    await running.connection()
    token, _ = running.tokens.issue("acme")
    await running.http.get("/api/sync/acme/status", params={"token": token})
    await running.http.get("/api/sync/nobody/status", params={"token": token})
    assert token not in running.process.log
