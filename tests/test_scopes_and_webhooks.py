"""What a token may not read, what is opened later, and webhooks that were lost."""

from __future__ import annotations

import signal

from stores import TOKEN, make_store

LIVE_WITHIN = 60  # seconds
LONG_AGO = "2026-01-01T00:00:00Z"
SCOPES = ("read_orders", "read_all_orders", "read_customers", "read_products", "read_inventory")


async def kinds(store) -> list[str]:
    """The jobs that were queued, in order."""
    rows = await store.db.fetch("select kind from control.jobs order by id")
    return [row["kind"] for row in rows]


async def grant(store, *scopes: str) -> None:
    """The merchant grants scopes, and Shopify says so by webhook."""
    await store.post("tokens", token=TOKEN, scopes=list(scopes))
    body = f'{{"id": 1, "previous": [], "current": {list(scopes)!r}, "updated_at": "2026-01-01T00:00:00Z"}}'
    assert await store.deliver("app/scopes_update", body.replace("'", '"')) == 200


async def test_a_scope_that_is_missing_closes_its_resource_only(services, until):
    """Without read_customers all else goes live; granted later, customers come, and orders name theirs."""
    await services.start_all()
    granted = [scope for scope in SCOPES if scope != "read_customers"]
    async with make_store(services, orders=120, scopes=granted) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences("products", "product_variants", "refunds") == []
        assert await store.db.fetchval("select count(*) from shopify.customers") == 0
        assert await kinds(store) == ["recent_sync", "bulk_orders", "bulk_products", "catch_up", "audit"]

        await grant(store, *SCOPES)
        await until(lambda: store.db.fetchval("select count(*) > 5 from control.jobs"), LIVE_WITHIN)
        await until(store.is_live, LIVE_WITHIN)
        assert (await kinds(store))[5:] == ["bulk_orders", "bulk_customers", "catch_up", "audit"]
        assert await store.differences() == []
        topics = await store.db.fetch("select topic from control.webhook_subscriptions")
        assert "CUSTOMERS_UPDATE" in {row["topic"] for row in topics}


async def test_older_orders_come_when_read_all_orders_is_granted(services, until):
    """Without read_all_orders the last 60 days come; granted later, only what was hidden is loaded."""
    await services.start_all()
    granted = [scope for scope in SCOPES if scope != "read_all_orders"]
    async with make_store(services, orders=400, scopes=granted) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        visible = await store.db.fetchval("select count(*) from shopify.orders")
        oldest = await store.db.fetchval(
            "select now() - min(created_at) < interval '61 days' from shopify.orders"
        )
        assert 0 < visible < 400
        assert oldest

        await grant(store, *SCOPES)
        await until(lambda: store.db.fetchval("select count(*) > 6 from control.jobs"), LIVE_WITHIN)
        await until(store.is_live, LIVE_WITHIN)
        assert (await kinds(store))[6:] == ["bulk_orders", "catch_up", "audit"]
        loaded = await store.db.fetchval(
            "select object_count from control.bulk_operations o join control.jobs j on j.id = o.job_id "
            "where j.before is not null"
        )
        assert loaded > 0
        assert await store.differences() == []


async def test_a_scope_that_was_taken_away_is_loaded_again_when_it_is_back(services, until):
    """What changed meanwhile comes, and orders name their customers again; a late word changes nothing."""
    await services.start_all()
    async with make_store(services, orders=60) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        await grant(store, *(scope for scope in SCOPES if scope != "read_customers"))
        customer, order = await store.db.fetchrow(
            "select customer_id, id from shopify.orders where customer_id is not null limit 1"
        )
        await store.post(f"customers/{customer}/update", note="nobody may see this")
        await store.post(f"orders/{order}/update", note="by whom?")
        jobs = await store.db.fetchval("select count(*) from control.jobs")

        await grant(store, *SCOPES)
        late = '{"id": 1, "previous": [], "current": ["read_orders"], "updated_at": "2026-01-01T00:00:00Z"}'
        assert await store.deliver("app/scopes_update", late, **{"X-Shopify-Triggered-At": LONG_AGO}) == 200
        await until(lambda: store.db.fetchval("select count(*) > $1 from control.jobs", jobs), LIVE_WITHIN)
        await until(store.is_live, LIVE_WITHIN)
        assert (await kinds(store))[jobs:] == ["bulk_orders", "bulk_customers", "catch_up", "audit"]
        await until(store.equals, LIVE_WITHIN)


