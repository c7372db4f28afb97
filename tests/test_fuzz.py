"""What nobody thought of: signed webhooks and calls of both APIs, mutated, against running services.

Deterministic as it stands; `make fuzz` runs more examples from a new seed (FUZZ_EXAMPLES, SEED).
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
import schemathesis
from fuzzing import EXAMPLES, drawn, fuzz, mutate
from hostile import open_target, order
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from ingress.payloads import READERS, parse
from shared.errors import BadPayloadError

SENT = "2026-11-20T10:00:00+00:00"

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
