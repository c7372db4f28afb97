"""Attacks, on real sockets against real processes: docs/attacks.md says what each is, and what it got."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import itertools
import json
import re
import socket
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hostile import SECRET, Answer, dial, open_target, order, raw, request, sign
from stores import make_store

from shared.widget_tokens import WidgetTokens

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
BRANDS = (f"hostile-{number}" for number in itertools.count(1))
REQUEST_WITHIN = 1.5  # seconds that the services under attack give a request
EVIL = "https://evil.example"

pytestmark = pytest.mark.xdist_group("hostile")


@pytest.fixture(scope="module")
def started(module_services):
    """Ingress, promoter and status, started once."""
    return module_services


@pytest.fixture
async def target(started):
    """The running services with a store of the test's own."""
    if not started.processes:
        started.env |= {"REQUEST_WITHIN": str(REQUEST_WITHIN)}
        await started.start_all("ingress", "promoter", "status")
    brand = next(BRANDS)
    target = await open_target(started, brand)
    target.brand = brand
    yield target
    await target.http.aclose()
    await target.db.close()


def headers_of(target, lifetime=timedelta(hours=1), brand=None, keys=None):
    tokens = WidgetTokens(keys or (target.services.env["BACKSTOCK_SECRET_KEYS"],))
    return {"Authorization": f"Bearer {tokens.issue(brand or target.brand, lifetime)[0]}"}


