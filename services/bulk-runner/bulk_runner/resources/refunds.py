"""The lines of refunds, by the ids of the refunds: what Shopify answers -> rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from bulk_runner.documents import document
from bulk_runner.resources.nodes import NULL, MoneyBag, Nodes, ReadNode, Ref, amount, numeric_id, read_nodes
from shared.rows import RefundLineItemRow, RefundReadRow, Row

if TYPE_CHECKING:  # a page is read through a shop; what it says is parsed without one
    from shared.shopify import Shop

PATH = "resources/refunds.graphql"
AT_ONCE = 40  # refunds a query: about 450 points asked for, most of them given back


@dataclass(frozen=True)
class RefundOf:
    """A refund, and the order that it belongs to."""

    id: int
    order_id: int
    ordinal: int | None = None


class RefundLineNode(msgspec.Struct, rename="camel"):
    """What was given back of one line of an order."""

    id: str
    line_item: Ref
    quantity: int
    subtotal_set: MoneyBag
    total_tax_set: MoneyBag
    restock_type: str | None = None


class _Refund(msgspec.Struct, rename="camel"):
    id: str
    refund_line_items: Nodes[RefundLineNode]


NODE = msgspec.json.Decoder(_Refund)


class RefundLines(msgspec.Struct):
    """The answer of RefundLines; None for a refund that is gone by now."""

    nodes: list[msgspec.Raw]


class _Lines(msgspec.Struct, rename="camel"):
    refund_line_items: Nodes[RefundLineNode]


class MoreRefundLines(msgspec.Struct):
    """The answer of MoreRefundLines."""

    refund: _Lines | None


async def read_refunds(shop: Shop, refunds: Sequence[RefundOf], sent_at: str) -> list[ReadNode[Row]]:
    """A node for each of the refunds: its lines, and a mark that they are all there."""
    groups = [refunds[start : start + AT_ONCE] for start in range(0, len(refunds), AT_ONCE)]
    answers = await asyncio.gather(*(_read(shop, group, sent_at) for group in groups))
    return [node for nodes in answers for node in nodes]


async def _read(shop: Shop, refunds: Sequence[RefundOf], sent_at: str) -> list[ReadNode[Row]]:
    ids = [f"gid://shopify/Refund/{refund.id}" for refund in refunds]
    answer = await shop.query(RefundLines, document(PATH, "RefundLines"), {"ids": ids})

    async def rows(text: bytes, place: int) -> list[Row]:
        lines = [] if text == NULL else await _all_lines(shop, NODE.decode(text))
        refund = refunds[place]
        return [*(_row(line, refund, sent_at) for line in lines), RefundReadRow(sent_at, refund.id)]

    nodes = await read_nodes(answer.nodes, rows)
    return [replace(node, root=refund.order_id) for refund, node in zip(refunds, nodes, strict=True)]


async def _all_lines(shop: Shop, node: _Refund) -> list[RefundLineNode]:
    lines, after = list(node.refund_line_items.nodes), node.refund_line_items.page_info.next
    while after:
        variables = {"id": node.id, "after": after}
        more = (await shop.query(MoreRefundLines, document(PATH, "MoreRefundLines"), variables)).refund
        if more is None:
            break
        lines += more.refund_line_items.nodes
        after = more.refund_line_items.page_info.next
    return lines


def _row(line: RefundLineNode, refund: RefundOf, sent_at: str) -> RefundLineItemRow:
    return RefundLineItemRow(
        ordinal=refund.ordinal,
        sent_at=sent_at,
        id=numeric_id(line.id),
        refund_id=refund.id,
        order_id=refund.order_id,
        line_item_id=numeric_id(line.line_item.id),
        quantity=line.quantity,
        subtotal=amount(line.subtotal_set),
        total_tax=amount(line.total_tax_set),
        restock_type=line.restock_type,
    )
