"""Copies of orders, customers and products as rows, and a database that promotes them. Times are seconds."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg

from promoter.on_staged_batch import FEW, queries
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
    Row,
    VariantRow,
    count,
    stage,
)

NUMBERS = itertools.count(1)
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
R = TypeVar("R")


def at(seconds: float) -> str:
    """A moment as Shopify writes it."""
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def moment(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def _row(row_type: Any, **values: Any) -> Any:
    return row_type(**{**dict.fromkeys(row_type._fields), **values})


def order(
    id_: int = 1,
    *,
    updated: float,
    sent: float | None = None,
    lines: tuple[int, ...] = (),
    refunds: tuple[int, ...] = (),
    ordinal: int | None = 1,
    **values: Any,
) -> list[Row]:
    """A whole copy: the order with its lines and refunds. Its name says which version it is."""
    sent = updated if sent is None else sent
    head = _row(
        OrderRow,
        ordinal=ordinal,
        sent_at=at(sent),
        id=id_,
        updated_at=at(updated),
        **{"name": f"v{updated}", **values},
    )
    return [
        head,
        *(line(i, order_id=id_, sent=sent, ordinal=ordinal, title=head.name) for i in lines),
        *(refund(i, order_id=id_, sent=sent, ordinal=ordinal) for i in refunds),
    ]


def line(
    id_: int, *, order_id: int = 1, sent: float = 0, ordinal: int | None = None, **values: Any
) -> LineItemRow:
    row: LineItemRow = _row(
        LineItemRow, ordinal=ordinal, sent_at=at(sent), id=id_, order_id=order_id, quantity=1, **values
    )
    return row


def refund(
    id_: int,
    *,
    order_id: int = 1,
    sent: float = 0,
    created: float = 0,
    ordinal: int | None = None,
    **values: Any,
) -> RefundRow:
    row: RefundRow = _row(
        RefundRow,
        ordinal=ordinal,
        sent_at=at(sent),
        id=id_,
        order_id=order_id,
        created_at=at(created),
        **{"total_refunded": "5", **values},
    )
    return row


def refund_line(
    id_: int, refund_id: int, *, order_id: int = 1, sent: float = 0, ordinal: int | None = None, **values: Any
) -> RefundLineItemRow:
    row: RefundLineItemRow = _row(
        RefundLineItemRow,
        ordinal=ordinal,
        sent_at=at(sent),
        id=id_,
        refund_id=refund_id,
        order_id=order_id,
        line_item_id=11,
        quantity=1,
        **values,
    )
    return row


def customer(id_: int = 1, *, updated: float, sent: float | None = None, **values: Any) -> CustomerRow:
    sent = updated if sent is None else sent
    row: CustomerRow = _row(
        CustomerRow,
        ordinal=1,
        sent_at=at(sent),
        id=id_,
        updated_at=at(updated),
        **{"first_name": f"v{updated}", **values},
    )
    return row


def summary(id_: int, sent: float, orders: int, spent: str) -> CustomerSummaryRow:
    return CustomerSummaryRow(at(sent), id_, orders, spent, "USD")


def tags(id_: int, sent: float, added: list[str], removed: list[str] | None = None) -> CustomerTagsRow:
    return CustomerTagsRow(at(sent), id_, added, removed or [])


def product(
    id_: int = 1,
    *,
    updated: float,
    sent: float | None = None,
    variants: tuple[int, ...] = (),
    ordinal: int | None = 1,
    **values: Any,
) -> list[Row]:
    sent = updated if sent is None else sent
    head = _row(
        ProductRow,
        ordinal=ordinal,
        sent_at=at(sent),
        id=id_,
        updated_at=at(updated),
        **{"title": f"v{updated}", **values},
    )
    return [head, *(variant(i, product_id=id_, sent=sent, ordinal=ordinal) for i in variants)]


def variant(
    id_: int, *, product_id: int = 1, sent: float = 0, ordinal: int | None = None, **values: Any
) -> VariantRow:
    row: VariantRow = _row(
        VariantRow,
        ordinal=ordinal,
        sent_at=at(sent),
        id=id_,
        product_id=product_id,
        **{"inventory_quantity": 3, **values},
    )
    return row


def deleted(resource: str, id_: int, sent: float) -> DeletionRow:
    return DeletionRow(at(sent), resource, id_)


def redacted(
    sent: float, customer_id: int | None = None, orders: list[int] | None = None, *, shop: bool = False
) -> RedactionRow:
    return RedactionRow(at(sent), customer_id, orders or [], shop)


class Store:
    """One connection, whose batches are promoted as the promoter does it."""

    def __init__(self, db: asyncpg.Connection[Any], connection_id: int) -> None:
        self.db, self.connection_id = db, connection_id
        self.batches = 0

    async def promote(self, rows: list[Row], source: str = "webhook") -> dict[str, int]:
        """A batch of its own; returns what was written."""
        return await self.promote_staged(await self.stage(rows, source))

    async def stage(self, rows: list[Row], source: str = "webhook") -> int:
        """A batch of its own that waits; returns its id."""
        batch: int = await self.db.fetchval(
            "insert into control.batches (connection_id, source, rows) values ($1, $2, $3) returning id",
            self.connection_id,
            source,
            count(rows),
        )
        await stage(self.db, batch, rows)  # type: ignore[arg-type] - a connection without a pool
        return batch

    async def operation(self) -> int:
        """A bulk operation; its batches follow."""
        job = await self.db.fetchval(
            "insert into control.jobs (connection_id, kind, state) values ($1, 'bulk_orders', 'completed') "
            "returning id",
            self.connection_id,
        )
        operation: int = await self.db.fetchval(
            "insert into control.bulk_operations (connection_id, job_id, resource) values ($1, $2, 'orders') "
            "returning id",
            self.connection_id,
            job,
        )
        return operation

    async def promote_bulk(self, operation: int, rows: list[Row], *, closes: bool = False) -> dict[str, int]:
        """The operation's next batch."""
        self.batches += 1
        batch = await self.db.fetchval(
            "insert into control.batches "
            "(connection_id, operation_id, seq, source, revision, rows, closes_operation) "
            "select connection_id, id, $2, 'bulk', revision, $3, $4 "
            "from control.bulk_operations where id = $1 returning id",
            operation,
            self.batches,
            count(rows),
            closes,
        )
        await stage(self.db, batch, rows)  # type: ignore[arg-type] - a connection without a pool
        return await self.promote_staged(batch)

    async def promote_staged(self, batch: int) -> dict[str, int]:
        """Promote what was staged; returns what was written."""
        async with self.db.transaction():
            rows = await self.db.fetchval("select rows from control.batches where id = $1", batch)
            if not 0 < sum(rows.values()) <= FEW:
                await self.db.execute(queries["plan_anew"])
            written: dict[str, int] = await self.db.fetchval("select stage.promote($1)", batch)
        return written

    async def row(self, table: str, id_: int = 1) -> dict[str, Any]:
        found = await self.db.fetchrow(
            f"select * from shopify.{table} where connection_id = $1 and id = $2", self.connection_id, id_
        )
        assert found, f"{table} {id_} is not there"
        return dict(found)

    async def ids(self, table: str) -> list[int]:
        """What exists, that is: rows without a tombstone."""
        found = await self.db.fetch(
            f"select id from shopify.{table} where connection_id = $1 and deleted_at is null order by id",
            self.connection_id,
        )
        return [row["id"] for row in found]

    async def total(self) -> Decimal:
        """Everything that a dashboard would call refunded."""
        found: Decimal = await self.db.fetchval(
            "select coalesce(sum(total_refunded), 0) from shopify.refunds "
            "where connection_id = $1 and deleted_at is null",
            self.connection_id,
        )
        return found


async def new_store(db: asyncpg.Connection[Any]) -> Store:
    """One more connected store."""
    number = next(NUMBERS)
    connection_id = await db.fetchval(
        "insert into control.connections (brand_id, shop) values ($1, $2) returning id",
        f"brand-{number}",
        f"shop-{number}.myshopify.com",
    )
    return Store(db, connection_id)