def test_every_row_of_the_page_has_its_test():
    """A row without a test, or a test without a row, is a claim that nobody checks."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    here = {name for name, value in globals().items() if name.startswith("test_") and callable(value)}
    assert named == here - {"test_every_row_of_the_page_has_its_test"}


async def test_forged_signatures(target):
    """Wrong secret, other body, cut, re-cased, empty, missing or doubled: 401 or 400, nothing is kept."""
    body, good = order(1), sign(order(1))
    forged = [
        sign(body, "guess"),
        sign(b"{}"),
        good[:-4],
        good.swapcase(),
        "",
        None,
        good + "=",
        "ä" * 44,
    ]
    forged += [hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(), f"{good}, {good}"]
    for signature in forged:
        answer = await target.webhook("orders/create", body, X_Shopify_Hmac_Sha256=signature)
        assert answer.status_code == 401, signature
    other = await target.webhook("orders/create", order(2), X_Shopify_Hmac_Sha256=good)
    assert other.status_code == 401
    twice = target.webhook_request("orders/create", body, "w-1").replace(
        b"X-Shopify-Hmac", b"X-Shopify-Hmac-Sha256: nonsense\r\nX-Shopify-Hmac", 1
    )
    assert (await raw(target.ingress, twice)).status == 400
    assert await target.count("control.webhook_deliveries", f"connection_id = {target.connection}") == 0


async def test_unsigned_noise_leaves_no_trace_in_memory(target):
    """Topics that nobody signed do not become metrics, for each would stay in memory."""
    for number in range(20):
        await target.http.put(f"{target.ingress}/webhooks/shopify", headers={"X-Shopify-Topic": f"t{number}"})
        await target.webhook(f"made-up/{number}", b"{}")
    metrics = (await target.http.get(f"{target.ingress}/metrics")).text
    assert 'topic="unsigned"' in metrics
    assert 'topic="other"' in metrics
    assert "made-up" not in metrics
    assert 'topic="t1' not in metrics


async def test_replayed_webhooks(target, until):
    """The same id counts once; an older body with a new id, and news from the future, change nothing."""
    newer = {"updated_at": "2026-11-20T10:00:00Z", "note": "newer"}
    older = {"updated_at": "2026-11-19T10:00:00Z", "note": "older"}
    for _ in range(3):
        assert (await target.webhook("orders/updated", order(1, **newer), "same")).status_code == 200
    old = await target.webhook(
        "orders/updated", order(1, **older), X_Shopify_Triggered_At="2026-11-19T10:00:01Z"
    )
    assert old.status_code == 200
    gone = await target.webhook("orders/delete", b'{"id": 2}', X_Shopify_Triggered_At="2999-01-01T00:00:00Z")
    assert gone.status_code == 200
    assert (await target.webhook("orders/updated", order(3))).status_code == 200
    connection = await target.db.fetchval(
        "select id from control.connections where brand_id = $1", target.brand
    )
    mine = f"connection_id = {connection}"
    await until(lambda: target.count("shopify.orders", f"{mine} and id = 3"))
    assert await target.db.fetchval(f"select note from shopify.orders where {mine} and id = 1") == "newer"
    assert await target.count("control.webhook_deliveries", f"{mine} and webhook_id = 'same'") == 1
    future = "connection_id = $1 and triggered_at > now() + interval '1 hour'"
    assert not await target.db.fetchval(
        f"select count(*) from control.webhook_deliveries where {future}", connection
    )


async def test_tokens_that_open_nothing(target):
    """Another brand's, an expired one, a removed key's, forged ones, the key in the address: 401 or 403."""
    url = f"{target.status}/api/sync/{target.brand}/status"
    good = headers_of(target)
    assert (await target.http.get(url, headers=good)).status_code == 200
    assert (await target.http.get(url, headers=headers_of(target, brand="other"))).status_code == 403
    removed = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    head, payload, signature = good["Authorization"].removeprefix("Bearer ").split(".")
    none = "eyJhbGciOiJub25lIn0"
    deep = "W1tb" * 2000
    for bad in (
        headers_of(target, timedelta(seconds=-2)),
        headers_of(target, keys=(removed,)),
        *(
            {"Authorization": f"Bearer {t}"}
            for t in (f"{none}.{payload}.", f"{head}.{payload}.AAAA", "a.b.c")
        ),
        *(
            {"Authorization": f"Bearer {t}"}
            for t in (f"{deep}.{payload}.{signature}", "...", "\x80", "x" * 9000)
        ),
        {"Authorization": f"Basic {target.services.api_key}"},
        {},
    ):
        answer = await target.http.get(url, headers={n: v.encode("latin-1") for n, v in bad.items()})
        assert answer.status_code == 401, bad
    for name in ("token", "api_key", "key", "access_token"):
        for address in (url, f"{target.ingress}/api/connections"):
            assert (await target.http.get(address, params={name: target.services.api_key})).status_code == 401


async def test_bodies_that_are_too_large(target):
    """Declared or not, whole or in chunks, true or a lie: 413, 400 or 408, and never read to its end."""
    huge = "X-Shopify-Topic: orders/create\r\nHost: x\r\nConnection: close\r\n"
    post = f"POST /webhooks/shopify HTTP/1.1\r\n{huge}"
    declared = f"{post}Content-Length: {2**40}\r\n\r\n".encode()
    assert (await raw(target.ingress, declared)).status == 413
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    chunked = [f"{post}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 12]
    assert (await raw(target.ingress, *chunked, pause=0.01)).status in (413, 0)
    api = f"POST /api/connections HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.services.api_key}\r\n"
    api += "Content-Type: application/json\r\n"
    assert (
        await raw(target.ingress, f"{api}Content-Length: 70000\r\n\r\n".encode(), b"[" * 70000)
    ).status == 413
    short = await raw(target.ingress, f"{api}Content-Length: 100\r\n\r\n{{}}".encode())
    assert short.status == 408
    for lie in ("-1", "1e3", "0x10", "99999999999999999999999", "1, 2", ""):
        assert (await raw(target.ingress, f"{post}Content-Length: {lie}\r\n\r\n{{}}".encode())).status in (
            400,
            413,
            401,
        )


async def test_compression_bombs(target):
    """A body is never unpacked: what is packed is not JSON."""
    bomb = gzip.compress(b'{"id": ' + b" " * 2**24 + b"1}")
    assert len(bomb) < 64 * 1024
    headers = {**target.services.headers, "Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = await target.http.post(f"{target.ingress}/api/connections", content=bomb, headers=headers)
    assert answer.status_code == 400
    assert (await target.webhook("orders/create", bomb, X_Shopify_Hmac_Sha256="x")).status_code == 401


async def test_shop_names_that_are_none(target):
    """Whatever is not one label below myshopify.com is 400, at each door; nobody is asked for it."""
    names = [
        "evil.com/.myshopify.com",
        "a.myshopify.com.evil.com",
        "u:p@a.myshopify.com",
        "a.myshopify.com:80",
    ]
    names += [
        "a.myshopify.com.",
        "a\u3002myshopify.com",
        "\u212a.myshopify.com",
        "a.b.myshopify.com",
        "-a.myshopify.com",
    ]
    names += [
        "a\r\nX: y.myshopify.com",
        "a.myshopify.com\x00",
        "",
        ".myshopify.com",
        "127.0.0.1",
        "a.myshopify.com/x",
    ]
    names += [
        "a.myshopify.com?x",
        "a.myshopify.com#",
        "http://a.myshopify.com",
        "xn--a.myshopify.com\\@evil.com",
    ]
    for name in names:
        connect = {"brandId": "x", "shop": name, "accessToken": "shpat_x"}
        url = f"{target.ingress}/api/connections"
        assert (
            await target.http.post(url, json=connect, headers=target.services.headers)
        ).status_code == 400, name
        begin = await target.http.get(f"{target.ingress}/auth/shopify", params={"shop": name, "brand": "x"})
        assert begin.status_code == 400, name
        assert "location" not in begin.headers
    upper = {"shop": target.shop.upper(), "brand": "new"}
    begin = await target.http.get(f"{target.ingress}/auth/shopify", params=upper)
    assert begin.status_code == 302
    assert f"/{target.shop}/admin/" in begin.headers["location"]


async def test_brands_that_are_none(target):
    """Paths, markup, SQL and line ends in a brand are 400, 403 or 404; none reaches a header or a query."""
    for brand in (
        "../x",
        "a/b",
        "'; drop table x; --",
        "<b>",
        "a\r\nX-Evil: 1",
        "a\x00",
        "%00",
        "é",
        "a" * 200,
    ):
        begin = await target.http.get(
            f"{target.ingress}/auth/shopify", params={"shop": target.shop, "brand": brand}
        )
        assert begin.status_code == 400, brand
        path = httpx_path(brand)
        for what in ("status", "events", "data"):
            answer = await target.http.get(
                f"{target.status}/api/sync/{path}/{what}", headers=target.services.headers
            )
            assert answer.status_code in (400, 404), (brand, what)
            assert "x-evil" not in answer.headers
        answer = await target.http.get(
            f"{target.status}/api/sync", params={"after": brand[:100]}, headers=target.services.headers
        )
        assert answer.status_code == 200


def httpx_path(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


async def test_markup_and_sql_in_every_text(target, until):
    """They are stored and shown as the text that they are, as JSON; pages may run no inline script."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    evil += "'; drop table shopify.orders; --\"\u202e"
    texts = dict.fromkeys(
        ("name", "email", "phone", "note", "source_name", "cancel_reason", "financial_status"), evil
    )
    texts |= dict.fromkeys(("fulfillment_status", "currency", "presentment_currency", "tags"), evil)
    line = {"id": 5, "quantity": 1, "price": "1.00", "product_id": 9}
    line |= dict.fromkeys(("title", "variant_title", "sku", "vendor"), evil)
    body = order(1, **texts, line_items=[line], created_at="2026-11-20T10:00:00Z", total_price="1.00")
    assert (await target.webhook("orders/create", body)).status_code == 200
    url = f"{target.status}/api/sync/{target.brand}/data"

    async def shown():
        answer = await target.http.get(url, headers=headers_of(target))
        return answer if answer.json()["newestOrders"] else None

    answer = await until(shown)
    assert answer.json()["newestOrders"][0]["name"] == evil
    assert answer.json()["topProducts"][0]["title"] == evil
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = await target.http.get(f"{target.status}/", params={"brand": "<script>alert(1)</script>"})
    assert "alert(1)" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    for script in ("dashboard.js", "widget.js"):
        code = (await target.http.get(f"{target.status}/{script}")).text
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", code)


