"""The management API and the webhook endpoint of a running ingress, against the sandbox."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from shared.secrets import TokenVault

NUMBERS = itertools.count(1)
TOKEN = "shpat_of_the_test"
SECRET = "sandbox-client-secret"
SENT = "2026-11-20T10:00:00.000000Z"


class Ingress:
    """A client of one running ingress, with the database behind it and the sandbox before it."""

    def __init__(self, services, http, db):
        self.services, self.http, self.db = services, http, db

    async def call(self, method, path, body=None, **kwargs):
        url = self.services.ingress_url + path
        return await self.http.request(method, url, json=body, headers=self.services.headers, **kwargs)

    async def connect(self, shop, brand, token=TOKEN):
        body = {"brandId": brand, "shop": shop, "accessToken": token}
        return await self.call("POST", "/api/connections", body)

    async def new_shop(self):
        """Another shop of the sandbox; returns its domain."""
        shop = f"ingress-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
        wanted = {"shop": shop, "token": TOKEN, "orders": 0, "customers": 0, "products": 0}
        answer = await self.http.post(f"{self.services.sandbox_url}/_sandbox/stores", json=wanted)
        assert answer.status_code == 201, answer.text
        return shop

    async def sandbox(self, shop, path="", **body):
        url = f"{self.services.sandbox_url}/_sandbox/stores/{shop}{path}"
        answer = await (self.http.post(url, json=body) if body else self.http.get(url))
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def webhook(self, shop, topic, body, *, id_="w-1", secret=SECRET, **headers):
        """Deliver raw bytes; a header given as None is left out."""
        signature = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
        known = {
            "X-Shopify-Topic": topic,
            "X-Shopify-Shop-Domain": shop,
            "X-Shopify-Webhook-Id": id_,
            "X-Shopify-Hmac-Sha256": signature,
            "X-Shopify-Triggered-At": SENT,
        }
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            f"{self.services.ingress_url}/webhooks/shopify",
            content=body,
            headers=[(n.encode(), v.encode()) for n, v in known.items() if v is not None],
        )

    async def count(self, table):
        return await self.db.fetchval(f"select count(*) from {table}")


@pytest.fixture
async def ingress(services):
    """A running ingress, and nothing else."""
    async with running(services) as client:
        yield client


@asynccontextmanager
async def running(services, **env):
    await services.start("ingress", **env)
    db = await asyncpg.connect(services.env["DATABASE_URL"])
    async with httpx.AsyncClient(timeout=20) as http:
        yield Ingress(services, http, db)
    await db.close()


def assert_problem(answer, status, *words):
    """It is a problem document of that status, and says what it should."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    for word in words:
        assert word in document["title"] + ": " + document["detail"]


async def test_nothing_is_answered_without_the_key(ingress):
    """Every management call without the right bearer key is 401 and names the scheme; none is carried out."""
    wrong = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + ingress.services.api_key})
    wrong += ({"Authorization": ingress.services.api_key}, {"Authorization": "Bearer"})
    calls = (
        ("GET", "/api/connections"),
        ("POST", "/api/connections"),
        ("GET", "/api/connections/1"),
        ("DELETE", "/api/connections/1"),
        ("POST", "/api/sync/acme"),
    )
    for method, path in calls:
        for headers in wrong:
            answer = await ingress.http.request(method, ingress.services.ingress_url + path, headers=headers)
            assert_problem(answer, 401, "Unauthorized", "BACKSTOCK_API_KEY")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert await ingress.count("control.connections") == 0


