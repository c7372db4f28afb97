"""The promoter: StagedBatch -> Promoted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from promoter.on_staged_batch import on_staged_batch
from promoter.retention import Retention
from shared.events import StagedBatch
from shared.service import Parts, Wiring
from shared.service import main as run


@asynccontextmanager
async def wire(parts: Parts) -> AsyncIterator[Wiring]:
    """Which handler takes which event."""
    parts.route.on(StagedBatch, on_staged_batch)
    yield Wiring(tasks=(Retention(parts.pool).run,))


def main() -> None:
    """Run the service."""
    run("promoter", wire)


if __name__ == "__main__":
    main()
