"""control.progress -> Snapshot: one brand's progress as read at one moment, ready to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import structlog

from shared.db import Pool, load_queries
from status.document import Document, draw
from status.measure import Status, status
from status.state import Progress

log = structlog.get_logger()
queries = load_queries("status")

PAUSE_SHOWN = timedelta(seconds=10)  # after its end: a frame without it must have been sent
NO_EPOCH = "new"  # of a store that was connected just now: nothing has happened yet


@dataclass(frozen=True)
class Snapshot:
    """A brand's progress."""

    connection_id: int
    brand_id: str
    epoch: str
    version: int
    progress: Progress

    @property
    def id(self) -> str:
        """`<epoch>-<version>`: changes with every change."""
        return f"{self.epoch}-{self.version}"

    @property
    def step(self) -> Status:
        """Where the sync stands."""
        return status(self.progress)

    @property
    def is_live(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.step == "live"

    @property
    def is_running(self) -> bool:
        """Whether rates, times to go or a pause change by themselves."""
        pause = self.progress.pause
        if pause and datetime.now(UTC) < pause.until + PAUSE_SHOWN:
            return True
        return self.step not in ("live", "attention")

    def document(self, now: datetime) -> Document:
        """The document as of now."""
        return draw(self.progress, brand_id=self.brand_id, version=self.version, now=now)


async def read_snapshots(pool: Pool, brand_ids: Sequence[str]) -> list[Snapshot]:
    """The progress of the brands, as far as they exist."""
    rows = await pool.fetch(queries["snapshots"], list(brand_ids))
    return [
        Snapshot(
            connection_id=row["id"],
            brand_id=row["brand_id"],
            epoch=row["epoch"] or NO_EPOCH,
            version=row["version"] or 0,
            progress=_progress(row["state"]) or Progress(shop=row["shop"], connected_at=row["created_at"]),
        )
        for row in rows
    ]


async def read_snapshot(pool: Pool, brand_id: str) -> Snapshot | None:
    """The progress of one brand; None if there is no such brand."""
    if "\x00" in brand_id:  # Postgres takes no such text, so no brand has it
        return None
    found = await read_snapshots(pool, [brand_id])
    return found[0] if found else None


def _progress(state: str | None) -> Progress | None:
    try:
        return msgspec.json.decode(state, type=Progress) if state else None
    except msgspec.ValidationError as error:  # another version's; the next event writes it anew
        log.warning("progress.unreadable", error=str(error))
        return None