async def test_bad_requests_say_what_is_wrong(ingress):
    """A body, a brand, a shop, a token, a job or a page that is none is 400, with the field's name."""
    shop = await ingress.new_shop()
    good = {"brandId": "acme", "shop": shop, "accessToken": TOKEN}
    for change, words in (
        ({"brandId": ""}, "brandId"),
        ({"brandId": "a b"}, "brandId"),
        ({"brandId": "a" * 101}, "brandId"),
        ({"brandId": "../x"}, "brandId"),
        ({"brandId": 7}, "brandId"),
        ({"shop": "example.com"}, "shop"),
        ({"shop": f"https://{shop}"}, "shop"),
        ({"accessToken": ""}, "accessToken"),
        ({"accessToken": "shpat_\n"}, None),
        ({"accessToken": "shpät"}, "accessToken"),
        ({"accessToken": "x" * 501}, "accessToken"),
        ({"token": "x"}, "token"),
    ):
        answer = await ingress.call("POST", "/api/connections", {**good, **change})
        if words is None:  # white space around a token is taken off: this one is merely wrong
            assert_problem(answer, 422)
        else:
            assert_problem(answer, 400, words)
    for body in (b"", b"{", b"[]", b"null", b"\xff", json.dumps({"brandId": "acme"}).encode()):
        headers = {**ingress.services.headers, "Content-Type": "application/json"}
        url = f"{ingress.services.ingress_url}/api/connections"
        assert_problem(await ingress.http.post(url, content=body, headers=headers), 400)
    assert_problem(
        await ingress.call("POST", "/api/sync/acme", {"jobs": ["all"]}), 400, "jobs", "bulk_orders"
    )
    assert_problem(await ingress.call("POST", "/api/sync/acme", {"jobs": []}), 400, "jobs")
    assert_problem(await ingress.call("POST", "/api/sync/acme", {"job": "audit"}), 400)
    assert_problem(await ingress.call("GET", "/api/connections?limit=0"), 400, "limit")
    assert_problem(await ingress.call("GET", f"/api/connections?offset={10**30}"), 400, "offset")
    assert await ingress.count("control.connections") == 0


async def test_a_token_that_shopify_refuses_is_not_stored(ingress):
    """401 and 404 of Shopify are 422 here, with what helps; nothing is stored."""
    shop = await ingress.new_shop()
    refused = await ingress.connect(shop, "acme", "shpat_wrong")
    assert_problem(refused, 422, "does not accept the access token", "Connect the store again")
    assert refused.json()["code"] == "invalid_token"
    assert_problem(await ingress.connect("nobody.myshopify.com", "acme"), 422, "There is no shop")
    assert await ingress.count("control.connections") == 0
    assert await ingress.count("control.outbox") == 0


async def test_a_connection_is_made_read_and_made_again(ingress):
    """The same brand and shop again: the same connection, a new token, which is never shown."""
    shop = await ingress.new_shop()
    answer = await ingress.connect(shop.upper(), "acme")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["metadata"] == {"v2_architecture": True}
    assert (made["brandId"], made["shop"], made["syncStatus"]) == ("acme", shop, "connecting")
    stored = await ingress.db.fetchval("select access_token from control.connections")
    assert TOKEN.encode() not in stored

    await ingress.sandbox(shop, "/tokens", token="shpat_new", scopes=["read_orders"])
    again = (await ingress.connect(shop, "acme", "shpat_new")).json()
    assert again["connectionId"] == made["connectionId"]
    assert again["scopes"] == ["read_orders"]
    assert await ingress.db.fetchval("select access_token from control.connections") != stored
    created = "select count(*) from control.outbox where event_type = 'ConnectionCreated'"
    assert await ingress.db.fetchval(created) == 1

    listed = (await ingress.call("GET", "/api/connections")).json()
    read = (await ingress.call("GET", f"/api/connections/{made['connectionId']}")).json()
    assert [entry["connectionId"] for entry in listed] == [made["connectionId"]]
    assert read["shop"] == shop
    assert "shpat" not in json.dumps([listed, read, again])
    assert "shpat" not in ingress.services.processes[0].log
    assert_problem(await ingress.call("GET", "/api/connections/999"), 404, "no connection 999")
    assert (await ingress.call("GET", f"/api/connections/{10**30}")).status_code in (400, 404)


async def test_a_brand_and_a_shop_belong_to_each_other(ingress):
    """A brand with another shop, and a shop with another brand, are 409 and name what is in the way."""
    mine, other = await ingress.new_shop(), await ingress.new_shop()
    assert (await ingress.connect(mine, "acme")).status_code == 201
    assert_problem(await ingress.connect(other, "acme"), 409, "Brand in use", mine)
    assert_problem(await ingress.connect(mine, "other"), 409, "Shop in use", mine)
    assert await ingress.count("control.connections") == 1


