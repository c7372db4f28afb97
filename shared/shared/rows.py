"""Rows on their way into schema `stage`: a tuple per table, in the order of its columns, written by COPY.

Values stay as Shopify sent them, as text: Postgres parses money and timestamps, exactly, and Python never
rounds one. `ordinal` ties children to the copy of the parent that they came with (see 0003_stage.sql);
`sent_at` is when Shopify sent the copy (ISO 8601).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:  # rows themselves need no driver
    from shared.db import Connection

CHUNK_BYTES = 256 * 1024  # a COPY message; larger ones only cost memory


class OrderRow(NamedTuple):
    """`stage.orders`."""

    ordinal: int | None
    sent_at: str
    id: int
    name: str | None
    created_at: str | None
    updated_at: str
    processed_at: str | None
    cancelled_at: str | None
    closed_at: str | None
    cancel_reason: str | None
    financial_status: str | None
    fulfillment_status: str | None
    currency: str | None
    presentment_currency: str | None
    total_price: str | None
    subtotal_price: str | None
    total_tax: str | None
    total_discounts: str | None
    total_shipping: str | None
    total_refunded: str | None
    current_total_price: str | None
    current_subtotal_price: str | None
    current_total_tax: str | None
    current_total_discounts: str | None
    customer_id: int | None
    email: str | None
    phone: str | None
    note: str | None
    source_name: str | None
    tags: list[str] | None
    test: bool | None
    taxes_included: bool | None


class LineItemRow(NamedTuple):
    """`stage.order_line_items`."""

    ordinal: int | None
    sent_at: str
    id: int
    order_id: int
    product_id: int | None
    variant_id: int | None
    title: str | None
    variant_title: str | None
    sku: str | None
    vendor: str | None
    quantity: int | None
    current_quantity: int | None
    original_unit_price: str | None
    discounted_unit_price: str | None
    original_total: str | None
    discounted_total: str | None
    requires_shipping: bool | None
    taxable: bool | None
    is_gift_card: bool | None


class RefundRow(NamedTuple):
    """`stage.refunds`."""

    ordinal: int | None
    sent_at: str
    id: int
    order_id: int
    created_at: str | None
    total_refunded: str | None
    note: str | None


class RefundLineItemRow(NamedTuple):
    """`stage.refund_line_items`."""

    ordinal: int | None
    sent_at: str
    id: int
    refund_id: int
    order_id: int
    line_item_id: int | None
    quantity: int | None
    subtotal: str | None
    total_tax: str | None
    restock_type: str | None


class CustomerRow(NamedTuple):
    """`stage.customers`."""

    ordinal: int | None
    sent_at: str
    id: int
    first_name: str | None
    last_name: str | None
    email: str | None
    phone: str | None
    state: str | None
    note: str | None
    tags: list[str] | None
    number_of_orders: int | None
    amount_spent: str | None
    currency: str | None
    verified_email: bool | None
    tax_exempt: bool | None
    created_at: str | None
    updated_at: str


class ProductRow(NamedTuple):
    """`stage.products`."""

    ordinal: int | None
    sent_at: str
    id: int
    title: str | None
    handle: str | None
    vendor: str | None
    product_type: str | None
    status: str | None
    tags: list[str] | None
    published_at: str | None
    created_at: str | None
    updated_at: str
    total_inventory: int | None


class VariantRow(NamedTuple):
    """`stage.product_variants`."""

    ordinal: int | None
    sent_at: str
    id: int
    product_id: int
    title: str | None
    sku: str | None
    barcode: str | None
    price: str | None
    compare_at_price: str | None
    position: int | None
    inventory_quantity: int | None
    inventory_item_id: int | None
    inventory_tracked: bool | None
    taxable: bool | None
    created_at: str | None
    updated_at: str | None


class DeletionRow(NamedTuple):
    """`stage.deletions`: orders, customers or products that are gone."""

    sent_at: str
    resource: str
    id: int


class CustomerSummaryRow(NamedTuple):
    """`stage.customer_summaries`."""

    sent_at: str
    id: int
    number_of_orders: int
    amount_spent: str
    currency: str


class CustomerTagsRow(NamedTuple):
    """`stage.customer_tags`: tags that came to a customer or went."""

    sent_at: str
    id: int
    added: list[str]
    removed: list[str]


class RefundReadRow(NamedTuple):
    """`stage.refund_reads`: all the lines of this refund are staged with it."""

    sent_at: str
    id: int


class RedactionRow(NamedTuple):
    """`stage.redactions`: whose personal data must go."""

    sent_at: str
    customer_id: int | None
    order_ids: list[int]
    whole_shop: bool


class AuditedRow(NamedTuple):
    """`stage.audited`: what an audit compares. In front of it stand the job's id and the operation's."""

    table_name: str
    id: int
    parent_id: int | None
    updated_at: str | None
    amount: str | None
    tags: list[str] | None = None


Row: TypeAlias = (
    OrderRow
    | LineItemRow
    | RefundRow
    | RefundLineItemRow
    | CustomerRow
    | ProductRow
    | VariantRow
    | DeletionRow
    | CustomerSummaryRow
    | CustomerTagsRow
    | RefundReadRow
    | RedactionRow
)

TABLES: dict[type[Row], str] = {
    OrderRow: "orders",
    LineItemRow: "order_line_items",
    RefundRow: "refunds",
    RefundLineItemRow: "refund_line_items",
    CustomerRow: "customers",
    ProductRow: "products",
    VariantRow: "product_variants",
    DeletionRow: "deletions",
    CustomerSummaryRow: "customer_summaries",
    CustomerTagsRow: "customer_tags",
    RefundReadRow: "refund_reads",
    RedactionRow: "redactions",
}

# COPY's text format: these four would end a field or start an escape. Postgres has no NUL in text; U+FFFD
# stands for it, as for any character that cannot be kept.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\ufffd"})
_ARRAY_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


def count(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows there are of each table."""
    return dict(Counter(TABLES[type(row)] for row in rows))


async def stage(tx: Connection, batch_id: int, rows: Sequence[Row]) -> None:
    """COPY the rows of a batch into their tables."""
    by_type: dict[type[Row], list[Row]] = {}
    for row in rows:
        by_type.setdefault(type(row), []).append(row)
    for row_type, same in by_type.items():
        await copy(tx, TABLES[row_type], ("batch_id", *row_type._fields), (batch_id,), same)


async def copy(
    tx: Connection, table: str, columns: Sequence[str], first: Sequence[int], rows: Iterable[Sequence[object]]
) -> None:
    """COPY rows into `stage.<table>`, each with `first` (its batch, or its job and operation) in front."""
    prefix = "".join(f"{value}\t" for value in first)
    lines = "".join(f"{prefix}{_line(row)}\n" for row in rows)
    await tx.copy_to_table(table, schema_name="stage", columns=list(columns), source=_chunks(lines.encode()))


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def _line(row: Sequence[object]) -> str:
    return "\t".join([_field(value) for value in row])


def _field(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES) if _needs_escape(value) else value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        return _array(value)
    return str(value)


def _needs_escape(value: str) -> bool:
    return "\\" in value or "\n" in value or "\t" in value or "\r" in value or "\x00" in value


def _array(values: list[object]) -> str:
    items = ('"' + str(v).translate(_ARRAY_ESCAPES) + '"' for v in values)
    return ("{" + ",".join(items) + "}").translate(_ESCAPES)
