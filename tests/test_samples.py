"""What Shopify really sent, through the real services, against rows that were written down by hand.

The samples are Shopify's documented webhook bodies and captured bulk files; they lie beside the checkout,
and the tests are skipped where they are not there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from stores import make_store

SAMPLES = Path(__file__).parents[2] / "shared" / "shopify" / "samples"
WEBHOOKS = sorted(SAMPLES.glob("webhooks/*.json"))

pytestmark = [
    pytest.mark.samples,
    pytest.mark.skipif(
        not WEBHOOKS,
        reason="needs Shopify's captured samples, ../shared/shopify/samples; not part of the repository",
    ),
]

NEW_YEAR = datetime(2022, 1, 1, tzinfo=UTC)  # the samples' 2021-12-31T19:00:00-05:00
SENT = datetime(2026, 11, 20, 10, tzinfo=UTC)
ORDER, CUSTOMER, PRODUCT, REFUND = (
    820982911946154508,
    706405506930370084,
    788032119674292922,
    890088186047892319,
)
OURS = {  # our own bookkeeping: columns without a counterpart at Shopify
    *("connection_id", "synced_at", "revision", "lines_at"),
    *("summary_at", "tags_at", "tags_changed_at", "tag_changes"),
}

COMPLETE_ORDER = {
    "id": 820982911946154508,
    "name": "#9999",
    "created_at": NEW_YEAR,
    "updated_at": NEW_YEAR,
    "processed_at": NEW_YEAR,
    "cancelled_at": NEW_YEAR,
    "closed_at": None,
    "cancel_reason": "CUSTOMER",
    "financial_status": "VOIDED",
    "fulfillment_status": "UNFULFILLED",
    "currency": "USD",
    "presentment_currency": "USD",
    "total_price": Decimal("404.95"),
    "subtotal_price": Decimal("404.95"),
    "total_tax": Decimal("0.00"),
    "total_discounts": Decimal("20.00"),
    "total_shipping": Decimal("10.00"),
    "total_refunded": Decimal(0),
    "current_total_price": Decimal("414.95"),
    "current_subtotal_price": Decimal("414.95"),
    "current_total_tax": Decimal("0.00"),
    "current_total_discounts": Decimal("0.00"),
    "customer_id": 115310627314723954,
    "email": "jon@example.com",
    "phone": None,
    "note": None,
    "source_name": "web",
    "tags": ["tag1", "tag2"],
    "test": True,
    "taxes_included": False,
    "deleted_at": None,
    "source": "webhook",
    "sent_at": SENT,
    "redacted_at": None,
}

LINES = [  # id, product, title, sku, price
    (315789986012684393, 788032119674292922, "Coffee table", "SKU2006-035", "119.99"),
    (487817672276298554, 788032119674292922, "Aviator sunglasses", "SKU2006-001", "89.99"),
    (789012345678901234, None, "Lens Protection Plan (2 Year)", "LENS-PROTECT-2YR", "19.99"),
    (890123456789012345, None, "Premium Leather Case", "CASE-LEATHER-PREM", "24.99"),
    (976318377106520349, 788032119674292922, "Mid-century lounger", "SKU2006-020", "159.99"),
]

REFUND_LINES = [  # id, line, subtotal
    (315789986012684466, 315789986012684393, "119.99"),
    (487817672276298627, 487817672276298554, "89.99"),
    (789012345678901307, 789012345678901234, "19.99"),
    (890123456789012418, 890123456789012345, "24.99"),
    (976318377106520422, 976318377106520349, "159.99"),
]

COMPLETE_CUSTOMER = {
    "id": 706405506930370084,
    "first_name": "Bob",
    "last_name": "Biller",
    "email": "bob@biller.com",
    "phone": None,
    "state": "DISABLED",
    "note": "This customer loves ice cream",
    "tags": [],
    "number_of_orders": 0,
    "amount_spent": Decimal(0),
    "currency": "USD",
    "verified_email": True,
    "tax_exempt": False,
    "created_at": NEW_YEAR,
    "updated_at": NEW_YEAR,
    "deleted_at": None,
    "source": "webhook",
    "redacted_at": None,
}

COMPLETE_PRODUCT = {
    "id": 788032119674292922,
    "title": "Example T-Shirt",
    "handle": "example-t-shirt",
    "vendor": "Acme",
    "product_type": "Shirts",
    "status": "ACTIVE",
    "tags": ["example", "mens", "t-shirt"],
    "published_at": NEW_YEAR,
    "created_at": None,
    "updated_at": NEW_YEAR,
    "total_inventory": 125,
    "deleted_at": None,
    "source": "webhook",
    "sent_at": SENT,
}

VARIANTS = [
    {
        "id": id_,
        "product_id": 788032119674292922,
        "title": title,
        "sku": None,
        "barcode": None,
        "price": Decimal("19.99"),
        "compare_at_price": Decimal("24.99"),
        "position": position,
        "inventory_quantity": quantity,
        "inventory_item_id": None,
        "inventory_tracked": None,
        "taxable": True,
        "created_at": datetime(2021, 12, 30, tzinfo=UTC),
        "updated_at": updated,
        "deleted_at": None,
        "source": "webhook",
        "sent_at": SENT,
    }
    for id_, title, position, quantity, updated in (
        (642667041472713922, "Small", 1, 75, datetime(2021, 12, 31, tzinfo=UTC)),
        (757650484644203962, "Medium", 2, 50, NEW_YEAR),
    )
]


class Delivered:
    """A connected store that gets the samples, one a second of Shopify's time."""

    def __init__(self, store, until):
        self.store, self.until = store, until

    async def send(self, sample, second=0):
        """Deliver a sample as Shopify would and wait until all of it is promoted."""
        topic = sample.replace("__", "/", 1)
        sent = SENT.replace(second=second).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        answer = await self.store.post(
            "deliver",
            topic=topic,
            body=(SAMPLES / "webhooks" / f"{sample}.json").read_text(),
            headers={"X-Shopify-Triggered-At": sent},
            uri=f"{self.store.services.ingress_url}/webhooks/shopify",
        )
        assert answer["status"] == 200, sample
        waiting = "select count(*) = 0 from control.batches where promoted_at is null"
        await self.until(lambda: self.store.db.fetchval(waiting))

    async def rows(self, table):
        """All rows of a table by id, without the columns that are only ours."""
        found = await self.store.db.fetch(f"select * from shopify.{table} order by id")
        return [{name: value for name, value in row.items() if name not in OURS} for row in found]

    async def row(self, table):
        (row,) = await self.rows(table)
        return row

    async def value(self, query):
        return await self.store.db.fetchval(query)


