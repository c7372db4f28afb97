"""`backstock rebuild-progress`: how far stores are, read anew from the events. Safe while everything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from backstock.errors import CommandError
from shared.db import check_migrated, connect
from shared.errors import SettingError
from shared.settings import Settings
from status.rebuild import rebuild_all

if TYPE_CHECKING:
    from status.rebuild import Rebuilt

DEFAULT_SCOPES: str = Settings.model_fields["shopify_scopes"].default


async def rebuild_progress(
    database_url: str, brand: str | None, scopes: str, *, reset: bool
) -> list[Rebuilt]:
    """One brand, or all (None), one after the other; CommandError if there is no such brand."""
    wanted = [scope.strip() for scope in (scopes or DEFAULT_SCOPES).split(",") if scope.strip()]
    try:
        pool = await connect(database_url, service="rebuild-progress", size=2)
    except SettingError as error:
        raise CommandError(str(error)) from None
    try:
        await check_migrated(pool)
        done = [one async for one in rebuild_all(pool, wanted, brand_id=brand, reset=reset)]
    except SettingError as error:
        raise CommandError(str(error)) from None
    finally:
        await pool.close()
    if brand is not None and not done:
        raise CommandError(f"no store is connected for brand '{brand}': check the spelling")
    return done


def table(done: list[Rebuilt]) -> Table:
    """What was done, a line for each brand."""
    shown = Table("brand", "events", "of them folded", "percent", "stands at", "progress")
    for one in done:
        shown.add_row(
            one.brand_id,
            f"{one.events:,}",
            f"{one.folded:,}",
            f"{one.percent:g}",
            one.sync_status,
            "[yellow]corrected[/]" if one.changed else "was right",
        )
    return shown
