"""BulkFinished -> a poll, now: Shopify's webhook spares us the wait."""

from __future__ import annotations

from shared.db import Connection, load_queries
from shared.events import BulkFinished

queries = load_queries("bulk_runner")


async def on_bulk_finished(event: BulkFinished, tx: Connection) -> None:
    """Make the operation due. Another app's operation, or one we have not noted yet, is nobody's here."""
    await tx.execute(queries["operation_finished"], event.connection_id, event.gid)
    await tx.execute(queries["wake_scheduler"])