async def test_two_requests_at_once_make_one_connection(ingress):
    """Ten clients connect the same brand together: they get the same connection, or are told to wait."""
    shop = await ingress.new_shop()
    answers = await asyncio.gather(*(ingress.connect(shop, "acme") for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["connectionId"] for answer in answers if answer.status_code == 201}) == 1
    created = "select count(*) from control.outbox where event_type = 'ConnectionCreated'"
    assert await ingress.db.fetchval(created) == 1


async def test_a_load_that_is_asked_for_notes_the_scopes_that_it_lacks(ingress):
    """What they open is loaded when they are granted."""
    await ingress.connect(await ingress.new_shop(), "acme")
    await ingress.db.execute("update control.connections set scopes = '{read_orders,read_products}'")
    await ingress.call("POST", "/api/sync/acme", {"jobs": ["bulk_orders", "audit"]})
    noted = await ingress.db.fetch("select kind, lacking from control.jobs order by kind")
    assert [tuple(row) for row in noted if row["kind"] != "recent_sync"] == [
        ("audit", []),
        ("bulk_orders", ["read_all_orders", "read_customers"]),
    ]


async def test_scopes_that_are_lost_count_as_never_had(ingress):
    """By a new grant or by webhook, in whatever order: what they open is to be loaded when they are back."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    await ingress.call("POST", "/api/sync/acme", {"jobs": ["bulk_orders"]})
    lacking = "select lacking from control.jobs where kind = 'bulk_orders'"
    assert await ingress.db.fetchval(lacking) == []
    await ingress.sandbox(shop, "/tokens", token="shpat_less", scopes=["read_orders", "read_customers"])
    await ingress.connect(shop, "acme", "shpat_less")
    assert {"read_all_orders", "read_products"} <= set(await ingress.db.fetchval(lacking))

    for at, scopes in ((+1, '["read_orders"]'), (-1, '["read_orders", "read_customers", "read_products"]')):
        moment = {"X-Shopify-Triggered-At": (datetime.now(UTC) + timedelta(minutes=at)).isoformat()}
        body = f'{{"current": {scopes}}}'.encode()
        sent = await ingress.webhook(shop, "app/scopes_update", body, id_=f"w{at}", **moment)
        assert sent.status_code == 200
        assert await ingress.db.fetchval("select scopes from control.connections") == ["read_orders"]
    assert {"read_customers", "read_products"} <= set(await ingress.db.fetchval(lacking))


async def test_a_sync_queues_each_job_once(ingress):
    """Jobs are queued with their events, a waiting one is named again; an unknown brand is 404."""
    await ingress.connect(await ingress.new_shop(), "acme")
    first = await ingress.call("POST", "/api/sync/acme", {"jobs": ["audit", "bulk_orders", "audit"]})
    assert first.status_code == 202
    assert [job["kind"] for job in first.json()["jobs"]] == ["bulk_orders", "audit"]
    again = await ingress.call("POST", "/api/sync/acme", {"jobs": ["bulk_orders"]})
    assert again.json()["jobs"] == first.json()["jobs"][:1]
    queued = "select count(*) from control.outbox where event_type = 'JobQueued'"
    assert await ingress.db.fetchval(queued) == 2
    for brand in ("nobody", "ACME", "%00", "%F0%9F%98%80"):
        answer = await ingress.call("POST", f"/api/sync/{brand}", {"jobs": ["audit"]})
        assert_problem(answer, 404)


async def test_a_catch_up_goes_on_where_the_last_one_began(ingress):
    """Else changes between them would be read by none; one at work owes what it may have passed by."""
    await ingress.connect(await ingress.new_shop(), "acme")
    ended = (
        "update control.jobs set state = 'completed', created_at = now() - interval '2 hours' "
        "returning created_at"
    )
    again = {"jobs": ["catch_up"]}
    await ingress.call("POST", "/api/sync/acme", again)
    first = await ingress.db.fetchval(ended)
    await ingress.call("POST", "/api/sync/acme", again)
    second = "select state, since, owes from control.jobs order by id desc limit 1"
    assert tuple(await ingress.db.fetchrow(second)) == ("queued", first, None)
    await ingress.call("POST", "/api/sync/acme", again)  # it has not begun: nothing is passed by
    assert tuple(await ingress.db.fetchrow(second)) == ("queued", first, None)
    await ingress.db.execute("update control.jobs set state = 'running' where state = 'queued'")
    asked_at = await ingress.db.fetchval("select clock_timestamp()")
    await ingress.call("POST", "/api/sync/acme", again)
    state, since, owes = await ingress.db.fetchrow(second)
    assert (state, since) == ("running", first)
    assert owes >= asked_at


async def test_a_disconnected_store_keeps_its_data_and_nothing_else(ingress, until):
    """Subscriptions at Shopify, token and waiting jobs go, rows stay; connecting again starts over."""
    shop = await ingress.new_shop()
    id_ = (await ingress.connect(shop, "acme")).json()["connectionId"]
    await until(lambda: _registered(ingress))
    assert len((await ingress.sandbox(shop))["webhook_subscriptions"]) == 17
    await ingress.call("POST", "/api/sync/acme", {"jobs": ["audit"]})
    await ingress.db.execute(
        "insert into shopify.orders (connection_id, id, source, sent_at, revision) "
        "values ($1, 1, 'bulk', now(), 1)",
        id_,
    )

    assert (await ingress.call("DELETE", f"/api/connections/{id_}")).status_code == 204
    assert (await ingress.sandbox(shop))["webhook_subscriptions"] == []
    row = await ingress.db.fetchrow("select * from control.connections")
    assert (row["sync_status"], row["access_token"]) == ("removed", None)
    assert await ingress.db.fetchval("select state from control.jobs") == "canceled"
    assert await ingress.count("shopify.orders") == 1
    assert_problem(await ingress.webhook(shop, "orders/delete", b'{"id":1}'), 404, "Unknown shop")
    assert_problem(await ingress.call("POST", "/api/sync/acme", {"jobs": ["audit"]}), 404)
    assert (await ingress.call("DELETE", f"/api/connections/{id_}")).status_code == 204
    removed = "select count(*) from control.outbox where event_type = 'ConnectionRemoved'"
    assert await ingress.db.fetchval(removed) == 1
    assert_problem(await ingress.call("DELETE", "/api/connections/999"), 404)

    again = (await ingress.connect(shop, "acme")).json()
    assert (again["connectionId"], again["syncStatus"], again["removedAt"]) == (id_, "connecting", None)
    await until(lambda: _registered(ingress))


async def test_privacy_requests_reach_what_stayed_of_disconnected_brands(ingress):
    """Shopify sends them after the app is gone: the rows of each brand that the shop had are meant."""
    shop, other = await ingress.new_shop(), await ingress.new_shop()
    for brand, of in (("first", shop), ("second", shop), ("other", other)):
        id_ = (await ingress.connect(of, brand)).json()["connectionId"]
        assert (await ingress.call("DELETE", f"/api/connections/{id_}")).status_code == 204
    customer = b'{"customer": {"id": 5, "email": "a@example.com"}, "orders_to_redact": [1]}'
    assert (await ingress.webhook(shop, "customers/redact", customer)).status_code == 200
    assert (await ingress.webhook(shop, "shop/redact", b'{"shop_id": 1}', id_="w-2")).status_code == 200
    staged = await ingress.db.fetch(
        "select c.brand_id, r.customer_id, r.order_ids, r.whole_shop from stage.redactions r "
        "join control.batches b on b.id = r.batch_id join control.connections c on c.id = b.connection_id "
        "join control.outbox o on (o.payload::jsonb ->> 'batch_id')::bigint = b.id "
        "where o.event_type = 'StagedBatch' order by b.id"
    )
    assert [tuple(row) for row in staged] == [
        ("first", 5, [1], False),
        ("second", 5, [1], False),
        ("first", None, [], True),
        ("second", None, [], True),
    ]
    assert (await ingress.webhook(shop, "customers/redact", b'{"customer": 5}', id_="w-3")).status_code == 200
    noted = await ingress.db.fetch("select subject from control.compliance_requests order by id")
    assert [json.loads(row["subject"]) for row in noted] == [
        {"customer": 5, "orders": [1], "dataRequest": None},
        {"shop": True},
        {"unreadable": True},
    ]


async def _registered(ingress):
    return await ingress.db.fetchval("select count(*) = 17 from control.webhook_subscriptions")


async def test_a_webhook_that_is_not_shopifys_is_refused(ingress):
    """A wrong, foreign, missing or garbled signature is 401; nothing of it is noted."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    body = b'{"id":1}'
    answers = [
        await ingress.webhook(shop, "orders/delete", body, secret="another"),
        await ingress.webhook(shop, "orders/delete", body, X_Shopify_Hmac_Sha256=None),
        await ingress.webhook(shop, "orders/delete", body, X_Shopify_Hmac_Sha256="ü"),
        await ingress.webhook(shop, "orders/delete", body, X_Shopify_Hmac_Sha256="AAAA"),
    ]
    for answer in answers:
        assert_problem(answer, 401, "Bad signature", "SHOPIFY_CLIENT_SECRET")
    assert await ingress.count("control.webhook_deliveries") == 0


