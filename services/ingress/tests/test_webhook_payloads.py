"""What webhooks say, as rows: pure, so every odd body can be tried."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.payloads import (
    READERS,
    BulkOver,
    Change,
    ComplianceRequest,
    Incomplete,
    ScopesChanged,
    Uninstalled,
    parse,
)
from shared.errors import BadPayloadError
from shared.rows import (
    CustomerRow,
    CustomerSummaryRow,
    CustomerTagsRow,
    DeletionRow,
    LineItemRow,
    OrderRow,
    ProductRow,
    RedactionRow,
    RefundLineItemRow,
    RefundRow,
    VariantRow,
)

SENT = "2026-11-20T10:00:00+00:00"
BIG = 2**53 + 1  # the first whole number that a float cannot hold
HUGE = 2**63 - 1


def read(topic, body):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(topic, raw, SENT, 7)


def order(**fields):
    return {"id": 1, "updated_at": SENT, **fields}


def line(**fields):
    return {"id": 11, "quantity": 1, "price": "10.00", **fields}


def of(change, row_type):
    return [row for row in change.rows if isinstance(row, row_type)]


def test_an_order_becomes_its_rows():
    """Order, lines, refunds, refunded lines, each with the order's id, its time and its ordinal."""
    change = read(
        "orders/updated",
        order(
            id=BIG,
            name="#1001",
            cancel_reason="customer",
            financial_status="partially_refunded",
            fulfillment_status="partial",
            total_price="19.90",
            total_shipping_price_set={"shop_money": {"amount": "4.90"}},
            customer={"id": HUGE},
            tags="b, A,  c ,,",
            line_items=[line(id=BIG, quantity=3, price="10.00", total_discount="10.00")],
            refunds=[
                {
                    "id": 21,
                    "order_id": BIG,
                    "refund_line_items": [
                        {
                            "id": 31,
                            "line_item_id": BIG,
                            "quantity": 1,
                            "subtotal_set": {"shop_money": {"amount": "6.67"}},
                            "restock_type": "return",
                        }
                    ],
                    "transactions": [
                        {"kind": "refund", "status": "success", "amount": "6.67"},
                        {"kind": "refund", "status": "failure", "amount": "100.00"},
                        {"kind": "void", "status": "success", "amount": "1000.00"},
                    ],
                }
            ],
        ),
    )
    (head,) = of(change, OrderRow)
    assert (head.ordinal, head.sent_at, head.id, head.customer_id) == (7, SENT, BIG, HUGE)
    assert (head.cancel_reason, head.financial_status) == ("CUSTOMER", "PARTIALLY_REFUNDED")
    assert head.fulfillment_status == "PARTIALLY_FULFILLED"
    assert (head.total_price, head.total_shipping, head.total_refunded) == ("19.90", "4.90", "6.67")
    assert head.tags == ["A", "b", "c"]
    (item,) = of(change, LineItemRow)
    assert (item.order_id, item.original_total, item.discounted_total) == (BIG, "30.00", "20.00")
    assert (item.original_unit_price, item.discounted_unit_price) == ("10.00", "6.67")
    (refund,) = of(change, RefundRow)
    assert (refund.ordinal, refund.order_id, refund.total_refunded) == (7, BIG, "6.67")
    (given_back,) = of(change, RefundLineItemRow)
    assert (given_back.refund_id, given_back.subtotal, given_back.total_tax) == (21, "6.67", None)
    assert given_back.restock_type == "RETURN"
    assert change.effect is None


def test_a_bare_order_is_enough():
    """Only id and updated_at are needed: all else may be missing or null, and is then null."""
    (row,) = read("orders/create", order()).rows
    known = {
        "ordinal": 7,
        "sent_at": SENT,
        "id": 1,
        "updated_at": SENT,
        "fulfillment_status": "UNFULFILLED",  # REST has null for it
        "total_refunded": "0",
        "tags": [],
    }
    assert row._asdict() == {**dict.fromkeys(OrderRow._fields), **known}
    nulls = dict.fromkeys(("name", "customer", "email", "currency", "total_price", "cancelled_at"))
    assert read("orders/create", order(**nulls)).rows == [row]


def test_empty_texts_of_a_guest():
    """A guest's e-mail is an empty text in REST and null here; an empty sku or name stays what it is."""
    change = read("orders/create", order(email="", name="", tags="", line_items=[line(sku="", title="")]))
    (head,) = of(change, OrderRow)
    assert (head.email, head.name, head.tags) == (None, "", [])
    (item,) = of(change, LineItemRow)
    assert (item.sku, item.title) == ("", "")


@given(st.text(max_size=30))
def test_any_text_survives(text):
    """Letters of any script, quotes, backslashes, line ends: what Shopify sent is what the row holds."""
    change = read("orders/create", order(name=text, note=text, line_items=[line(title=text)]))
    (head,) = of(change, OrderRow)
    assert (head.name, head.note) == (text, text)
    assert of(change, LineItemRow)[0].title == text


