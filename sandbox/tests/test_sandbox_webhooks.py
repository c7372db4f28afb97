import base64
import hashlib
import hmac
import json

import pytest

TOPICS = [
    "ORDERS_CREATE",
    "ORDERS_UPDATED",
    "ORDERS_CANCELLED",
    "ORDERS_DELETE",
    "REFUNDS_CREATE",
    "CUSTOMERS_CREATE",
    "CUSTOMERS_UPDATE",
    "CUSTOMERS_DELETE",
    "CUSTOMERS_PURCHASING_SUMMARY",
    "PRODUCTS_CREATE",
    "PRODUCTS_UPDATE",
    "PRODUCTS_DELETE",
    "BULK_OPERATIONS_FINISH",
]
TAKEN = "Address for this topic has already been taken"


async def flush(sandbox):
    answer = await sandbox.control("POST", "/webhooks/flush")
    assert answer["flushed"]
    return answer["counters"]


@pytest.mark.parametrize(("uri", "message"), [
    ("http://example.com/hook", "Address protocol http:// is not supported"),
    ("https://some.myshopify.com/hook", "Address cannot be a Shopify or an internal domain"),
    ("", "Address can't be blank"),
    ("nonsense", "Address is invalid"),
])  # fmt: skip
async def test_bad_addresses_are_refused_in_shopifys_words(sandbox, uri, message):
    """Only plain http to this machine is let through."""
    answer = await sandbox.subscribe("ORDERS_CREATE", uri)
    assert answer["userErrors"] == [{"field": ["webhookSubscription", "callbackUrl"], "message": message}]


async def test_subscriptions_are_unique_listed_changed_and_deleted(sandbox, receiver):
    """The same topic and address again is taken; the rest is plain bookkeeping."""
    made = (await sandbox.subscribe("ORDERS_CREATE", receiver.uri))["webhookSubscription"]
    assert (await sandbox.subscribe("ORDERS_CREATE", receiver.uri))["userErrors"][0]["message"] == TAKEN
    update = """mutation($i: ID!, $s: WebhookSubscriptionInput!) { webhookSubscriptionUpdate(id: $i,
        webhookSubscription: $s) { webhookSubscription { uri } userErrors { message } } }"""
    changed = await sandbox.data(update, {"i": made["id"], "s": {"uri": receiver.uri + "?2"}})
    assert changed["webhookSubscriptionUpdate"]["webhookSubscription"]["uri"].endswith("?2")
    listing = "{ webhookSubscriptions(first: 5) { nodes { id topic } } webhookSubscriptionsCount { count } }"
    assert (await sandbox.data(listing))["webhookSubscriptions"]["nodes"] == [
        {"id": made["id"], "topic": "ORDERS_CREATE"}
    ]
    delete = "mutation($i: ID!) { webhookSubscriptionDelete(id: $i) { deletedWebhookSubscriptionId } }"
    assert (await sandbox.data(delete, {"i": made["id"]}))["webhookSubscriptionDelete"][
        "deletedWebhookSubscriptionId"
    ]
    assert (await sandbox.data(listing))["webhookSubscriptionsCount"]["count"] == 0


async def test_a_delivery_is_signed_and_says_what_it_is(sandbox, receiver):
    """All of Shopify's headers, and an HMAC over the very bytes."""
    await sandbox.subscribe("ORDERS_CREATE", receiver.uri)
    id_ = (await sandbox.control("POST", "/orders"))["id"]
    await flush(sandbox)
    [(headers, body)] = receiver.got
    wanted = base64.b64encode(hmac.new(b"sandbox-client-secret", body, hashlib.sha256).digest()).decode()
    assert headers["x-shopify-hmac-sha256"] == wanted
    assert headers["x-shopify-topic"] == "orders/create"
    assert headers["x-shopify-shop-domain"] == sandbox.shop
    assert headers["x-shopify-api-version"] == "2026-10"
    assert {"x-shopify-webhook-id", "x-shopify-event-id", "x-shopify-triggered-at"} <= headers.keys()
    assert json.loads(body)["id"] == id_
    assert b"gid:\\/\\/shopify" in body


@pytest.mark.samples
async def test_bodies_have_the_keys_of_shopifys_samples(sandbox, receiver, material):
    """No key of a documented payload is missing and none is invented, down to lines and variants."""
    for topic in TOPICS:
        assert not (await sandbox.subscribe(topic, receiver.uri))["userErrors"]
    await sandbox.control("POST", "/traffic", per_second=1000, seconds=0.2, seed=5)
    await sandbox.bulk("{ orders { edges { node { id } } } }")
    await flush(sandbox)
    checked = 0
    for file in sorted((material / "samples/webhooks").glob("*.json")):
        bodies, sample = receiver.of(file.stem.replace("__", "/")), json.loads(file.read_text())
        for body in bodies:
            keys = (
                body.keys() | {"default_address"}
                if file.stem.startswith("customers__") and "first_name" in body
                else body.keys()
            )
            assert keys == sample.keys(), file.stem
            for nested in ("line_items", "variants", "refund_line_items", "shipping_lines"):
                if body.get(nested) and sample.get(nested):
                    assert body[nested][0].keys() == sample[nested][0].keys(), (file.stem, nested)
        checked += bool(bodies)
    assert checked >= 9