async def test_webhooks_in_a_wrong_form_are_refused(ingress):
    """An unknown shop is 404, a missing header 400, another method 405, too large a body 413."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    url = f"{ingress.services.ingress_url}/webhooks/shopify"
    body = b'{"id":1}'
    unknown = await ingress.webhook("unknown.myshopify.com", "orders/delete", body)
    assert_problem(unknown, 404, "Unknown shop", "unknown.myshopify.com")
    for header in ("X_Shopify_Topic", "X_Shopify_Shop_Domain", "X_Shopify_Webhook_Id"):
        answer = await ingress.webhook(shop, "orders/delete", body, **{header: None})
        assert_problem(answer, 400, "Missing header")
    assert_problem(await ingress.webhook("evil.example.com", "orders/delete", body), 400)
    got = await ingress.http.get(url)
    assert_problem(got, 405, "POST")
    assert got.headers["allow"] == "POST"
    assert_problem(await ingress.webhook(shop, "orders/delete", b" " * (10 * 1024 * 1024 + 1)), 413)

    async def chunks():  # no Content-Length: counted while it comes in
        for _ in range(11):
            yield b" " * 1024 * 1024

    assert_problem(await ingress.http.post(url, content=chunks()), 413)
    for topic in ("customers/data_request", "customers/redact", "shop/redact"):
        answer = await ingress.webhook("gone.myshopify.com", topic, b"{}", id_=topic)
        assert answer.status_code == 200  # Shopify asks this of apps that are long gone
    assert await ingress.count("control.compliance_requests") == 3


async def test_a_webhook_is_counted_once(ingress):
    """The same webhook id again, one after the other or all together, is 200 each time and staged once."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    body = b'{"id":1}'
    for _ in range(2):
        assert (await ingress.webhook(shop, "orders/delete", body)).status_code == 200
    assert await ingress.count("control.webhook_deliveries") == 1
    assert await ingress.count("stage.deletions") == 1

    sent = [ingress.webhook(shop, "orders/delete", body, id_=f"w-{n % 20}") for n in range(60)]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}
    assert await ingress.count("control.webhook_deliveries") == 20  # w-1 was there before
    assert await ingress.count("stage.deletions") == 20
    batches = await ingress.count("control.batches")
    assert batches <= 20
    staged = "select sum((rows ->> 'deletions')::int) from control.batches"
    assert await ingress.db.fetchval(staged) == 20


