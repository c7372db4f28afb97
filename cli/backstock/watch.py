"""A sync's progress in the terminal: live bars where one watches, one line per change where a log does."""

from __future__ import annotations

from datetime import timedelta
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
BAR_WIDTH = 36  # characters


async def watch(console: Console, documents: AsyncIterator[Progress]) -> Progress | None:
    """Shows every document; returns the last one, which is the live one unless the stream ended early."""
    last: Progress | None = None
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            async for last in documents:
                live.update(bars(last), refresh=True)
        return last
    shown = None
    async for last in documents:
        if (step := _step(last)) != shown:
            shown = step
            console.print(line(last), soft_wrap=True, markup=False, highlight=False)
    return last


def bars(document: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for resource in document.resources:
        bar = ProgressBar(total=100, completed=resource.percent, width=BAR_WIDTH)
        table.add_row(resource.name, bar, f"{resource.percent:.0f} %", _counts(resource), _pace(resource))
    return Group(Text(line(document), style="bold"), table)


def line(document: Progress) -> str:
    parts = [f"{document.brand_id}: {document.sync_status}", f"{document.percent:.0f} %"]
    if document.eta_seconds:
        parts.append(f"about {_duration(document.eta_seconds)} left")
    if document.throttled_until:
        parts.append(f"Shopify asks to wait until {document.throttled_until}")
    if document.last_error and document.last_error.message:
        parts.append(f"{document.last_error.message} {document.last_error.action}".strip())
    return ", ".join(parts)


def _step(document: Progress) -> tuple[object, ...]:
    error = document.last_error.code if document.last_error else None
    phases = tuple(resource.phase for resource in document.resources)
    return document.sync_status, int(document.percent // LINE_EVERY_PERCENT), phases, error


def _counts(resource: Resource) -> str:
    expected = "?" if resource.expected is None else f"{resource.expected:,}"
    return f"{resource.promoted:,} of {expected}"


def _pace(resource: Resource) -> str:
    pace = f"{resource.rate_per_second:,.0f}/s" if resource.rate_per_second else ""
    left = _duration(resource.eta_seconds) if resource.eta_seconds else ""
    return " ".join(part for part in (resource.phase, pace, left) if part)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