async def test_values_that_are_none(target, until):
    """Huge numbers, NUL, deep nesting, words that Postgres takes for a time: put aside; nobody waits."""
    deep = b'{"id": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    nul = json.dumps({"id": 7, "updated_at": "2026-11-20T10:00:00Z", "name": "a\x00b"}).encode()
    words = (
        "yesterday",
        "now",
        "infinity",
        "-infinity",
        "epoch",
        "allballs",
        "today",
        "0001-01-01T00:00:00+14:00",
        "",
    )
    bodies = [
        deep,
        order(2**80),
        order(-(2**70)),
        order(10**400),
        b'{"id": NaN}',
        b'{"id": 1e5, "updated_at": "x"}',
    ]
    bodies += [order(1, updated_at=word) for word in words]
    bodies += [order(1, created_at=word) for word in words]
    bodies += [
        order(1, total_price=money) for money in ("NaN", "Infinity", "1e999999", "9" * 5000, " 1", "0x1")
    ]
    bodies += [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"\\ud800"',
        b'{"id": 1, "updated_at": "\xff"}',
        b"\xef\xbb\xbf{}",
        order(True),
    ]
    bodies += [order(1, line_items=[{"id": 1, "quantity": 10**18, "price": "1"}])]
    sent = [target.webhook("orders/updated", body) for body in bodies]
    answers = await asyncio.gather(
        target.webhook("orders/updated", order(41)), *sent, target.webhook("orders/updated", nul)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await target.webhook("orders/updated", order(42))).status_code == 200
    mine = f"connection_id = (select id from control.connections where brand_id = '{target.brand}')"
    await until(lambda: target.count("shopify.orders", f"{mine} and id = 42"))
    assert await target.count("shopify.orders", mine) == 3  # 41, 42, and the one whose NUL became U+FFFD
    aside = await target.count("control.dead_letters", f"{mine} and service = 'ingress'")
    assert aside == len(bodies)
    assert await target.count("control.dead_letters", "service = 'promoter'") == 0


