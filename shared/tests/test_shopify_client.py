"""The Admin API client against the sandbox over HTTP: what it waits for, what it repeats, what it refuses."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace

import httpx
import msgspec
import pytest
from cryptography.fernet import Fernet

from shared import shopify as client_module
from shared.errors import LeaseLostError
from shared.settings import Settings
from shared.shopify import Shopify, ShopifyUnavailableError, StoreError

NUMBERS = itertools.count(1)
TOKEN = "shpat_client_test"
NAME = "query Name { shop { myshopifyDomain } }"
ORDERS = "query Orders($q: String!) { orders(first: 1, query: $q) { nodes { id } } }"
DEAR = (
    "query Dear { orders(first: 250) { nodes { id lineItems(first: 250) { nodes { id "
    "product { id variants(first: 250) { nodes { id product { id } } } } } } } } }"
)


class Named(msgspec.Struct, rename="camel"):
    myshopify_domain: str


class Answer(msgspec.Struct):
    shop: Named


class Store:
    """A shop of the sandbox, and our client for it."""

    def __init__(self, http, base, shop, shopify):
        self.http, self.base, self.shop, self.shopify = http, base, shop, shopify
        self.before, self.waits = 0, []

    async def ask(self, document=NAME, answer=Answer, token=TOKEN, **variables):
        return await self.shopify.shop(self.shop, token).query(answer, document, variables)

    async def refused(self, document=NAME, answer=Answer, token=TOKEN, **variables):
        """The problem that the query ends with."""
        with pytest.raises(StoreError) as refused:
            await self.ask(document, answer, token, **variables)
        return refused.value.problem

    async def control(self, method, path, **body):
        answer = await self.http.request(method, f"{self.base}/_sandbox/stores/{self.shop}{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def fault(self, **faults):
        await self.control("PATCH", "/faults", **faults)

    async def requests(self):
        """How many requests the shop saw since the test began."""
        return len((await self.control("GET", "/log"))["requests"]) - self.before


@pytest.fixture
def quick(monkeypatch):
    """Backoffs in hundredths of seconds; what is repeated, and how often, stays as it is."""
    monkeypatch.setattr(client_module, "BACKOFF_BASE", 0.01)
    monkeypatch.setattr(client_module, "BACKOFF_CAP", 0.05)


@pytest.fixture
async def store(sandbox_server, quick):
    shop = f"client-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
    settings = Settings(
        _env_file=None,
        database_url="postgresql://127.0.0.1/none",
        redis_url="redis://127.0.0.1:1",
        shopify_client_secret="sandbox-client-secret",
        backstock_api_key="0123456789abcdef",
        backstock_secret_keys=Fernet.generate_key().decode(),
        shopify_origin=f"{sandbox_server}/{{shop}}",
    )
    waits = []
    shopify = Shopify(settings, on_wait=lambda *wait: waits.append(wait))
    async with httpx.AsyncClient(timeout=30) as http:
        wanted = {"shop": shop, "token": TOKEN, "orders": 5, "customers": 2, "products": 2}
        answer = await http.post(f"{sandbox_server}/_sandbox/stores", json=wanted)
        assert answer.status_code == 201, answer.text
        store = Store(http, sandbox_server, shop, shopify)
        await store.ask()  # a query whose cost is known waits for no points
        store.before, store.waits = await store.requests(), waits
        yield store
        await shopify.close()
        await http.delete(f"{sandbox_server}/_sandbox/stores/{shop}")


async def test_data_come_as_the_type_that_was_asked_for(store):
    """An answer is decoded into the caller's type, with one request."""
    assert await store.ask() == Answer(Named(store.shop))
    assert await store.requests() == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"http": {"status": 502}},
        {"http": {"status": 500}},
        {"http": {"status": 504}},
        {"http": {"status": 430, "retry_after": 0}},
        {"reset": {}},
        {"internal_error": {}},
    ],
    ids=["502", "500", "504", "430", "reset", "internal"],
)
async def test_trouble_that_passes_is_waited_out(store, fault):
    """A bad gateway, a broken connection, Shopify's own error: asked again until there is an answer."""
    (name, values), *_ = fault.items()
    await store.fault(**{name: {**values, "times": 3}})
    assert await store.ask() == Answer(Named(store.shop))
    assert await store.requests() == 4


async def test_trouble_that_stays_is_given_up(store):
    """After TRIES the caller is told, without the token; the message that asked is tried again later."""
    await store.fault(http={"status": 502})
    with pytest.raises(ShopifyUnavailableError) as given_up:
        await store.ask()
    assert store.shop in str(given_up.value)
    assert "502" in str(given_up.value)
    assert TOKEN not in str(given_up.value)
    assert await store.requests() == client_module.TRIES


