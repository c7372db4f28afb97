"""Customers: what Shopify answers -> rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from bulk_runner.documents import document
from bulk_runner.resources.nodes import LineKind, Nodes, Page, ReadNode, as_asked, numeric_id, read_nodes
from shared.events import Resource
from shared.rows import AuditedRow, CustomerRow, Row
from shared.texts import Amount, Count, Time

if TYPE_CHECKING:  # a page is read through a shop; what it says is parsed without one
    from shared.shopify import Shop

PATH = "resources/customers.graphql"
PAGE_SIZE = 100  # about 30 points


class _Email(msgspec.Struct, rename="camel", gc=False):
    email_address: str | None = None


class _Phone(msgspec.Struct, rename="camel", gc=False):
    phone_number: str | None = None


class _Spent(msgspec.Struct, rename="camel", gc=False):
    amount: Amount
    currency_code: str | None = None


class CustomerNode(msgspec.Struct, rename="camel", gc=False):
    """A customer. What only an audit leaves out has a default."""

    id: str
    first_name: str | None = None
    last_name: str | None = None
    state: str | None = None
    note: str | None = None
    tags: list[str] = []
    number_of_orders: Count | None = None
    amount_spent: _Spent | None = None
    verified_email: bool | None = None
    tax_exempt: bool | None = None
    created_at: Time | None = None
    updated_at: Time | None = None
    default_email_address: _Email | None = None
    default_phone_number: _Phone | None = None


NODE = msgspec.json.Decoder(CustomerNode)


class CustomersPage(msgspec.Struct):
    """The answer of CustomersPage."""

    customers: Nodes[msgspec.Raw]


async def page(
    shop: Shop, search: str, after: str | None, sent_at: str, _: Collection[Resource] = ()
) -> Page[Row]:
    """A page of customers."""
    variables = {"first": PAGE_SIZE, "after": after, "search": search}
    customers = (await shop.query(CustomersPage, document(PATH, "CustomersPage"), variables)).customers
    return Page(await _read(customers.nodes, sent_at), customers.page_info.next)


class CustomersById(msgspec.Struct):
    """The answer of CustomersById; None for a customer that is gone."""

    nodes: list[msgspec.Raw]


async def by_ids(
    shop: Shop, ids: Sequence[int], sent_at: str, _: Collection[Resource] = ()
) -> list[ReadNode[Row]]:
    """Those of the customers that there are."""
    gids = [f"gid://shopify/Customer/{id_}" for id_ in ids]
    answer = await shop.query(CustomersById, document(PATH, "CustomersById"), {"ids": gids})
    return await _read(as_asked(gids, answer.nodes), sent_at)


async def _read(texts: Sequence[msgspec.Raw], sent_at: str) -> list[ReadNode[Row]]:
    async def rows(text: bytes, ordinal: int) -> list[Row]:
        return [customer_row(NODE.decode(text), sent_at, ordinal)]

    return await read_nodes(texts, rows)


def customer_row(node: CustomerNode, sent_at: str, ordinal: int | None = None) -> CustomerRow:
    """A customer."""
    return CustomerRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=numeric_id(node.id),
        first_name=node.first_name,
        last_name=node.last_name,
        email=node.default_email_address.email_address if node.default_email_address else None,
        phone=node.default_phone_number.phone_number if node.default_phone_number else None,
        state=node.state,
        note=node.note,
        tags=node.tags,
        number_of_orders=int(node.number_of_orders) if node.number_of_orders is not None else None,
        amount_spent=node.amount_spent.amount if node.amount_spent else None,
        currency=node.amount_spent.currency_code if node.amount_spent else None,
        verified_email=node.verified_email,
        tax_exempt=node.tax_exempt,
        created_at=node.created_at,
        updated_at=node.updated_at or sent_at,
    )


def _audited(node: CustomerNode) -> list[AuditedRow]:
    spent = node.amount_spent.amount if node.amount_spent else None
    return [AuditedRow("customers", numeric_id(node.id), None, node.updated_at, spent, node.tags)]


async def audit_page(shop: Shop, after: str | None) -> Page[AuditedRow]:
    """A page of what an audit compares."""

    async def rows(text: bytes, _: int) -> list[AuditedRow]:
        return _audited(NODE.decode(text))

    page_ = (
        await shop.query(CustomersPage, document(PATH, "AuditCustomersPage"), {"after": after})
    ).customers
    return Page(await read_nodes(page_.nodes, rows), page_.page_info.next)


LINES = {
    "Customer": LineKind(
        NODE,
        lambda node, sent_at: [customer_row(node, sent_at)],
        _audited,
        is_root=True,
    ),
}