async def test_slow_clients(target):
    """Slow heads and slow bodies are cut off in time, at both services; others are answered meanwhile."""

    async def slow(url: str, *parts: bytes) -> tuple[Answer, float]:
        began = time.monotonic()
        answer = await raw(url, *parts, pause=0.3, within=15)
        return answer, time.monotonic() - began

    head = [bytes([byte]) for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100]
    body = [request("POST", "/webhooks/shopify", Content_Length="1000"), *[b"x"] * 100]
    lines = [b"\r\n"] * 100
    slow_ones = [
        slow(url, *parts) for url in (target.ingress, target.status) for parts in (head, body, lines, [b""])
    ]
    attack = asyncio.gather(*slow_ones)
    worst = 0.0
    while not attack.done():
        began = time.monotonic()
        for url in (target.ingress, target.status):
            assert (await target.http.get(f"{url}/healthz")).status_code == 200
        worst = max(worst, time.monotonic() - began)
        await asyncio.wait([attack], timeout=0.1)
    for answer, took in await attack:
        assert answer.status in (408, 404, 405, 0), answer
        assert took < REQUEST_WITHIN + 6
    assert worst < REQUEST_WITHIN


async def test_many_connections(target):
    """Hundreds that say nothing are closed in time; whoever comes meanwhile is answered."""
    held = await asyncio.gather(*(dial(url) for url in (target.ingress, target.status) for _ in range(300)))
    try:
        for url in (target.ingress, target.status):
            assert (await target.http.get(f"{url}/readyz")).status_code == 200
        async with asyncio.timeout(REQUEST_WITHIN + 10):
            ends = await asyncio.gather(*(reader.read() for reader, _ in held))
        assert all(end == b"" or end.startswith(b"HTTP/1.1 408") for end in ends)
    finally:
        for _, writer in held:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in held), return_exceptions=True)