async def test_a_lost_subscription_is_registered_again_and_what_it_missed_is_read(services, until):
    """Shopify dropped the subscriptions and a change was missed: both are mended without a person."""
    services.env |= {"WEBHOOK_CHECK_EVERY": "1"}
    await services.start_all()
    async with make_store(services, orders=40) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        before = await _subscriptions(store)
        for gid in before.values():
            await _unsubscribe(store, gid)
        order = await store.db.fetchval("select max(id) from shopify.orders")
        await store.post(f"orders/{order}/update", note="changed while nobody listened")

        await until(store.equals, LIVE_WITHIN)
        await until(lambda: _all_anew(store, before))


async def _all_anew(store, before) -> bool:
    after = await _subscriptions(store)
    return after.keys() == before.keys() and not set(after.values()) & set(before.values())


async def test_a_missed_webhook_is_healed_by_the_scheduled_catch_up(services, until):
    """A webhook that never came: the next catch_up, queued by the schedule, brings the change."""
    services.env |= {"CATCH_UP_EVERY": "1"}
    await services.start_all()
    async with make_store(services, orders=40) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        await store.http.patch(f"{store.control}/faults", json={"webhook_drop": True})
        order = await store.db.fetchval("select max(id) from shopify.orders")
        await store.post(f"orders/{order}/update", note="nobody was told")
        await until(store.equals, LIVE_WITHIN)
        assert await store.db.fetchval("select source from shopify.orders where id = $1", order) == "catch_up"


async def test_a_catch_up_reads_more_than_shopify_pages(services, until):
    """After a long absence more has changed than the 25,000 objects of a listing that Shopify pages."""
    running = await services.start_all()
    fast = {"bucket": 20_000, "restore_rate": 10_000}
    async with make_store(services, orders=20, customers=26_000, **fast) as store:
        await store.connect()
        await until(store.is_live, 2 * LIVE_WITHIN)
        async with store.db.transaction():
            await store.db.execute("update control.jobs set created_at = created_at - interval '20 years'")
            await store.db.execute("update shopify.customers set source = 'bulk'")
        await running["bulk-runner"].kill(signal.SIGTERM)
        await services.start("bulk-runner", CATCH_UP_EVERY="1")
        await until(lambda: _all_are_caught_up(store), 2 * LIVE_WITHIN)
        await until(store.equals, LIVE_WITHIN)


async def _all_are_caught_up(store) -> bool:
    assert await store.is_live()
    query = "select bool_and(source = 'catch_up') from shopify.customers"
    return bool(await store.db.fetchval(query))


async def _subscriptions(store) -> dict[str, str]:
    answer = await store.http.get(store.control)
    return {s["topic"]: s["id"] for s in answer.json()["webhook_subscriptions"]}


async def _unsubscribe(store, subscription: object) -> None:
    gid = f"gid://shopify/WebhookSubscription/{str(subscription).rpartition('/')[2]}"
    answer = await store.http.post(
        f"{store.services.sandbox_url}/{store.shop}/admin/api/2026-10/graphql.json",
        json={
            "query": "mutation($id: ID!) { "
            "webhookSubscriptionDelete(id: $id) { deletedWebhookSubscriptionId } }",
            "variables": {"id": gid},
        },
        headers={"X-Shopify-Access-Token": TOKEN},
    )
    assert answer.json()["data"]["webhookSubscriptionDelete"]["deletedWebhookSubscriptionId"] == gid
