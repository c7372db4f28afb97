"""The bulk runner: everything that is read from Shopify, not sent by it.

ConnectionCreated  -> recent_sync            BulkFinished -> poll
WebhooksRegistered -> bulk jobs              BulkReady    -> download, StagedBatch*
JobQueued          -> the work               Promoted     -> JobCompleted -> the next job
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from bulk_runner.on_bulk_finished import on_bulk_finished
from bulk_runner.on_bulk_ready import on_bulk_ready
from bulk_runner.on_connection_created import on_connection_created
from bulk_runner.on_job_completed import on_job_completed
from bulk_runner.on_job_queued import on_job_queued
from bulk_runner.on_letter_replayed import on_letter_replayed
from bulk_runner.on_promoted import on_promoted
from bulk_runner.on_webhooks_registered import on_webhooks_registered
from bulk_runner.poll_bulk import Scheduler
from bulk_runner.schedule import Schedule
from bulk_runner.shops import Shops
from bulk_runner.waits import Waits
from shared.events import (
    BulkFinished,
    BulkReady,
    ConnectionCreated,
    JobCompleted,
    JobQueued,
    LetterReplayed,
    Promoted,
    WebhooksRegistered,
)
from shared.giving_way import GivingWay
from shared.lanes import Lanes
from shared.service import Parts, Wiring
from shared.service import main as run
from shared.shopify import Shopify
from shared.tokens import Tokens

JOBS_AT_ONCE = 24  # jobs a runner reads by pages together; they mostly wait for Shopify
LETTERS_AT_ONCE = 6  # texts that are read again together, each with a request
DOWNLOADS_AT_ONCE = 12  # files a runner reads together, 2 MB of each in memory
STAGED_AT_ONCE = 3  # of these, parsed and written at one time: parsing keeps one core busy
OF_A_STORE = 2  # jobs, and files: a store that hangs, or never ends, leaves the rest to the others


@asynccontextmanager
async def wire(parts: Parts) -> AsyncIterator[Wiring]:
    """Which handler takes which event."""
    waits = Waits(parts.pool)
    shopify = Shopify(parts.settings, parts.redis, on_wait=waits.hear)
    shops = Shops(parts.pool, Tokens.of(parts.pool, shopify, parts.settings))
    route = parts.route
    route.on(ConnectionCreated, on_connection_created)
    route.on_long(
        WebhooksRegistered, partial(on_webhooks_registered, shops=shops), workers=JOBS_AT_ONCE, each=1
    )
    route.on_long(
        JobQueued,
        partial(
            on_job_queued,
            shops=shops,
            recent_days=parts.settings.recent_days,
            paged_up_to=parts.settings.paged_up_to,
        ),
        workers=JOBS_AT_ONCE,
        each=OF_A_STORE,
    )
    route.on(BulkFinished, on_bulk_finished)
    staging = Lanes(at_once=STAGED_AT_ONCE, each=OF_A_STORE, gives_way=GivingWay(parts.pool))
    route.on_long(
        BulkReady,
        partial(on_bulk_ready, shops=shops, staging=staging),
        workers=DOWNLOADS_AT_ONCE,
        each=OF_A_STORE,
    )
    route.on(Promoted, on_promoted)
    route.on(JobCompleted, on_job_completed)
    route.on_long(LetterReplayed, partial(on_letter_replayed, shops=shops), workers=LETTERS_AT_ONCE, each=1)
    try:
        scheduler = Scheduler(shops, parts.settings.bulk_stuck_after)
        catch_ups = Schedule(parts.pool, "catch_up", parts.settings.catch_up_every)
        audits = Schedule(parts.pool, "audit", parts.settings.audit_every)
        yield Wiring(tasks=(scheduler.run, catch_ups.run, audits.run, waits.run))
    finally:
        await shopify.close()


def main() -> None:
    """Run the service."""
    run("bulk-runner", wire)


if __name__ == "__main__":
    main()
