"""What an audit finds wrong is made right by itself; what lives is never deleted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from stores import make_store

LIVE_WITHIN = 60  # seconds; a test's store is small, two cores may be busy
# Before any audit of a test begins: what comes while one reads is the next one's business.
EARLIER = {"X-Shopify-Triggered-At": (datetime.now(UTC) - timedelta(minutes=1)).isoformat()}


async def test_lost_deletions_heal_by_the_scheduled_audit(services, until):
    """An order, a customer, a product and a variant vanish, nobody is told: the next audit ends them here."""
    services.env |= {"AUDIT_EVERY": "1", "PAGED_UP_TO": "250"}
    await services.start_all()
    async with make_store(services, orders=40) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        customer = (await store.post("customers"))["id"]
        order = await store.db.fetchval("select max(id) from shopify.orders")
        products = await store.db.fetch(
            "select product_id as id, max(id) as variant from shopify.product_variants "
            "group by 1 having count(*) > 1 order by 1 limit 2"
        )
        await until(store.equals)
        await _fault(store, webhook_drop=True)
        for gone in (f"orders/{order}", f"customers/{customer}", f"products/{products[0]['id']}"):
            assert (await store.http.delete(f"{store.control}/{gone}")).status_code == 200
        await store.post(f"products/{products[1]['id']}/variants", remove=[products[1]["variant"]])

        await until(store.equals, LIVE_WITHIN)
        sources = await store.db.fetch("select source from shopify.orders where deleted_at is not null")
        assert [row["source"] for row in sources] == ["audit"]
        await until(store.is_live, LIVE_WITHIN)


async def test_missing_different_and_wrongly_deleted_rows_heal(services, until):
    """Rows that vanished or changed, a deletion that never was, a tag's lost removal: an audit mends them."""
    services.env |= {"PAGED_UP_TO": "250"}
    await services.start_all()
    async with make_store(services, orders=40) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        a, b, c = [
            row["id"] for row in await store.db.fetch("select id from shopify.orders order by id limit 3")
        ]
        await store.db.execute("delete from shopify.orders where id = $1", a)
        await store.db.execute(
            "update shopify.order_line_items set original_total = 0 where order_id = $1", b
        )
        assert await store.deliver("orders/delete", json.dumps({"id": c}), **EARLIER) == 200
        await _lone_refund(store)
        customer = await store.db.fetchval("select min(id) from shopify.customers where tags = '{}'")
        await store.db.execute(  # as it is when a tag was removed and no webhook said so
            "update shopify.customers set tags = '{added and removed}', "
            "tags_changed_at = sent_at - interval '1 minute', "
            "sent_at = sent_at - interval '1 hour', summary_at = summary_at - interval '1 hour', "
            "tags_at = sent_at - interval '1 hour' where id = $1",
            customer,
        )
        await until(
            lambda: store.db.fetchval("select count(*) = 1 from shopify.orders where deleted_at is not null")
        )

        await _audit(store)
        await until(store.equals, LIVE_WITHIN)
        await until(store.is_live, LIVE_WITHIN)
        healed = await store.db.fetch("select source from shopify.orders where id = any($1)", [a, b, c])
        assert {row["source"] for row in healed} == {"audit"}


@pytest.mark.parametrize("lie", ["the audit's list", "both", "an object by its id"])
async def test_what_lives_is_never_deleted_by_a_wrong_answer(services, until, lie):
    """An answer that leaves out a living order deletes nothing, and the store ends live and equal."""
    await services.start_all()
    async with make_store(services, orders=30) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        if lie != "an object by its id":
            await store.post("load", bulk={"orders": ""})
        else:
            await store.db.execute("update shopify.order_line_items set original_total = 0")
        if lie != "the audit's list":
            await _fault(store, nodes_null={"times": 25})  # one page of objects, asked for once
        await _audit(store)
        await until(
            lambda: store.db.fetchval("select count(*) >= 3 from control.audits"),
            LIVE_WITHIN,
        )
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        assert await store.db.fetchval("select not bool_or(rows ? 'deletions') from control.batches")


async def test_orders_out_of_sight_are_neither_wrong_nor_gone(services, until):
    """Without read_all_orders Shopify hides what is older than 60 days: an audit leaves it alone."""
    services.env |= {"PAGED_UP_TO": "250"}
    await services.start_all()
    scopes = ["read_orders", "read_customers", "read_products", "read_inventory"]
    async with make_store(services, orders=60, scopes=scopes) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        await store.db.execute(
            "create temp table old as select * from shopify.orders limit 1; "
            "update old set id = 7, created_at = now() - interval '100 days', sent_at = created_at; "
            "insert into shopify.orders select * from old"
        )
        await _lone_refund(store)
        await _audit(store)
        await until(lambda: store.db.fetchval("select count(*) = 2 from control.audits"), LIVE_WITHIN)
        assert await store.db.fetchval("select bool_and(equal) from control.audits")
        assert await store.db.fetchval("select deleted_at is null from shopify.orders where id = 7")


async def _lone_refund(store) -> None:
    """A refund whose order never came, and is gone or out of sight."""
    await store.db.execute(
        "create temp table lone as select * from shopify.refunds limit 1; "
        "update lone set id = 8, order_id = 9, sent_at = sent_at - interval '1 hour'; "
        "insert into shopify.refunds select * from lone"
    )
    assert await store.db.fetchval("select count(*) from shopify.refunds where id = 8") == 1


async def _audit(store) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{store.services.ingress_url}/api/sync/{store.brand}",
            json={"jobs": ["audit"]},
            headers=store.services.headers,
        )
    assert answer.status_code == 202, answer.text


async def _fault(store, **faults: object) -> None:
    answer = await store.http.patch(f"{store.control}/faults", json=faults)
    assert answer.status_code == 200, answer.text