async def test_two_shops_may_use_the_same_webhook_id(ingress):
    """Ids are Shopify's per shop: one shop's delivery does not hide another's."""
    shops = [await ingress.new_shop(), await ingress.new_shop()]
    for shop in shops:
        await ingress.connect(shop, shop.partition(".")[0])
        assert (await ingress.webhook(shop, "orders/delete", b'{"id":1}')).status_code == 200
    assert await ingress.count("stage.deletions") == 2


BAD = {
    "cut": b'{"id": 1, "updated_at"',
    "no-text": b"\xff\xfe",
    "no-time": b'{"id": 1, "updated_at": "some day"}',
    "no-price": b'{"id":1,"updated_at":"2026-11-20","line_items":[{"id":1,"quantity":1,"price":"x"}]}',
    "too-large": b'{"id": 99999999999999999999, "updated_at": "2026-11-20T10:00:00Z"}',
    "nul": b'{"updated_at": "\\u0000"}',
}


async def texts_of(ingress, letters):
    """What was set aside, decrypted."""
    vault = TokenVault((ingress.services.env["BACKSTOCK_SECRET_KEYS"],))
    return {vault.unseal(letter["sealed"]) for letter in letters}


async def test_a_signed_body_that_means_nothing_is_put_aside(ingress):
    """It is durable, so it is 200: as a dead letter with its text and reason; its neighbours are staged."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    good = b'{"id": 5, "updated_at": "2026-11-20T10:00:00Z"}'
    sent = [ingress.webhook(shop, "orders/updated", body, id_=name) for name, body in BAD.items()]
    sent += [ingress.webhook(shop, "orders/updated", good, id_=f"good-{n}") for n in range(10)]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}

    letters = await ingress.db.fetch("select * from control.dead_letters order by id")
    assert len(letters) == len(BAD)
    assert {letter["event_type"] for letter in letters} == {"webhook orders/updated"}
    assert {letter["service"] for letter in letters} == {"ingress"}
    assert await texts_of(ingress, letters) == set(BAD.values())
    assert all(letter["payload"] == "" for letter in letters)
    found = await ingress.db.fetchrow("select sync_status, problem::text from control.connections")
    assert '"set_aside"' in found["problem"]
    assert await ingress.count("control.webhook_deliveries") == len(BAD) + 10
    assert await ingress.count("stage.orders") == 10
    again = await ingress.webhook(shop, "orders/updated", BAD["cut"], id_="cut")
    assert again.status_code == 200
    assert await ingress.count("control.dead_letters") == len(BAD)


async def test_texts_and_ids_arrive_as_they_are(ingress):
    """NUL, tabs, backslashes, emoji and the largest id go through COPY unharmed; NUL has a stand-in."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    name = "a\tb\nc\rd\\e\\N \"q\" 'é' 😀 \u2028"
    order = {"id": 2**63 - 1, "updated_at": SENT, "name": name, "note": "a\x00b", "tags": 'x\\y, "z", ü'}
    answer = await ingress.webhook(shop, "orders/create", json.dumps(order).encode())
    assert answer.status_code == 200
    row = await ingress.db.fetchrow("select * from stage.orders")
    assert (row["id"], row["name"], row["note"]) == (2**63 - 1, name, "a\ufffdb")
    assert row["tags"] == ['"z"', "x\\y", "ü"]


