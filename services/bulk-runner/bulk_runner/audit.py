"""The proof: every row that Shopify holds beside ours, by id, age and amount.

An audit reads ids, ages and amounts anew (audit documents in `resources/`), by pages where there is little
and by bulk operations where there is much, and compares them in Postgres, row by row. What changed at the
store while it ran is no difference. What cannot be read is set aside, and is never equal.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import structlog

from bulk_runner.paged import CLOCK_SKEW
from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import ReadNode, unproven
from bulk_runner.set_aside import set_nodes_aside, sift_nodes
from bulk_runner.shops import Shops
from shared.db import Connection, load_queries
from shared.events import JobCompleted, JobQueued, Resource, TableCheck
from shared.lease import Lease
from shared.outbox import emit
from shared.rows import AuditedRow, copy
from shared.shopify import Shop

log = structlog.get_logger()
queries = load_queries("bulk_runner")

HEALED_A_ROUND = 5_000  # objects; where more differ, loading the history again is cheaper

PAGES = {"orders": orders.audit_page, "customers": customers.audit_page, "products": products.audit_page}


async def read_by_pages(event: JobQueued, shops: Shops, held: Lease, shop: Shop, resource: Resource) -> None:
    """Read what an audit compares of a small resource, unless it was read before."""
    planned = await shops.pool.fetch(queries["planned_resources"], event.job_id)
    if resource in {row["resource"] for row in planned}:
        return
    taken_at = await shop.now() - CLOCK_SKEW
    nodes: list[ReadNode[AuditedRow]] = []
    after, more = None, True
    while more:
        page = await PAGES[resource](shop, after)
        nodes += page.nodes
        after, more = page.next, page.next is not None
    async with shops.pool.acquire() as tx, tx.transaction():
        await held.hold(tx)
        operation_id = await tx.fetchval(
            queries["note_pages"], event.connection_id, event.job_id, resource, taken_at
        )
        put = partial(stage_audited, tx, event.job_id, operation_id)
        _, aside = await sift_nodes(tx, nodes, put)
        if aside:
            await put([unproven(resource, node.text) for node in aside])
            await set_nodes_aside(tx, event, resource, aside, shops.tokens.vault)


async def stage_audited(tx: Connection, job_id: int, operation_id: int, rows: list[AuditedRow]) -> None:
    """Put aside what is to be compared when the audit has read everything."""
    columns = ("job_id", "operation_id", *AuditedRow._fields)
    await copy(tx, "audited", columns, (job_id, operation_id), rows)


async def finish_audit(tx: Connection, job_id: int, connection_id: int, brand_id: str) -> None:
    """Compare, keep the result, complete the job. -> JobCompleted(audit)"""
    # Both sides are read whole: on tables that are too new for statistics the planner would loop instead.
    await tx.execute("set local enable_nestloop = off")
    rows = await tx.fetch(queries["compare_tables"], job_id, connection_id)
    tables = tuple(_check(dict(row)) for row in rows)
    equal = all(table.equal for table in tables)
    log.info("audit.compared", connection=connection_id, equal=equal)
    await tx.execute(queries["forget_differences"], connection_id)
    if not equal:
        await tx.execute(queries["note_differences"], job_id, connection_id, HEALED_A_ROUND)
    await tx.execute(
        queries["keep_audit"], connection_id, job_id, equal, [table.model_dump() for table in tables]
    )
    await tx.execute(queries["forget_audited"], job_id)
    await tx.execute(queries["audit_is_done"], job_id)
    await emit(
        tx,
        JobCompleted(
            connection_id=connection_id, brand_id=brand_id, job_id=job_id, kind="audit", audit=tables
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