@pytest.fixture
async def delivered(services, until):
    """Ingress and promoter run; nothing is read from the store, so every row came by webhook."""
    await services.start_all("ingress", "promoter")
    async with make_store(services, orders=0, customers=0, products=0) as store:
        await store.connect()
        yield Delivered(store, until)
        assert await store.db.fetchval("select count(*) from control.dead_letters") == 0
        assert (
            await store.db.fetchval(
                "select count(*) from control.webhook_deliveries where topic like '%\\_\\_%'"
            )
            == 0
        )


async def test_an_order_is_made_changed_refunded_and_deleted(delivered):
    """Shopify's order, with ids beyond 2^53, lands with lines and refund, cent by cent, and goes."""
    await delivered.send("orders__create")
    assert await delivered.row("orders") == COMPLETE_ORDER
    assert await delivered.rows("order_line_items") == [
        {
            "id": id_,
            "order_id": ORDER,
            "product_id": product,
            "variant_id": None,
            "title": title,
            "variant_title": None,
            "sku": sku,
            "vendor": None,
            "quantity": 1,
            "current_quantity": 1,
            "original_unit_price": Decimal(price),
            "discounted_unit_price": Decimal(price),
            "original_total": Decimal(price),
            "discounted_total": Decimal(price),
            "requires_shipping": True,
            "taxable": True,
            "is_gift_card": False,
            "deleted_at": None,
            "source": "webhook",
            "sent_at": SENT,
        }
        for id_, product, title, sku, price in LINES
    ]
    assert await delivered.rows("refunds") == []

    await delivered.send("orders__updated", second=1)
    await delivered.send("orders__cancelled", second=2)
    assert await delivered.row("orders") == {**COMPLETE_ORDER, "sent_at": SENT.replace(second=2)}
    assert len(await delivered.rows("order_line_items")) == 5

    await delivered.send("refunds__create", second=3)
    assert await delivered.row("refunds") == {
        "id": REFUND,
        "order_id": ORDER,
        "created_at": NEW_YEAR,
        "total_refunded": Decimal("85.00"),  # 75.00 and 10.00, both successful
        "note": "Things were damaged",
        "deleted_at": None,
        "source": "webhook",
        "sent_at": SENT.replace(second=3),
    }
    assert await delivered.rows("refund_line_items") == [
        {
            "id": id_,
            "refund_id": REFUND,
            "order_id": ORDER,
            "line_item_id": line_item,
            "quantity": 1,
            "subtotal": Decimal(subtotal),
            "total_tax": Decimal("0.00"),
            "restock_type": "NO_RESTOCK",
            "deleted_at": None,
            "source": "webhook",
            "sent_at": SENT.replace(second=3),
        }
        for id_, line_item, subtotal in REFUND_LINES
    ]

    await delivered.send("orders__delete", second=4)
    for table, rows in (("orders", 1), ("order_line_items", 5), ("refunds", 1), ("refund_line_items", 5)):
        gone = [row["deleted_at"] for row in await delivered.rows(table)]
        assert gone == [SENT.replace(second=4)] * rows, table

    await delivered.send("orders__updated", second=5)  # a late repetition of the past
    assert (await delivered.row("orders"))["deleted_at"] == SENT.replace(second=4)


