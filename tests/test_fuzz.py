"""What nobody thought of, against running services: webhooks, OAuth, streams and calls of both APIs, mutated.

Deterministic as it stands; `make fuzz` runs more examples from a new seed (FUZZ_EXAMPLES, SEED).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import time
from urllib.parse import parse_qsl, quote_from_bytes, urlsplit

import pytest
import schemathesis
from fuzzing import EXAMPLES, drawn, fuzz, mutate
from hostile import SECRET, Answer, dial, open_target, order, raw
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ingress.payloads import READERS, parse
from shared.errors import BadPayloadError
from shared.widget_tokens import WidgetTokens

SENT = "2026-11-20T10:00:00+00:00"
FRAME_WITHIN = 10.0  # seconds for a stream's first frame; the machine may be busy

pytestmark = pytest.mark.xdist_group("hostile-fuzz")

ORDER = {
    "id": 1,
    "updated_at": "2026-11-20T10:00:00Z",
    "created_at": "2026-11-20T10:00:00-05:00",
    "name": "#1",
    "total_price": "10.00",
    "tags": "a, b",
    "test": False,
    "customer": {"id": 3},
    "total_shipping_price_set": {"shop_money": {"amount": "1.00"}},
    "line_items": [{"id": 4, "quantity": 2, "price": "5.00", "total_discount": "1.00"}],
    "refunds": [
        {
            "id": 5,
            "order_id": 1,
            "refund_line_items": [{"id": 6, "line_item_id": 4, "quantity": 1}],
            "transactions": [{"kind": "refund", "status": "success", "amount": "1.00"}],
        }
    ],
}
BODIES = [
    ("orders/updated", ORDER),
    ("refunds/create", ORDER["refunds"][0]),
    ("orders/delete", {"id": 1}),
    ("customers/update", {"id": 3, "updated_at": "2026-11-20T10:00:00Z", "tags": "a", "state": "enabled"}),
    (
        "customers/purchasing_summary",
        {
            "customerId": "gid://shopify/Customer/3",
            "numberOfOrders": 1,
            "amountSpent": {"amount": "1.0", "currencyCode": "EUR"},
        },
    ),
    ("customer.tags_added", {"customerId": "gid://shopify/Customer/3", "tags": ["a"]}),
    (
        "customers/merge",
        {"status": "completed", "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/9"},
    ),
    (
        "products/update",
        {
            "id": 7,
            "updated_at": "2026-11-20T10:00:00Z",
            "variants": [{"id": 8, "price": "1.00", "position": 1}],
        },
    ),
    (
        "bulk_operations/finish",
        {"admin_graphql_api_id": "gid://shopify/BulkOperation/1", "status": "completed"},
    ),
    ("customers/data_request", {"customer": {"id": 3}, "orders_requested": [1], "data_request": {"id": 1}}),
    ("app/scopes_update", {"current": ["read_orders"]}),
]


@st.composite
def mutated(draw):
    """A topic and what was a body for it: a value swapped, doubled or gone, or bytes cut or put in."""
    topic, body = draw(st.sampled_from(BODIES))
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(1, 3))):
        mutate(draw, body)
    raw = json.dumps(body).encode()
    match draw(st.integers(0, 9)):
        case 0:
            return topic, raw[: draw(st.integers(0, len(raw)))]
        case 1:
            at = draw(st.integers(0, len(raw)))
            return topic, raw[:at] + draw(st.binary(max_size=4)) + raw[at:]
        case 2:
            return topic, raw[:1] + raw[1:-1] + b"," + raw[1:]  # every key twice
        case _:
            return topic, raw


@fuzz(400)
@given(mutated())
def test_a_mutated_body_is_rows_or_a_bad_payload(found):
    """Nothing else comes out of the parser, whatever went in."""
    topic, body = found
    assert topic in READERS
    with contextlib.suppress(BadPayloadError):
        assert parse(topic, body, SENT, 1) is not None


@pytest.fixture(scope="module")
def fuzzed(module_services):
    """Ingress, promoter and status, started once; a fuzzed store and what it was called."""

    async def start():
        await module_services.start_all("ingress", "promoter", "status")

    asyncio.run(start())
    return module_services


def test_mutated_webhooks_harm_nobody(fuzzed, until):
    """Signed and mutated, many at once: never a 500; good ones among and after them are stored."""

    async def attack(bodies):
        target = await open_target(fuzzed, "fuzzed")
        try:
            for start in range(0, len(bodies), 50):
                calls = [target.webhook(topic, body) for topic, body in bodies[start : start + 50]]
                answers = await asyncio.gather(*calls, target.webhook("orders/updated", order(10**6 + start)))
                assert {answer.status_code for answer in answers} == {200}
            last = await target.webhook("orders/updated", order(2 * 10**6))
            assert last.status_code == 200
            good = f"connection_id = {target.connection} and id >= 1000000"
            await until(
                lambda: target.count("shopify.orders", f"{good} and id = 2000000"),
                timeout=40,
                what="the last one",
            )
            assert await target.count("shopify.orders", good) == -(-len(bodies) // 50) + 1
            assert await target.count("control.dead_letters", "service = 'promoter'") == 0
        finally:
            await target.http.aclose()
            await target.db.close()

    bodies = [found for found in drawn(mutated(), EXAMPLES or 300) if found[0] != "app/scopes_update"]
    asyncio.run(attack(bodies))


ANY_TEXT = st.one_of(
    st.sampled_from(
        [
            "",
            "\x00",
            "%",
            "https://evil.example/",
            "//evil.example",
            "evil.example\\@a.myshopify.com",
            "a.myshopify.com\r\nLocation: https://evil.example",
            "\u0661",
            "9" * 400,
            "x" * 5000,
            "\ud800",
        ]
    ),
    st.text(max_size=30),
)
NAMES = st.one_of(
    st.sampled_from(["shop", "brand", "code", "hmac", "state", "timestamp", "host", "session", "signature"]),
    st.text(max_size=5),
)


def escaped(text: str) -> bytes:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass")).encode()


@st.composite
def queries(draw, good: dict[str, str], *, sign_again=lambda pairs: pairs):
    """An address's query: values swapped, gone, doubled or new, signed or not, or bytes of no form at all."""
    if draw(st.integers(0, 9)) == 0:
        return bytes(byte for byte in draw(st.binary(max_size=60)) if byte > 32 and byte not in b"#\x7f")
    pairs = {name: value for name, value in good.items() if draw(st.integers(0, 4))}
    for _ in range(draw(st.integers(0, 2))):
        pairs[draw(st.one_of(NAMES, st.sampled_from([*good])))] = draw(ANY_TEXT)
    if draw(st.booleans()):
        pairs = sign_again(pairs)
    query = [escaped(name) + b"=" + escaped(value) for name, value in pairs.items()]
    if query and draw(st.integers(0, 5)) == 0:
        query.append(query[0])
    return b"&".join(query)