async def test_the_last_webhook_of_each_order_is_the_truth(sandbox, receiver):
    """After a burst, whoever kept the newest body of every order holds exactly what the shop holds."""
    for topic in ("ORDERS_CREATE", "ORDERS_UPDATED", "ORDERS_CANCELLED", "ORDERS_DELETE"):
        await sandbox.subscribe(topic, receiver.uri)
    await sandbox.control("POST", "/traffic", per_second=1000, seconds=0.3, seed=9)
    await flush(sandbox)
    newest, deleted = {}, set()
    for headers, body in sorted(receiver.got, key=lambda each: each[0]["x-shopify-triggered-at"]):
        row = json.loads(body)
        if headers["x-shopify-topic"] == "orders/delete":
            deleted.add(row["id"])
        else:
            newest[row["id"]] = row
    truth = await sandbox.truth("orders")
    lines = await sandbox.truth("order_line_items")
    assert deleted.isdisjoint(truth)
    assert newest
    for id_, row in newest.items():
        if id_ in deleted:
            continue
        held = truth[id_]
        assert row["total_price"] == held["total_price"]
        assert row["current_total_price"] == held["current_total_price"]
        assert row["financial_status"].upper() == held["financial_status"]
        assert [tag for tag in row["tags"].split(", ") if tag] == held["tags"]
        back = sum(float(paid["amount"]) for each in row["refunds"] for paid in each["transactions"])
        assert f"{back:.2f}" == held["total_refunded"]
        for line in row["line_items"]:
            assert (line["quantity"], line["current_quantity"]) == (
                lines[line["id"]]["quantity"],
                lines[line["id"]]["current_quantity"],
            )


async def test_a_customers_totals_follow_its_orders(sandbox, receiver):
    """A paid order raises numberOfOrders and amountSpent, announced by customers/purchasing_summary."""
    await sandbox.subscribe("CUSTOMERS_PURCHASING_SUMMARY", receiver.uri)
    customer = next(row for row in (await sandbox.truth("customers")).values() if row["number_of_orders"])
    order = (
        await sandbox.control(
            "POST", "/orders", customer_id=customer["id"], lines=[{"quantity": 1}], test=False
        )
    )["id"]
    await flush(sandbox)
    paid = (await sandbox.truth("orders"))[order]["total_price"]
    now = (await sandbox.truth("customers"))[customer["id"]]
    assert now["number_of_orders"] == customer["number_of_orders"] + 1
    assert float(now["amount_spent"]) == pytest.approx(float(customer["amount_spent"]) + float(paid))
    [body] = receiver.of("customers/purchasing_summary")
    assert (body["numberOfOrders"], body["amountSpent"]["amount"]) == (
        now["number_of_orders"],
        now["amount_spent"],
    )


async def test_a_failed_delivery_is_repeated_unchanged(sandbox, receiver):
    """The same bytes and the same webhook id, until it is accepted."""
    await sandbox.subscribe("ORDERS_CREATE", receiver.uri)
    receiver.answers = [500, 302]
    await sandbox.control("POST", "/orders")
    counters = await flush(sandbox)
    assert counters["webhooks_retried"] == 2
    assert len({(headers["x-shopify-webhook-id"], body) for headers, body in receiver.got}) == 1


async def test_after_nine_failures_the_subscription_is_gone(sandbox, receiver):
    """Eight retries, then Shopify removes what was subscribed through the API."""
    await sandbox.control("PATCH", webhook_retry_seconds=0.0001)
    await sandbox.subscribe("ORDERS_CREATE", receiver.uri)
    receiver.answers = [500] * 9
    await sandbox.control("POST", "/orders")
    await flush(sandbox)
    assert len(receiver.got) == 9
    assert (await sandbox.control("GET"))["webhook_subscriptions"] == []


async def test_deliveries_can_be_dropped_and_doubled(sandbox, receiver):
    """A dropped event never comes, a doubled one comes twice with one id."""
    await sandbox.subscribe("ORDERS_CREATE", receiver.uri)
    await sandbox.control("PATCH", "/faults", webhook_drop={"times": 1})
    await sandbox.control("POST", "/orders")
    await sandbox.control("PATCH", "/faults", webhook_duplicate={"times": 1})
    await sandbox.control("POST", "/orders")
    await flush(sandbox)
    assert len(receiver.got) == 2
    assert len({headers["x-shopify-webhook-id"] for headers, _ in receiver.got}) == 1


async def test_any_body_can_be_delivered(sandbox, receiver):
    """Raw text is signed as it is, compliance topics too, and the receiver's status comes back."""
    await sandbox.subscribe("ORDERS_CREATE", receiver.uri)
    receiver.answers = [401]
    body = '{ "shop_id" : 1 }'
    answer = await sandbox.control(
        "POST", "/deliver", topic="shop/redact", body=body, headers={"X-Shopify-Hmac-Sha256": "no"}
    )
    assert answer["status"] == 401
    assert receiver.got[0][1] == body.encode()
    assert receiver.got[0][0]["x-shopify-hmac-sha256"] == "no"


async def test_uninstalling_kills_tokens_and_subscriptions(sandbox, receiver):
    """app/uninstalled goes out when the token is dead already."""
    await sandbox.subscribe("APP_UNINSTALLED", receiver.uri)
    await sandbox.control("POST", "/uninstall")
    assert receiver.of("app/uninstalled")[0]["myshopify_domain"] == sandbox.shop
    assert (await sandbox.post("{ shop { name } }")).status_code == 401


async def test_a_finished_operation_is_announced(sandbox, receiver):
    """bulk_operations/finish names the operation and its end, never the link."""
    await sandbox.subscribe("BULK_OPERATIONS_FINISH", receiver.uri)
    operation, _ = await sandbox.bulk("{ orders { edges { node { id } } } }")
    await flush(sandbox)
    [body] = receiver.of("bulk_operations/finish")
    assert (body["admin_graphql_api_id"], body["status"], body["error_code"]) == (
        operation["id"],
        "completed",
        None,
    )