async def test_customers_come_change_and_go(delivered):
    """Shopify's customer bodies land whole; a failed merge changes nothing; totals arrive alone."""
    await delivered.send("customers__create")
    row = await delivered.row("customers")
    assert row == {**COMPLETE_CUSTOMER, "sent_at": SENT}

    for second, sample in enumerate(("customers__update", "customers__enable", "customers__disable"), 1):
        await delivered.send(sample, second)
        assert (await delivered.row("customers"))["sent_at"] == SENT.replace(second=second), sample
    row = await delivered.row("customers")
    assert row == {**COMPLETE_CUSTOMER, "sent_at": SENT.replace(second=3)}

    await delivered.send("customers__merge", second=4)  # its status is "failed"
    assert [row["deleted_at"] for row in await delivered.rows("customers")] == [None]

    await delivered.send("customers__purchasing_summary", second=5)  # of a customer who is not here yet
    first, _ = await delivered.rows("customers")
    assert (first["id"], first["number_of_orders"], first["currency"]) == (1, 1, "USD")
    assert first["amount_spent"] == Decimal("100.00")
    assert first["updated_at"] is None

    await delivered.send("customers__delete", second=6)
    gone = {row["id"]: row["deleted_at"] for row in await delivered.rows("customers")}
    assert gone == {1: None, CUSTOMER: SENT.replace(second=6)}


async def test_products_come_change_and_go(delivered):
    """Shopify's product lands with both variants, and with the stock that they have together."""
    await delivered.send("products__create")
    assert await delivered.row("products") == COMPLETE_PRODUCT
    assert await delivered.rows("product_variants") == VARIANTS

    await delivered.send("products__update", second=1)
    later = {"sent_at": SENT.replace(second=1)}
    assert await delivered.row("products") == {**COMPLETE_PRODUCT, **later}
    assert await delivered.rows("product_variants") == [{**row, **later} for row in VARIANTS]

    await delivered.send("products__delete", second=2)
    for table, rows in (("products", 1), ("product_variants", 2)):
        gone = [row["deleted_at"] for row in await delivered.rows(table)]
        assert gone == [SENT.replace(second=2)] * rows, table


async def test_privacy_requests_and_the_apps_own_topics(delivered):
    """Requests are noted without personal data, scopes follow, an uninstall ends the connection."""
    await delivered.send("customers__data_request")
    await delivered.send("customers__redact", second=1)
    noted = await delivered.store.db.fetch(
        "select topic, subject::text from control.compliance_requests order by id"
    )
    assert [tuple(row) for row in noted] == [
        (
            "customers/data_request",
            '{"orders": [299938, 280263, 220458], "customer": 191167, "dataRequest": 9999}',
        ),
        (
            "customers/redact",
            '{"orders": [299938, 280263, 220458], "customer": 191167, "dataRequest": null}',
        ),
    ]
    row = await delivered.row("customers")
    assert (row["id"], row["redacted_at"], row["email"]) == (191167, SENT.replace(second=1), None)

    await delivered.store.db.execute("update control.connections set scopes_at = $1", SENT)
    await delivered.send("app__scopes_update", second=2)
    scopes = "select scopes from control.connections"
    assert await delivered.value(scopes) == ["read_products", "write_products"]

    await delivered.send("bulk_operations__finish", second=3)
    finished = await delivered.value(
        "select payload::jsonb - array['event_id', 'occurred_at', 'brand_id', 'connection_id'] "
        "from control.outbox where event_type = 'BulkFinished'"
    )
    assert finished == (
        '{"gid": "gid://shopify/BulkOperation/147595010", "version": 1, "shopify_status": "COMPLETED"}'
    )

    await delivered.send("shop__redact", second=4)
    assert await delivered.rows("customers") == []
    requests = "select subject::text from control.compliance_requests where topic = 'shop/redact'"
    assert await delivered.value(requests) == '{"shop": true}'

    await delivered.send("app__uninstalled", second=5)
    row = await delivered.store.db.fetchrow("select sync_status, access_token from control.connections")
    assert (row["sync_status"], row["access_token"]) == ("removed", None)