async def test_retry_after_is_heeded(store):
    """Told to come again in a second, it comes again after a second; who wants to know of waits is told."""
    await store.fault(http={"status": 429, "retry_after": 1, "times": 1})
    began = time.monotonic()
    await store.ask()
    assert time.monotonic() - began >= 1.0
    ((shop, seconds, why),) = store.waits
    assert (shop, why, 1 <= seconds < 2) == (store.shop, "throttled", True)


async def test_throttled_is_waited_out(store):
    """THROTTLED comes with HTTP 200: the wait is a second at least, then the same query is sent again."""
    await store.fault(throttle={"times": 2})
    began = time.monotonic()
    assert await store.ask() == Answer(Named(store.shop))
    assert time.monotonic() - began >= 2.0
    assert await store.requests() == 3
    assert [why for _, _, why in store.waits] == ["throttled", "throttled"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_token"),
        (402, "shop_frozen"),
        (403, "forbidden"),
        (404, "shop_not_found"),
        (423, "shop_locked"),
        (406, "unexpected_status"),
    ],
)
async def test_a_shop_that_refuses_is_not_asked_again(store, status, code):
    """Each status has its problem with a remedy; one request is made, whatever the count of tries."""
    await store.fault(http={"status": status})
    problem = await store.refused()
    assert problem.code == code
    assert problem.action
    assert store.shop in problem.message
    assert await store.requests() == 1


async def test_a_wrong_token_is_named_as_such(store):
    """Shopify's 401 is an invalid token; so is one that cannot stand in a header, and neither is quoted."""
    for token in ("shpat_wrong", "shpat_ü", "a b", ""):
        problem = await store.refused(token=token)
        assert problem.code == "invalid_token"
        assert not token or token not in problem.message + problem.action


async def test_a_missing_scope_says_which(store):
    """ACCESS_DENIED names the scope that must be granted."""
    await store.control("POST", "/tokens", token="shpat_few", scopes=["read_products"])
    problem = await store.refused(ORDERS, dict, "shpat_few", q="")
    assert problem.code == "access_denied"
    assert "read_orders" in problem.action


async def test_a_query_that_is_too_dear_is_refused_at_once(store):
    """MAX_COST_EXCEEDED is no throttling: waiting would not help."""
    problem = await store.refused(DEAR, dict)
    assert problem.code == "max_cost_exceeded"
    assert await store.requests() == 1


async def test_a_search_that_shopify_ignores_is_an_error(store):
    """An unknown filter would give every order: the warning beside the data is taken as a refusal."""
    assert await store.ask(ORDERS, dict, q="updated_at:>='2020-01-01T00:00:00Z'")
    problem = await store.refused(ORDERS, dict, q="updated_att:>='2020-01-01T00:00:00Z'")
    assert problem.code == "search_ignored"
    assert "updated_att" in problem.message


async def test_a_query_that_does_not_fit_the_schema_is_an_error(store):
    """A field that is not there is a problem to report, not something to repeat."""
    problem = await store.refused("query Wrong { shop { nothing } }")
    assert "nothing" in problem.message
    assert await store.requests() == 1


async def test_an_answer_of_another_form_is_an_error(store):
    """What Shopify sends must have the type that the caller needs; else it is said what is wrong."""

    class Other(msgspec.Struct):
        shop: int

    problem = await store.refused(answer=Other)
    assert problem.code == "unexpected_answer"
    assert "shop" in problem.message


async def test_what_must_not_be_done_twice_is_sent_once_and_only_while_it_is_ours(store):
    """A lost answer may be that of a request which was carried out; what is not ours is not sent."""
    shop = store.shopify.shop(store.shop, TOKEN)
    await store.fault(unanswered={"times": 1})
    with pytest.raises(ShopifyUnavailableError):
        await shop.query(Answer, NAME, still=lambda: None)
    assert await store.requests() == 1

    def not_any_more():
        raise LeaseLostError("operation:1")

    with pytest.raises(LeaseLostError):
        await shop.query(Answer, NAME, still=not_any_more)
    assert await store.requests() == 1
    assert await shop.query(Answer, NAME, still=lambda: None) == Answer(Named(store.shop))


async def test_nobody_answers(store):
    """A shop whose address refuses connections is unavailable after the tries, not refused."""
    shop = store.shopify.shop(store.shop, TOKEN)
    with pytest.raises(ShopifyUnavailableError, match="ConnectError"):
        await replace(shop, url="http://127.0.0.1:1/").query(Answer, NAME)