async def test_the_previous_secret_serves_while_rotating(services):
    """After a rotation Shopify signs with the old secret for up to an hour: both are accepted, no third."""
    async with running(services, SHOPIFY_CLIENT_SECRET_PREVIOUS="old-secret") as ingress:
        shop = await ingress.new_shop()
        await ingress.connect(shop, "acme")
        for number, (secret, status) in enumerate(((SECRET, 200), ("old-secret", 200), ("older", 401))):
            answer = await ingress.webhook(shop, "orders/delete", b'{"id":1}', id_=f"{number}", secret=secret)
            assert answer.status_code == status


async def test_a_webhook_waits_for_postgres_or_is_refused(ingress, until):
    """Whatever cannot be committed is answered 503, so that Shopify sends it again; then it is taken."""
    shop = await ingress.new_shop()
    await ingress.connect(shop, "acme")
    await ingress.db.execute("alter table control.webhook_deliveries rename to away")
    answer = await ingress.webhook(shop, "orders/delete", b'{"id":1}')
    assert_problem(answer, 503, "again")
    await ingress.db.execute("alter table control.away rename to webhook_deliveries")
    assert (await ingress.webhook(shop, "orders/delete", b'{"id":1}')).status_code == 200
    assert await ingress.count("stage.deletions") == 1