@pytest.mark.parametrize(
    ("price", "quantity", "discount", "unit", "total"),
    [
        ("10.00", 0, "0.00", "10.00", "0.00"),  # removed by an edit
        ("0.00", 2, "0.00", "0.00", "0.00"),
        ("1000", 3, "1", "1000", "2999"),  # yen
        ("1.234", 2, "0.468", "1.000", "2.000"),  # dinars
        ("19.99", 3, "10.00", "16.66", "49.97"),
        ("33.75", 2, "0.01", "33.75", "67.49"),  # half a cent rounds up, as in GraphQL
    ],
)
def test_money_is_exact_in_every_currency(price, quantity, discount, unit, total):
    """A line's discounted price has as many decimals as its price, and no line divides by zero."""
    change = read(
        "orders/create", order(line_items=[line(price=price, quantity=quantity, total_discount=discount)])
    )
    (item,) = of(change, LineItemRow)
    assert (item.discounted_unit_price, item.discounted_total) == (unit, total)


@pytest.mark.parametrize(
    ("topic", "body", "field"),
    [
        ("orders/create", {"id": 1}, "updated_at"),
        ("orders/create", {"updated_at": SENT}, "id"),
        ("orders/create", order(id="1"), "$.id"),
        ("orders/create", order(id=1.5), "$.id"),
        ("orders/create", order(updated_at=None), "$.updated_at"),
        ("orders/create", order(line_items=[{"id": 11, "quantity": 1}]), "price"),
        ("orders/create", order(line_items=[line(quantity="x")]), "$.line_items[0].quantity"),
        ("orders/create", order(customer={}), "$.customer"),
        ("orders/create", order(tags=["a"]), "$.tags"),
        ("orders/delete", {}, "id"),
        ("refunds/create", {"id": 1}, "order_id"),
        ("products/update", {"id": 1, "updated_at": SENT, "variants": [{}]}, "$.variants[0]"),
        ("customers/update", {"id": 1}, "updated_at"),
        ("customers/purchasing_summary", {"customerId": "gid://shopify/Customer/1"}, "numberOfOrders"),
        ("customer.tags_added", {"customerId": "gid://shopify/Customer/1"}, "tags"),
        ("customers/merge", {"status": "completed"}, "admin_graphql_api_customer_deleted_id"),
        ("bulk_operations/finish", {"status": "completed"}, "admin_graphql_api_id"),
        ("app/scopes_update", {}, "current"),
        ("customers/redact", {"customer": {"id": "1"}}, "$.customer.id"),
    ],
)
def test_what_is_not_as_promised_is_refused_by_name(topic, body, field):
    """The error names the topic and the field that is missing or wrong."""
    with pytest.raises(BadPayloadError) as refused:
        read(topic, body)
    assert str(refused.value).startswith(f"{topic}: ")
    assert field in str(refused.value)


@pytest.mark.parametrize("topic", READERS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"{}}", b"[" * 3000])
def test_no_body_breaks_the_parser(topic, body):
    """Whatever comes, it is refused as a bad payload; no other error gets out."""
    with pytest.raises(BadPayloadError):
        read(topic, body)


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("orders/create", order(line_items=[line(price="free")])),
        ("orders/create", order(line_items=[line(total_discount="")])),
        ("orders/create", order(line_items=[line(price="NaN")])),
        ("orders/create", order(line_items=[line(price="Infinity", quantity=0)])),
        (
            "refunds/create",
            {
                "id": 1,
                "order_id": 2,
                "transactions": [{"kind": "refund", "status": "success", "amount": "x"}],
            },
        ),
        ("customer.tags_added", {"customerId": "nobody", "tags": []}),
        (
            "customers/purchasing_summary",
            {"customerId": "", "numberOfOrders": 1, "amountSpent": {"amount": "1", "currencyCode": "USD"}},
        ),
        ("customers/merge", {"status": "completed", "admin_graphql_api_customer_deleted_id": "x"}),
    ],
)
def test_values_that_mean_nothing_are_refused(topic, body):
    """A price that is no number and an id that is none are bad payloads, not crashes."""
    with pytest.raises(BadPayloadError):
        read(topic, body)


def test_a_lone_refund_has_no_ordinal():
    """`refunds/create` is no part of a copy of its order: its rows say so by having no ordinal."""
    change = read(
        "refunds/create",
        {"id": 21, "order_id": 1, "refund_line_items": [{"id": 31, "line_item_id": 11, "quantity": 1}]},
    )
    assert [row.ordinal for row in of(change, RefundRow)] == [None]
    assert [row.ordinal for row in of(change, RefundLineItemRow)] == [None]


def test_what_a_customers_webhook_leaves_out_is_null():
    """Since 2025-01 tags and totals are missing: null says "not told"; an older payload's tags are taken."""
    (row,) = read("customers/update", {"id": 1, "updated_at": SENT, "state": "enabled"}).rows
    assert isinstance(row, CustomerRow)
    assert (row.tags, row.number_of_orders, row.amount_spent, row.currency) == (None, None, None, None)
    assert row.state == "ENABLED"
    (row,) = read("customers/update", {"id": 1, "updated_at": SENT, "tags": "b, a"}).rows
    assert row.tags == ["a", "b"]