async def test_privacy_requests_come_after_an_uninstall(delivered):
    """The shop's comes 48 hours after it: nobody is connected any more, and the rows are still here."""
    await delivered.send("customers__create")
    await delivered.send("app__uninstalled", second=1)
    await delivered.send("customers__redact", second=2)
    redacted = {row["id"]: row["redacted_at"] for row in await delivered.rows("customers")}
    assert redacted == {191167: SENT.replace(second=2), CUSTOMER: None}
    await delivered.send("shop__redact", second=3)
    assert await delivered.rows("customers") == []
    assert await delivered.value("select count(*) from control.compliance_requests") == 2


def test_every_webhook_sample_is_used():
    """A sample that is added to the material must get its place in a test above."""
    text = Path(__file__).read_text("utf-8")
    assert [file.stem for file in WEBHOOKS if f'"{file.stem}"' not in text] == []


UNASKED = ("MediaImage", "Metafield")  # by our documents


async def test_a_captured_bulk_file_lands(services, until):
    """A captured file's product and variant are kept; what nobody asked for is set aside and does no harm."""
    await services.start_all()
    async with make_store(services, orders=0, customers=0, products=1) as store:
        await store.post(
            "load", bulk={"products": (SAMPLES / "bulk" / "products_children.jsonl").read_text("utf-8")}
        )
        await store.connect()
        await until(lambda: _is_completed(store), 60)

        product = await store.db.fetchrow("select * from shopify.products")
        assert (product["id"], product["source"]) == (10243914727730, "bulk")
        assert product["title"] == "Bulk root count bulk-root-mrrsb7hi-1xi0i"
        variant = await store.db.fetchrow("select * from shopify.product_variants")
        assert (variant["id"], variant["product_id"]) == (51487966167346, 10243914727730)
        assert (variant["title"], variant["sku"]) == (
            "Default Title",
            "bulk-variant-bulk-root-mrrsb7hi-1xi0i",
        )
        file = await store.db.fetchrow(
            "select object_count, root_object_count, file_size, lines_done, roots_done, bytes_done, attempt "
            "from control.bulk_operations where resource = 'products' order by id limit 1"
        )
        assert tuple(file) == (4, 1, 679, 4, 1, 679, 1)
        errors = await store.db.fetchval("select array_agg(error order by error) from control.dead_letters")
        assert errors == [f"BadPayloadError: nobody asked for a {kind} here" for kind in UNASKED]


async def test_a_captured_file_of_another_root_is_never_taken_as_complete(services, until):
    """A file whose roots are variants is refused where products were asked for, and run again."""
    await services.start_all()
    async with make_store(services, orders=0, customers=0, products=1) as store:
        await store.post(
            "load", bulk={"products": (SAMPLES / "bulk" / "variants_children.jsonl").read_text("utf-8")}
        )
        await store.connect()
        await until(lambda: _is_completed(store), 60)

        variant = "select count(*) from shopify.product_variants where id = 51487966167346"
        assert await store.db.fetchval(variant) == 0
        assert await store.db.fetchval("select count(*) from shopify.products") == 1  # the second try's
        attempt = (
            "select attempt from control.bulk_operations where resource = 'products' order by id limit 1"
        )
        assert await store.db.fetchval(attempt) == 2
        letter = await store.db.fetchrow(
            "select event_type, service, payload, error, mentions from control.dead_letters "
            "where error not like '%nobody asked for a%'"
        )
        assert letter["event_type"] == "bulk line products"
        assert letter["service"] == "bulk-runner"
        assert letter["error"] == "BadPayloadError: the line has no __parentId"
        assert letter["payload"] == ""  # the text is kept encrypted
        assert 51487966167346 in letter["mentions"]


async def _is_completed(store):
    return await store.db.fetchval(
        "select count(*) = 1 from control.jobs where kind = 'bulk_products' and state = 'completed'"
    )
