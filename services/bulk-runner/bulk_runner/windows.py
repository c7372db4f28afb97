"""Cutting a store's orders into `created_at` windows of about equal size, the newest first. Pure.

Windows are what makes a load parallel (a shop runs five bulk operations at a time), newest-first (history
arrives backwards from today), and cheap to repeat (a failure costs one window).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WINDOWS = 10  # two rounds of the five operations that a shop allows
SMALLEST = 2_000  # orders; below that an operation's fixed cost of some seconds outweighs its work
LARGEST = 50_000  # orders; an operation that Shopify must repeat should not cost an hour
SHORTEST = timedelta(hours=1)  # no window is cut finer than this
MOST_COUNTS = 40  # counts a plan may ask for, at 10 points each
COUNTED_UP_TO = 25_000  # Shopify counts exactly up to here, and answers 25,001 for whatever is more


@dataclass(frozen=True)
class Window:
    """Orders created from `start` (None: the first) until before `end` (None: now)."""

    start: datetime | None = None
    end: datetime | None = None

    @property
    def search(self) -> str:
        """Shopify's search for it. Both edges may count as inside there: rows are upserted by id."""
        edges = ((">=", self.start), ("<", self.end))
        return " ".join(f"created_at:{sign}'{search_time(edge)}'" for sign, edge in edges if edge)

    def halves(self, oldest: datetime, now: datetime) -> tuple[Window, Window] | None:
        """The newer and the older half, or None if it is too short to cut."""
        start, end = self.start or oldest, self.end or now
        if end - start < 2 * SHORTEST:
            return None
        middle = (start + (end - start) / 2).replace(microsecond=0)
        return Window(middle, self.end), Window(self.start, middle)


Count = Callable[[Window], Awaitable[int]]


async def cut(
    count: Count,
    total: int,
    oldest: datetime,
    now: datetime,
    whole: Window = Window(),
) -> list[Window]:
    """Windows of about a tenth of `whole` each, the newest first; `total` is what it holds."""
    target = min(LARGEST, max(SMALLEST, -(-total // WINDOWS)))
    if total > COUNTED_UP_TO:
        target = max(target, COUNTED_UP_TO // WINDOWS)
    sized, asked = [], 0
    waiting = [(whole, total)]
    while waiting:
        window, size = waiting.pop()
        halves = window.halves(oldest, now) if size > target and asked < MOST_COUNTS else None
        if halves is None:
            sized.append((window, size))
            continue
        newer, older = halves
        asked += 1
        in_newer = await count(newer)
        if size > COUNTED_UP_TO:
            asked += 1
            in_older = await count(older)
        else:
            in_older = size - in_newer
        waiting += [(older, in_older), (newer, in_newer)]  # the newer one is taken first
    return _merged(sized, target)


def _merged(sized: list[tuple[Window, int]], target: int) -> list[Window]:
    """Neighbours that are one window's work together; `sized` goes from the newest to the oldest."""
    merged: list[tuple[Window, int]] = []
    for window, size in sized:
        if merged and merged[-1][1] + size <= target:
            newer, before = merged.pop()
            merged.append((Window(window.start, newer.end), before + size))
        else:
            merged.append((window, size))
    return [window for window, _ in merged]


def search_time(moment: datetime) -> str:
    """A moment as Shopify's search takes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