def test_a_new_customer_has_bought_nothing():
    """`customers/create` leaves the totals out as well, but they are known: none yet."""
    change = read("customers/create", {"id": 1, "updated_at": SENT, "currency": "EUR"})
    assert of(change, CustomerSummaryRow) == [CustomerSummaryRow(SENT, 1, 0, "0", "EUR")]


def test_totals_and_tags_of_a_customer():
    """Summaries and tag changes carry the numeric id out of the gid, beyond 2^53 as well."""
    gid = f"gid://shopify/Customer/{BIG}"
    amount = {"amount": "100.00", "currencyCode": "USD"}
    summary = {"customerId": gid, "numberOfOrders": 3, "amountSpent": amount}
    assert read("customers/purchasing_summary", summary).rows == [
        CustomerSummaryRow(SENT, BIG, 3, "100.00", "USD")
    ]
    tags = {"customerId": gid, "tags": ["VIP", "ü"]}
    assert read("customer.tags_added", tags).rows == [CustomerTagsRow(SENT, BIG, ["VIP", "ü"], [])]
    assert read("customer.tags_removed", tags).rows == [CustomerTagsRow(SENT, BIG, [], ["VIP", "ü"])]


@pytest.mark.parametrize("status", ["failed", "in_progress", "requested"])
def test_only_a_completed_merge_deletes(status):
    """The customer who was merged away is deleted when, and only when, the merge succeeded."""
    merge = {"admin_graphql_api_customer_deleted_id": f"gid://shopify/Customer/{BIG}"}
    assert read("customers/merge", {**merge, "status": status}) == Change()
    assert read("customers/merge", {**merge, "status": "completed"}).rows == [
        DeletionRow(SENT, "customers", BIG)
    ]


def test_a_product_becomes_its_rows():
    """Product and variants, the status in upper case, the stock left to be worked out."""
    change = read(
        "products/update",
        {
            "id": BIG,
            "updated_at": SENT,
            "status": "draft",
            "tags": "x",
            "variants": [{"id": 31, "price": "1.50", "inventory_quantity": -2, "inventory_item_id": HUGE}],
            "variant_gids": [{"admin_graphql_api_id": "gid://shopify/ProductVariant/31"}],
        },
    )
    (head,) = of(change, ProductRow)
    assert (head.id, head.status, head.tags, head.total_inventory) == (BIG, "DRAFT", ["x"], None)
    (variant,) = of(change, VariantRow)
    assert (variant.product_id, variant.price, variant.inventory_quantity) == (BIG, "1.50", -2)
    assert (variant.inventory_item_id, variant.inventory_tracked) == (HUGE, None)


def test_a_product_whose_variants_are_cut_short_is_read_from_shopify():
    """Fewer variants than gids: nothing is staged, which would delete the rest; it must be read instead."""
    gids = [{"admin_graphql_api_id": f"gid://shopify/ProductVariant/{n}"} for n in range(3)]
    change = read(
        "products/update", {"id": 1, "updated_at": SENT, "variants": [{"id": 0}], "variant_gids": gids}
    )
    assert change == Change([], Incomplete())


@pytest.mark.parametrize("resource", ["orders", "customers", "products"])
def test_a_delete_is_a_tombstone(resource):
    """Deletes carry only an id; the time is that of sending."""
    assert read(f"{resource}/delete", {"id": HUGE}).rows == [DeletionRow(SENT, resource, HUGE)]


def test_topics_that_are_effects():
    """The end of a bulk operation, an uninstall and new scopes are no rows."""
    finish = {"admin_graphql_api_id": "gid://shopify/BulkOperation/1", "status": "completed"}
    assert read("bulk_operations/finish", finish) == Change(
        [], BulkOver("gid://shopify/BulkOperation/1", "COMPLETED")
    )
    assert read("app/uninstalled", {"id": 1}) == Change([], Uninstalled())
    assert read("app/scopes_update", {"current": ["b", "a"]}) == Change([], ScopesChanged(("a", "b")))


def test_privacy_requests_keep_ids_only():
    """What is noted of a request has neither e-mail nor phone; what must go is staged beside it."""
    person = {"id": 5, "email": "a@example.com", "phone": "+1"}
    request = read(
        "customers/data_request", {"customer": person, "orders_requested": [1], "data_request": {"id": 9}}
    )
    assert request == Change([], ComplianceRequest({"customer": 5, "orders": [1], "dataRequest": 9}))
    redact = read("customers/redact", {"customer": person, "orders_to_redact": [1, BIG]})
    assert redact.rows == [RedactionRow(SENT, 5, [1, BIG], whole_shop=False)]
    assert "example" not in str(asdict(redact))
    assert read("customers/redact", {}).rows == [RedactionRow(SENT, None, [], whole_shop=False)]
    assert read("shop/redact", {"shop_id": 1}).rows == [RedactionRow(SENT, None, [], whole_shop=True)]


def test_a_topic_that_we_do_not_know_changes_nothing():
    """A merchant's other subscription may end here: it is no error, whatever its body."""
    assert parse("carts/update", b"\xff", SENT, 1) == Change()
