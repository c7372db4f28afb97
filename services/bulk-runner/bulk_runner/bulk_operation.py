"""A row of control.bulk_operations, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import LineKind
from bulk_runner.windows import Window
from shared.db import Connection, Pool, load_queries
from shared.events import JobKind, Resource

queries = load_queries("bulk_runner")

PATHS: dict[Resource, str] = {"orders": orders.PATH, "customers": customers.PATH, "products": products.PATH}
LINES: dict[Resource, dict[str, LineKind]] = {
    "orders": orders.LINES,
    "customers": customers.LINES,
    "products": products.LINES,
}


@dataclass(frozen=True)
class Operation:
    """One bulk operation of a job."""

    id: int
    connection_id: int
    brand_id: str
    job_id: int
    kind: JobKind
    resource: Resource
    window: Window
    state: str
    attempt: int
    polls: int
    waits: int
    marker_id: UUID
    gid: str
    revision: int
    shopify_status: str | None
    shopify_created_at: datetime | None
    object_count: int
    root_object_count: int
    file_size: int
    bytes_done: int
    lines_done: int
    roots_done: int
    aside_done: int
    batches_done: int
    cancel_requested: bool
    frozen_for: float | None

    @property
    def marker(self) -> str:
        """The comment by which we know our own operation at Shopify."""
        return f"# backstock {self.marker_id}"

    @property
    def sent_at(self) -> str:
        """When Shopify took the copies that its file holds."""
        return (self.shopify_created_at or datetime.now(UTC)).isoformat()

    @property
    def is_audit(self) -> bool:
        """Whether its rows are compared, not promoted."""
        return self.kind == "audit"

    @property
    def path(self) -> str:
        """The file of its document."""
        return PATHS[self.resource]

    @property
    def document_name(self) -> str:
        """The operation in that file."""
        return f"{'Audit' if self.is_audit else 'Bulk'}{self.resource.capitalize()}"

    @property
    def lines(self) -> dict[str, LineKind]:
        """The types of object that its file holds."""
        return LINES[self.resource]

    def event_fields(self) -> dict[str, Any]:
        """What every event about it carries."""
        return {
            "connection_id": self.connection_id,
            "brand_id": self.brand_id,
            "job_id": self.job_id,
            "kind": self.kind,
            "resource": self.resource,
            "operation_id": self.id,
            "attempt": self.attempt,
        }


async def load_operation(db: Pool | Connection, operation_id: int) -> Operation:
    """Read an operation; LookupError if there is none."""
    row = await db.fetchrow(queries["operation"], operation_id)
    if row is None:
        raise LookupError(f"there is no bulk operation {operation_id}")
    fields = dict(row)
    fields["marker_id"] = fields.pop("marker")
    fields["window"] = Window(fields.pop("window_start"), fields.pop("window_end"))
    fields["gid"] = fields["gid"] or ""
    fields["file_size"] = fields["file_size"] or 0
    return Operation(**fields)
