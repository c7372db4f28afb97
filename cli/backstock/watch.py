"""A sync's progress in the terminal: live bars where one watches, one line per change where a log does."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console, RenderableType

    from backstock.api import Progress, Resource

LINE_EVERY_PERCENT = 5  # a log gets a line at each such step, and at each change of phase
BAR_WIDTH = 36  # characters at most; figures come first where there is less room
NARROW = 60  # characters; below there is room for the figures that matter most, and none for bars


async def watch(console: Console, documents: AsyncIterator[Progress]) -> Progress | None:
    """Shows every document; returns the last one, which is the live one unless the stream ended early."""
    last: Progress | None = None
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            async for last in documents:
                live.update(bars(last, console.width), refresh=True)
        return last
    shown = None
    async for last in documents:
        if (step := _step(last)) != shown:
            shown = step
            console.print(line(last), soft_wrap=True, markup=False, highlight=False)
    return last


def bars(document: Progress, width: int) -> RenderableType:
    """The whole sync, a bar for each resource with its counts, rate and time to go, and what is wrong."""
    wide = width >= NARROW
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    if wide:
        table.add_column(max_width=BAR_WIDTH)
    for _ in range(4 if wide else 2):
        table.add_column(justify="right", no_wrap=True)
    rows = [_row(resource) for resource in document.resources]
    for name, percent, *facts in [("all", document.percent, "", "", ""), *rows]:
        figures = [f"{math.floor(percent)} %", *facts]
        cells = (
            [ProgressBar(total=100, completed=percent, complete_style="green"), *figures]
            if wide
            else figures[:2]
        )
        table.add_row(name, *cells, style="bold" if name == "all" else None)
    notes = [Text(note, style="yellow") for note in _notes(document)]
    wrong = [Text(error, style="red")] if (error := _error(document)) else []
    return Group(Text(_headline(document), style="bold"), table, *notes, *wrong)


def line(document: Progress) -> str:
    return ", ".join(part for part in (_headline(document), *_notes(document), _error(document)) if part)


def _headline(document: Progress) -> str:
    left = [f"about {_duration(document.eta_seconds)} left"] if document.eta_seconds else []
    whole = f"{math.floor(document.percent)} %"  # never 100 before it is
    return ", ".join([f"{document.brand_id}: {document.sync_status}", whole, *left])


def _notes(document: Progress) -> list[str]:
    notes = []
    if document.throttled_until:
        notes.append(f"Shopify asks to wait until {_clock(document.throttled_until)}")
    notes += [
        notice.message.rstrip(".") for notice in document.notices if not notice.code.startswith("paused")
    ]
    if document.limits and document.limits.history_limited_to_60_days:
        notes.append("Shopify shows only the last 60 days of orders: grant read_all_orders for all of them")
    return notes


def _error(document: Progress) -> str:
    error = document.last_error
    return f"{error.message} {error.action}".strip() if error else ""


def _step(document: Progress) -> tuple[object, ...]:
    error = document.last_error.code if document.last_error else None
    phases = tuple(resource.phase for resource in document.resources)
    return document.sync_status, int(document.percent // LINE_EVERY_PERCENT), phases, error


def _row(resource: Resource) -> tuple[str, float, str, str, str]:
    """Name, percent, counts, rate, time to go; what happens to it where one of the last two is unknown."""
    expected = "?" if resource.expected is None else f"{resource.expected:,}"
    rate = f"{resource.rate_per_second:,.0f}/s" if resource.rate_per_second else ""
    left = f"{_duration(resource.eta_seconds)} left" if resource.eta_seconds else ""
    counts = f"{resource.promoted:,} of {expected}"
    phase = resource.phase.replace("_", " ")
    return resource.name, resource.percent, counts, rate or (phase if left else ""), left or phase


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M:%S %Z}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