def signed_again(pairs):
    """As Shopify would sign them; texts that are no UTF-8 it cannot have sent."""
    rest = {name: value for name, value in pairs.items() if name != "hmac"}
    text = "&".join(f"{name}={rest[name]}" for name in sorted(rest)).encode("utf-8", "surrogatepass")
    return rest | {"hmac": hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()}


def is_no_surprise(answer: Answer, *origins: str) -> bool:
    """A redirect to one of ours, or a problem document that says what it is; never a fault of our own."""
    if answer.status == 302:
        location = re.search(r"^location: (.*?)\r?$", answer.head, re.MULTILINE)[1]
        return any(location.startswith(f"{origin}/") for origin in origins)
    return (
        400 <= answer.status < 500
        and "content-type: application/problem+json" in answer.head
        and answer.document["status"] == answer.status
    )


def test_oauth_is_surprised_by_nothing(fuzzed):
    """Starts and ways back at random: the shop, the dashboard or a problem; no connection, never a 5xx."""

    async def attack():
        target = await open_target(fuzzed, "oauth")
        shop_origin = f"{fuzzed.sandbox_url}/{target.shop}"
        try:
            begin = {"shop": target.shop, "brand": "oauth"}
            for number, query in enumerate(drawn(queries(begin), EXAMPLES or 150)):
                # a client of its own each, or all but sixty would be sent away
                origin = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
                call = get(b"/auth/shopify?" + query, b"X-Forwarded-For: " + origin.encode())
                answer = await raw(target.ingress, call)
                assert is_no_surprise(answer, shop_origin), (query, answer)
            begun = await target.http.get(f"{target.ingress}/auth/shopify", params=begin)
            cookie = f"Cookie: {begun.headers['set-cookie'].partition(';')[0]}".encode()
            asked = dict(parse_qsl(urlsplit(begun.headers["location"]).query))
            back = {
                "code": "0" * 32,
                "host": "YWRtaW4",
                "shop": target.shop,
                "state": asked["state"],
                "timestamp": str(int(time.time())),
            }
            ways = drawn(queries(back, sign_again=signed_again), EXAMPLES or 150)
            for query in ways:
                answer = await raw(target.ingress, get(b"/auth/shopify/callback?" + query, cookie))
                assert is_no_surprise(answer), (query, answer)  # no code of theirs is one of Shopify's
            assert await target.count("control.connections", "brand_id = 'oauth'") == 1
        finally:
            await target.http.aclose()
            await target.db.close()

    asyncio.run(attack())


