"""The proof: every row that Shopify holds beside ours, by id, age and amount.

An audit reads ids, ages and amounts by bulk operations of its own (audit documents in `resources/`), and
compares them in Postgres, row by row. What changed at the store while it ran is no difference.
"""

from __future__ import annotations

from decimal import Decimal

import structlog

from bulk_runner.bulk_operation import Operation
from shared.db import Connection, load_queries
from shared.events import JobCompleted, TableCheck
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("bulk_runner")


async def finish_audit(tx: Connection, operation: Operation) -> None:
    """Compare, keep the result, complete the job. -> JobCompleted(audit)"""
    # Both sides are read whole: on tables that are too new for statistics the planner would loop instead.
    await tx.execute("set local enable_nestloop = off")
    rows = await tx.fetch(queries["compare_tables"], operation.job_id, operation.connection_id)
    tables = tuple(_check(dict(row)) for row in rows)
    equal = all(table.equal for table in tables)
    log.info("audit.compared", connection=operation.connection_id, equal=equal)
    await tx.execute(
        queries["keep_audit"],
        operation.connection_id,
        operation.job_id,
        equal,
        [table.model_dump() for table in tables],
    )
    await tx.execute(queries["forget_audited"], operation.job_id)
    await tx.execute(queries["audit_is_done"], operation.job_id)
    await emit(
        tx,
        JobCompleted(
            connection_id=operation.connection_id,
            brand_id=operation.brand_id,
            job_id=operation.job_id,
            kind="audit",
            audit=tables,
        ),
    )


def _check(row: dict[str, int | str | Decimal | None]) -> TableCheck:
    sums = {name: _text(row.pop(name)) for name in ("shopify_sum", "our_sum")}
    bad = (row["missing"], row["different"], row["extra"])
    equal = (
        bad == (0, 0, 0)
        and row["shopify_count"] == row["our_count"]
        and sums["shopify_sum"] == sums["our_sum"]
    )
    return TableCheck.model_validate({"table": row.pop("table_name"), **row, **sums, "equal": equal})


def _text(value: object) -> str | None:
    """Two equal sums have equal texts: without an exponent, without zeros at the end."""
    if not isinstance(value, Decimal):
        return None
    return f"{value.normalize():f}"
