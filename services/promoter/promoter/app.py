"""The promoter: StagedBatch -> Promoted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from promoter.on_staged_batch import on_staged_batch
from promoter.retention import Retention
from shared.events import StagedBatch
from shared.giving_way import GivingWay
from shared.secrets import TokenVault
from shared.service import Parts, Wiring
from shared.service import main as run

PROMOTED_AT_ONCE = 4  # stores; one batch of each, so this many transactions


@asynccontextmanager
async def wire(parts: Parts) -> AsyncIterator[Wiring]:
    """Which handler takes which event."""
    parts.route.on_long(
        StagedBatch,
        partial(on_staged_batch, pool=parts.pool, vault=TokenVault(parts.settings.secret_keys)),
        workers=PROMOTED_AT_ONCE,
        each=1,
        gives_way=GivingWay(parts.pool),
    )
    yield Wiring(tasks=(Retention(parts.pool).run,))


def main() -> None:
    """Run the service."""
    run("promoter", wire)


if __name__ == "__main__":
    main()
