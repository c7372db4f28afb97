"""ConnectionCreated -> JobQueued(recent_sync): what happened last is shown first."""

from __future__ import annotations

from bulk_runner.planning import queue_job, set_status
from shared.db import Connection
from shared.events import ConnectionCreated


async def on_connection_created(event: ConnectionCreated, tx: Connection) -> None:
    """Queue the recent orders at once; the history waits for the webhooks."""
    await set_status(tx, event.connection_id, "recent")
    await queue_job(tx, event.connection_id, event.brand_id, "recent_sync")
