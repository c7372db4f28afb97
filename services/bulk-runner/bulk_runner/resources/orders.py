"""Orders with their lines and refunds: what Shopify answers -> rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from bulk_runner.documents import document
from bulk_runner.resources.nodes import (
    LineKind,
    MoneyBag,
    Nodes,
    Page,
    ReadNode,
    Ref,
    amount,
    as_asked,
    numeric_id,
    parent_id,
    read_nodes,
    reference,
)
from bulk_runner.resources.refunds import RefundOf, read_refunds
from shared.events import Resource
from shared.rows import AuditedRow, LineItemRow, OrderRow, RefundRow, Row
from shared.texts import Time

if TYPE_CHECKING:  # a page is read through a shop; what it says is parsed without one
    from shared.shopify import Shop

PATH = "resources/orders.graphql"
NO_LINKS = {"customers": False, "products": False}  # an audit compares amounts only
PAGE_SIZE = 50  # with 20 lines each about 150 points, of the 1,000 a query may cost


class RefundNode(msgspec.Struct, rename="camel", gc=False):
    """A refund inside its order."""

    id: str
    created_at: Time | None = None
    note: str | None = None
    total_refunded_set: MoneyBag | None = None


class OrderNode(msgspec.Struct, rename="camel", gc=False):
    """An order without its lines. What only an audit leaves out has a default."""

    id: str
    name: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None
    processed_at: Time | None = None
    cancelled_at: Time | None = None
    closed_at: Time | None = None
    cancel_reason: str | None = None
    display_financial_status: str | None = None
    display_fulfillment_status: str | None = None
    currency_code: str | None = None
    presentment_currency_code: str | None = None
    total_price_set: MoneyBag | None = None
    subtotal_price_set: MoneyBag | None = None
    total_tax_set: MoneyBag | None = None
    total_discounts_set: MoneyBag | None = None
    total_shipping_price_set: MoneyBag | None = None
    total_refunded_set: MoneyBag | None = None
    current_total_price_set: MoneyBag | None = None
    current_subtotal_price_set: MoneyBag | None = None
    current_total_tax_set: MoneyBag | None = None
    current_total_discounts_set: MoneyBag | None = None
    customer: Ref | None = None
    email: str | None = None
    phone: str | None = None
    note: str | None = None
    source_name: str | None = None
    tags: list[str] = []
    test: bool | None = None
    taxes_included: bool | None = None
    refunds: list[RefundNode] = []


class LineItemNode(msgspec.Struct, rename="camel", gc=False):
    """A line of an order; in a bulk file it names its order."""

    id: str
    parent: str | None = msgspec.field(name="__parentId", default=None)
    product: Ref | None = None
    variant: Ref | None = None
    title: str | None = None
    variant_title: str | None = None
    sku: str | None = None
    vendor: str | None = None
    quantity: int | None = None
    current_quantity: int | None = None
    original_unit_price_set: MoneyBag | None = None
    discounted_unit_price_set: MoneyBag | None = None
    original_total_set: MoneyBag | None = None
    discounted_total_set: MoneyBag | None = None
    requires_shipping: bool | None = None
    taxable: bool | None = None
    is_gift_card: bool | None = None


class PagedOrder(OrderNode, rename="camel", kw_only=True):
    """An order with the first page of its lines."""

    line_items: Nodes[LineItemNode]


NODE = msgspec.json.Decoder(PagedOrder)


class OrdersPage(msgspec.Struct):
    """The answer of OrdersPage."""

    orders: Nodes[msgspec.Raw]


class OrdersById(msgspec.Struct):
    """The answer of OrdersById; None for an order that is gone."""

    nodes: list[msgspec.Raw]


class _Lines(msgspec.Struct, rename="camel"):
    line_items: Nodes[LineItemNode]


class MoreLineItems(msgspec.Struct):
    """The answer of MoreLineItems; None if the order is gone by now."""

    order: _Lines | None


async def page(
    shop: Shop,
    search: str,
    after: str | None,
    sent_at: str,
    allowed: Collection[Resource],
    sort_key: Literal["CREATED_AT", "UPDATED_AT"] = "UPDATED_AT",
    *,
    newest_first: bool = False,
) -> Page[Row]:
    """A page of orders, each with all its lines and those of its refunds; links to what may be read."""
    links = {"customers": "customers" in allowed, "products": "products" in allowed}
    variables = {
        **links,
        "first": PAGE_SIZE,
        "after": after,
        "search": search,
        "sortKey": sort_key,
        "reverse": newest_first,
    }
    orders = (await shop.query(OrdersPage, document(PATH, "OrdersPage"), variables)).orders
    return Page(await _read(shop, orders.nodes, sent_at, links), orders.page_info.next)


async def by_ids(
    shop: Shop, ids: Sequence[int], sent_at: str, allowed: Collection[Resource]
) -> list[ReadNode[Row]]:
    """Those of the orders that there are, each with all its lines and those of its refunds."""
    gids = [f"gid://shopify/Order/{id_}" for id_ in ids]
    links = {"customers": "customers" in allowed, "products": "products" in allowed}
    answer = await shop.query(OrdersById, document(PATH, "OrdersById"), {**links, "ids": gids})
    return await _read(shop, as_asked(gids, answer.nodes), sent_at, links)


async def _read(
    shop: Shop, texts: Sequence[msgspec.Raw], sent_at: str, links: Mapping[str, bool]
) -> list[ReadNode[Row]]:
    """Orders with the lines of their refunds; refunds whose lines cannot be read are nodes beside them."""

    async def rows(text: bytes, ordinal: int) -> list[Row]:
        node = NODE.decode(text)
        order_id, lines = numeric_id(node.id), await _all_lines(shop, node, links)
        return order_rows(node, sent_at, ordinal) + [line_row(x, order_id, sent_at, ordinal) for x in lines]

    nodes = await read_nodes(texts, rows)
    refunds = [
        RefundOf(row.id, row.order_id, row.ordinal)
        for node in nodes
        for row in node.rows
        if isinstance(row, RefundRow)
    ]
    unread = []
    for refund, found in zip(refunds, await read_refunds(shop, refunds, sent_at), strict=True):
        if found.error or refund.ordinal is None:
            unread.append(found)
        else:
            nodes[refund.ordinal].rows.extend(found.rows)
    return nodes + unread


async def _all_lines(shop: Shop, node: PagedOrder, links: Mapping[str, bool]) -> list[LineItemNode]:
    lines, after = list(node.line_items.nodes), node.line_items.page_info.next
    while after:
        variables = {"id": node.id, "after": after, "products": links["products"]}
        more = await shop.query(MoreLineItems, document(PATH, "MoreLineItems"), variables)
        if more.order is None:
            break
        lines += more.order.line_items.nodes
        after = more.order.line_items.page_info.next
    return lines


def order_rows(node: OrderNode, sent_at: str, ordinal: int | None = None) -> list[Row]:
    """An order and its refunds."""
    order_id = numeric_id(node.id)
    order = OrderRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=order_id,
        name=node.name,
        created_at=node.created_at,
        updated_at=node.updated_at or sent_at,
        processed_at=node.processed_at,
        cancelled_at=node.cancelled_at,
        closed_at=node.closed_at,
        cancel_reason=node.cancel_reason,
        financial_status=node.display_financial_status,
        fulfillment_status=node.display_fulfillment_status,
        currency=node.currency_code,
        presentment_currency=node.presentment_currency_code,
        total_price=amount(node.total_price_set),
        subtotal_price=amount(node.subtotal_price_set),
        total_tax=amount(node.total_tax_set),
        total_discounts=amount(node.total_discounts_set),
        total_shipping=amount(node.total_shipping_price_set),
        total_refunded=amount(node.total_refunded_set),
        current_total_price=amount(node.current_total_price_set),
        current_subtotal_price=amount(node.current_subtotal_price_set),
        current_total_tax=amount(node.current_total_tax_set),
        current_total_discounts=amount(node.current_total_discounts_set),
        customer_id=reference(node.customer),
        email=node.email,
        phone=node.phone,
        note=node.note,
        source_name=node.source_name,
        tags=node.tags,
        test=node.test,
        taxes_included=node.taxes_included,
    )
    return [order, *(_refund_row(refund, order_id, sent_at, ordinal) for refund in node.refunds)]


def _refund_row(refund: RefundNode, order_id: int, sent_at: str, ordinal: int | None) -> RefundRow:
    return RefundRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=numeric_id(refund.id),
        order_id=order_id,
        created_at=refund.created_at,
        total_refunded=amount(refund.total_refunded_set),
        note=refund.note,
    )


def line_row(line: LineItemNode, order_id: int, sent_at: str, ordinal: int | None = None) -> LineItemRow:
    """A line of an order."""
    return LineItemRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=numeric_id(line.id),
        order_id=order_id,
        product_id=reference(line.product),
        variant_id=reference(line.variant),
        title=line.title,
        variant_title=line.variant_title,
        sku=line.sku,
        vendor=line.vendor,
        quantity=line.quantity,
        current_quantity=line.current_quantity,
        original_unit_price=amount(line.original_unit_price_set),
        discounted_unit_price=amount(line.discounted_unit_price_set),
        original_total=amount(line.original_total_set),
        discounted_total=amount(line.discounted_total_set),
        requires_shipping=line.requires_shipping,
        taxable=line.taxable,
        is_gift_card=line.is_gift_card,
    )


def _audited_order(node: OrderNode) -> list[AuditedRow]:
    order_id = numeric_id(node.id)
    refunds = [
        AuditedRow("refunds", numeric_id(r.id), order_id, None, amount(r.total_refunded_set))
        for r in node.refunds
    ]
    return [AuditedRow("orders", order_id, None, node.updated_at, amount(node.total_price_set)), *refunds]


def _audited_line(line: LineItemNode, order: str | None = None) -> list[AuditedRow]:
    order_id = parent_id(order or line.parent, "Order")
    return [
        AuditedRow("order_line_items", numeric_id(line.id), order_id, None, amount(line.original_total_set))
    ]


async def audit_page(shop: Shop, after: str | None) -> Page[AuditedRow]:
    """A page of what an audit compares."""

    async def rows(text: bytes, _: int) -> list[AuditedRow]:
        node = NODE.decode(text)
        lines = await _all_lines(shop, node, NO_LINKS)
        return _audited_order(node) + [row for line in lines for row in _audited_line(line, node.id)]

    page_ = (await shop.query(OrdersPage, document(PATH, "AuditOrdersPage"), {"after": after})).orders
    return Page(await read_nodes(page_.nodes, rows), page_.page_info.next)


LINES = {
    "Order": LineKind(
        msgspec.json.Decoder(OrderNode), partial(order_rows, ordinal=None), _audited_order, is_root=True
    ),
    "LineItem": LineKind(
        msgspec.json.Decoder(LineItemNode),
        lambda line, sent_at: [line_row(line, parent_id(line.parent, "Order"), sent_at)],
        _audited_line,
    ),
}