def get(address: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"GET " + address + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers]) + (
        b"\r\n\r\n"
    )


HEADER_VALUES = st.one_of(
    st.binary(max_size=40).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127)),
    st.sampled_from([b"", b"0", b"-1", b"e-1", b"e-" + b"9" * 400, b"\xff\xfe", b"x" * 8000, b"a, b", b"\t"]),
)


def test_streams_begin_or_are_refused_whatever_is_asked(fuzzed):
    """Last-Event-ID, tokens and parameters at random: a first frame in time, or a problem."""

    async def first(url, call) -> Answer:
        """The head and the first document of a stream; the whole answer of anything else."""
        reader, writer = await dial(url)
        writer.write(call)
        try:
            async with asyncio.timeout(FRAME_WITHIN):
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if head.startswith(b"HTTP/1.1 200"):
                    body = await reader.readuntil(b"\ndata: ") + await reader.readuntil(b"\n\n")
                else:
                    body = await reader.read()
        finally:
            writer.close()
        return Answer(int(head.split(b" ", 2)[1]), head.decode("latin-1").lower(), body)

    async def attack():
        target = await open_target(fuzzed, "streams")
        token, _ = WidgetTokens((fuzzed.env["BACKSTOCK_SECRET_KEYS"],)).issue("streams")
        good = b"Authorization: Bearer " + token.encode()
        path = b"/api/sync/streams/events"
        try:
            for value in drawn(HEADER_VALUES, EXAMPLES or 100):
                answer = await first(target.status, get(path, good, b"Last-Event-ID: " + value))
                assert answer.status == 200, (value, answer)
                assert b'"brandId":"streams"' in answer.body
            for query in drawn(queries({"token": token}), EXAMPLES or 100):
                answer = await first(target.status, get(path + b"?" + query, good))
                wanted = 200 if query.isascii() else 400  # addresses are ASCII, says RFC 9112
                assert answer.status == wanted, (query, answer)
                answer = await first(target.status, get(path + b"?" + query))
                assert answer.status == 200 or is_no_surprise(answer), (query, answer)
            for value in drawn(HEADER_VALUES, EXAMPLES or 100):
                for scheme in (b"", b"Bearer ", b"Basic "):
                    answer = await first(target.status, get(path, b"Authorization: " + scheme + value))
                    assert answer.status == 401, (value, answer)
                    assert is_no_surprise(answer)
            assert "http.failed" not in "".join(process.log for process in fuzzed.processes)
        finally:
            await target.http.aclose()
            await target.db.close()

    asyncio.run(attack())


@pytest.mark.parametrize("service", ["ingress", "status"])
def test_the_described_api_keeps_its_word(fuzzed, service):
    """Every call of the OpenAPI document, with good and bad values: the answers are those it names."""
    base = fuzzed.ingress_url if service == "ingress" else fuzzed.status_url
    schema = schemathesis.openapi.from_url(f"{base}/schema/openapi.json")
    failures = []
    for operation in (result.ok() for result in schema.get_all_operations()):
        strategy = operation.as_strategy()

        @fuzz(12)
        @given(case=strategy)
        def call(case):
            answer = case.call(base_url=base, headers=fuzzed.headers, allow_redirects=False)
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        try:
            call()
        except BaseException as failure:  # noqa: BLE001 - all of them in one list
            failures.append(f"{operation.label}: {failure}")
    assert not failures, "\n".join(failures)