async def test_header_floods(target):
    """A head beyond 32 KiB, in one header, in many, in the address or without an end: 431 and the end."""
    for url in (target.ingress, target.status):
        line = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
        many = line + b"".join(b"X-%d: y\r\n" % number for number in range(9000)) + b"\r\n"
        for flood in (
            [line + b"X: " + b"y" * 200_000 + b"\r\n\r\n"],
            [many],
            [b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"],
            [line + b"X: ", *[b"y" * 10_000] * 20],
        ):
            answer = await raw(url, *flood, pause=0.01)
            assert answer.status in (431, 0), answer.head
        assert (await raw(url, request("GET", "/healthz", X="y" * 20_000))).status == 200


async def test_smuggled_requests(target):
    """Two lengths, a length beside chunks, odd spellings: 400 and the end, so no second request is seen."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    start = b"POST /webhooks/shopify HTTP/1.1\r\nHost: x\r\n"
    for headers in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: +5\r\n",
        b"X: a\nContent-Length: 5\r\n",
        b"X: a\x00b\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
    ):
        for url in (target.ingress, target.status):
            answer = await raw(url, start + headers + b"\r\n0\r\n\r\n" + hidden)
            assert answer.status == 400, (headers, answer.head)
            assert answer.body.count(b"alive") == 0
            assert "nosniff" in answer.head


async def test_methods_and_forms_of_requests(target):
    """TRACE, CONNECT, made-up methods, overrides, upgrades and absolute addresses get no further than GET."""
    for url in (target.ingress, target.status):
        for line in ("TRACE / ", "CONNECT x:1 ", "PROPFIND / ", "OPTIONS * ", "FOO / ", "GET http://evil/x "):
            answer = await raw(
                url, f"{line}HTTP/1.1\r\nHost: x\r\nX-Secret: echo\r\nConnection: close\r\n\r\n".encode()
            )
            assert answer.status in (200, 204, 400, 404, 405), (line, answer.head)
            assert b"echo" not in answer.body
        upgrade = request(
            "GET", "/healthz", Connection="Upgrade, close", Upgrade="websocket", Sec_WebSocket_Key="x"
        )
        assert (await raw(url, upgrade)).status in (200, 400)
    override = {**target.services.headers, "X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    connections = f"{target.ingress}/api/connections"
    mine = (await target.http.get(connections, headers=target.services.headers)).json()[0]
    one = f"{connections}/{mine['connectionId']}"
    await target.http.get(one, headers=override, params={"_method": "DELETE"})
    assert (await target.http.post(one, headers=override)).status_code == 405
    assert (await target.http.get(one, headers=target.services.headers)).json()["removedAt"] is None


async def test_foreign_origins(target):
    """A foreign page may read a brand by its token, without cookies; of all else it hears nothing."""
    origin = {"Origin": EVIL}
    read = await target.http.get(
        f"{target.status}/api/sync/{target.brand}/status", headers=headers_of(target) | origin
    )
    assert read.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in read.headers
    ask = origin | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for url in ("/api/sync", f"/api/sync/{target.brand}/token", "/metrics", "/schema/openapi.json", "/"):
        for method, headers in (("GET", origin | target.services.headers), ("OPTIONS", ask)):
            answer = await target.http.request(method, target.status + url, headers=headers)
            assert not [name for name in answer.headers if name.startswith("access-control")], (method, url)
    for url in ("/api/connections", "/auth/shopify", "/webhooks/shopify"):
        answer = await target.http.options(target.ingress + url, headers=ask)
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_every_answer_is_armed(target):
    """Whatever the answer, browsers are told not to guess types, load nothing and tell nobody the address."""
    for url in (target.ingress, target.status):
        for path in (
            "/healthz",
            "/nothing",
            "/metrics",
            "/schema/openapi.json",
            "/api/sync",
            "/api/connections",
        ):
            answer = await target.http.get(url + path)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "content-security-policy" in answer.headers
            assert "server" not in answer.headers


async def test_oauth_states_and_callbacks(target):
    """A state works once, in its own browser, for its own shop; a forged way back is 401, an old one 400."""
    back, browser = await consent(target)
    url = f"{target.ingress}/auth/shopify/callback"

    async def come(pairs, cookies=browser):
        target.http.cookies.clear()
        header = {"Cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())} if cookies else {}
        return await target.http.get(f"{url}?{urlencode(pairs)}", headers=header)

    assert (await come(back | {"hmac": "0" * 64})).status_code == 401
    assert (await come(back | {"shop": "other.myshopify.com"})).status_code == 401
    assert (await come(back | {"host": "evil"})).status_code == 401
    assert (await come(signed(back | {"shop": "evil.com/.myshopify.com"}))).status_code == 400
    assert (await come(signed(back | {"timestamp": str(int(time.time()) - 4000)}))).status_code == 400
    assert (await come(back, None)).status_code == 403
    assert (await come(back, {name: value[:-1] + "x" for name, value in browser.items()})).status_code == 403
    assert (await come(signed(back | {"state": "guess"}))).status_code == 403
    assert (await come(signed(back | {"shop": "other.myshopify.com"}))).status_code == 403
    other, other_browser = await consent(target)
    assert (await come(other, browser)).status_code == 403  # another browser's state
    first, again = await come(back), await come(back)
    assert (first.status_code, again.status_code) == (302, 302)
    assert await target.count("control.connections", f"brand_id = '{target.brand}'") == 1
    assert (await come(other, other_browser)).status_code == 302


async def consent(target):
    """To Shopify's consent page and back; the callback's parameters, and the browser's cookies."""
    target.http.cookies.clear()
    begun = await target.http.get(
        f"{target.ingress}/auth/shopify", params={"shop": target.shop, "brand": target.brand}
    )
    assert begun.status_code == 302, begun.text
    cookies = dict(begun.cookies)
    answer = await target.http.get(begun.headers["location"] + "&auto=1")
    found = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: values[0] for name, values in found.items()}, cookies


