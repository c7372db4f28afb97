"""`backstock audit`: compare a brand with Shopify now, and show the result.

queue an audit -> follow the document until a new result is in it -> a table
                  --heal: until it is equal, or nothing more happens by itself
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.table import Table

from backstock.api import ATTENTION
from backstock.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

    from backstock.api import Api, Audit, Progress

LOOK_EVERY = 0.5  # seconds between two looks at the document


async def audit(api: Api, console: Console, brand: str, *, heal: bool, limit: float) -> bool:
    """Whether the last result is that all is equal; CommandError if there is none within `limit` seconds."""
    before = await api.progress(brand)
    (queued,) = await api.sync(brand, ["audit"])
    shown = queued.job_id - 1  # results from before are another audit's
    equal = None
    try:
        async with asyncio.timeout(limit):
            async for document in _documents(api, brand):
                if document.audit and document.audit.job_id > shown:
                    shown, equal = document.audit.job_id, document.audit.equal
                    console.print(as_table(document.audit))
                    if equal or not heal:
                        break
                    console.print("What differs is read again and repaired; then it is compared once more.")
                if _waits_for_help(document, before):
                    break
    except TimeoutError:
        raise CommandError(f"no result within {limit:.0f} s; it goes on: `backstock watch {brand}`") from None
    if equal is None:
        raise CommandError(f"the audit could not be done: see `backstock status {brand}`")
    return equal


async def _documents(api: Api, brand: str) -> AsyncIterator[Progress]:
    while True:
        yield await api.progress(brand)
        await asyncio.sleep(LOOK_EVERY)


def _waits_for_help(document: Progress, before: Progress) -> bool:
    """Whether a new trouble has stopped it."""
    return document.sync_status == ATTENTION and document.last_error != before.last_error


def as_table(result: Audit) -> Table:
    """Both sides, table by table."""
    table = Table(title="What Shopify holds and what is here")
    for heading in ("table", "Shopify", "here", "Shopify's sum", "sum here", "missing", "different", "extra"):
        table.add_column(heading, justify="left" if heading == "table" else "right", no_wrap=True)
    table.add_column("")
    for check in result.tables:
        verdict = "[green]equal[/]" if check.equal else "[bold red]NOT EQUAL[/]"
        counts = (check.shopify_count, check.our_count)
        sums = (check.shopify_sum or "", check.our_sum or "")
        wrong = (check.missing, check.different, check.extra)
        table.add_row(check.table, *(f"{n:,}" for n in counts), *sums, *(f"{n:,}" for n in wrong), verdict)
    return table
