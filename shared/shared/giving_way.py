"""First rows first: a store that has loaded much leaves processors to those that have loaded little.

Places and transactions are shared by lanes; processors are not. So a store with LOADED_MUCH lines behind it
rests between its batches (lanes.py) while another one, with fewer, is in its first sync and moves. Whether
it moves is what its events say: one that waits for Shopify, or fails, holds nobody up. Postgres knows, so
all processes see the same.
"""

from __future__ import annotations

from shared.db import Pool, load_queries
from shared.outages import OUTAGES

queries = load_queries("shared")

LOADED_MUCH = 20_000  # lines of the jobs under way: some seconds of one processor
MOVES_WITHIN = 3.0  # seconds since its last event
MOVES = [  # events of work done or given out here; others tell of Shopify, or of waiting
    "ConnectionCreated",
    "WebhooksRegistered",
    "JobQueued",
    "BulkReady",
    "StagedBatch",
    "Promoted",
    "JobCompleted",
]


class GivingWay:
    """Asks Postgres; a few index look-ups for each store that is syncing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, connection_id: int) -> bool:
        """Whether this store is to rest now; not while Postgres is away, where nothing moves anyhow."""
        try:
            found: bool = await self._pool.fetchval(
                queries["gives_way"], connection_id, LOADED_MUCH, MOVES_WITHIN, MOVES
            )
        except OUTAGES:
            return False
        return found