def signed(pairs):
    rest = {name: value for name, value in pairs.items() if name != "hmac"}
    text = "&".join(f"{name}={rest[name]}" for name in sorted(rest))
    return rest | {"hmac": hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}


async def test_redirects_lead_only_to_the_shop_and_the_dashboard(target):
    """No parameter, host header or shop name moves a redirect, or a request of ours, to another host."""
    moved = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    params = {
        "shop": target.shop,
        "brand": target.brand,
        "redirect_uri": EVIL,
        "return_to": EVIL,
        "host": EVIL,
    }
    begun = await target.http.get(f"{target.ingress}/auth/shopify", params=params, headers=moved)
    assert begun.status_code == 302
    assert begun.headers["location"].startswith(f"{target.services.sandbox_url}/{target.shop}/admin/oauth/")
    assert "evil" not in begun.headers["location"]
    back, cookies = await consent(target)
    url = f"{target.ingress}/auth/shopify/callback?{urlencode(signed(back | {'return_to': EVIL}))}"
    cookie = "; ".join(f"{n}={v}" for n, v in cookies.items())
    done = await target.http.get(url, headers=moved | {"Cookie": cookie})
    assert done.headers["location"].startswith(f"{target.status}/?brand=")


async def test_requests_of_ours_go_to_the_shop_only(target):
    """A listener of the attacker's, named as a shop in every way, hears nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        at = f"127.0.0.1:{listener.getsockname()[1]}"
        for shop in (at, f"{at}/.myshopify.com", f"http://{at}", f"{at}#.myshopify.com", f"x@{at}"):
            body = {"brandId": "x", "shop": shop, "accessToken": "shpat_x"}
            url = f"{target.ingress}/api/connections"
            answer = await target.http.post(url, json=body, headers=target.services.headers)
            assert answer.status_code == 400
            webhook = await target.webhook("app/uninstalled", b"{}", X_Shopify_Shop_Domain=shop)
            assert webhook.status_code == 400
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_links_of_bulk_files_lead_to_public_hosts_only(services, until):
    """An address in our own network for a file: nothing is asked there, the job fails and says why."""
    await services.start_all()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        inside = f"127.0.0.1:{listener.getsockname()[1]}"
        for link in (f"http://{inside}/x", f"https://{inside}/x", "http://169.254.169.254/latest/meta-data"):
            async with make_store(services, orders=5) as store:
                fault = {"bulk_link": {"url": link}}
                await store.http.patch(f"{store.control}/faults", json=fault)
                connection = await store.connect()
                problem = await until(lambda id_=connection: _problem_of(store, id_), 60)
                assert problem["code"] == "link_refused"
                assert "is not fetched" in problem["message"]
                assert problem["action"]
                assert link not in services.processes[1].log
        with pytest.raises(BlockingIOError):
            listener.accept()


async def _problem_of(store, connection):
    query = "select problem from control.connections where id = $1 and sync_status = 'attention'"
    found = await store.db.fetchval(query, connection)
    return json.loads(found) if found else None


async def test_floods_of_starts(target):
    """One address begins OAuth sixty times at once at the most: then 429 with the time to wait."""
    params = {"shop": target.shop, "brand": target.brand}
    headers = {"X-Forwarded-For": "203.0.113.9"}  # as a proxy on this machine says it
    url = f"{target.ingress}/auth/shopify"
    answers = await asyncio.gather(*(target.http.get(url, params=params, headers=headers) for _ in range(90)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) <= 30
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    other = {"X-Forwarded-For": "203.0.113.10"}
    assert (await target.http.get(url, params=params, headers=other)).status_code == 302
