"""How a store's orders are cut into windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bulk_runner.windows import MOST_COUNTS, SMALLEST, Window, cut

NOW = datetime(2026, 11, 1, tzinfo=UTC)
YEARS = timedelta(days=3 * 365)
OLDEST = NOW - YEARS


def store(moments):
    """A store with an order at each moment, and how often it was asked for a count."""
    asked = []

    async def count(window: Window) -> int:
        asked.append(window)
        return min(sum(_inside(window, moment) for moment in moments), 25_001)

    return count, asked


def _inside(window: Window, moment: datetime) -> bool:
    return (window.start is None or moment >= window.start) and (window.end is None or moment < window.end)


async def test_a_small_history_is_one_window():
    """Below the smallest window nothing is cut and nothing is asked."""
    count, asked = store([])
    assert await cut(count, SMALLEST, OLDEST, NOW) == [Window()]
    assert asked == []


async def test_windows_go_from_the_newest_to_the_oldest_without_a_gap():
    """The first window is open towards now, the last towards the beginning; each begins where one ends."""
    moments = [OLDEST + YEARS * n / 30_000 for n in range(30_000)]
    count, _ = store(moments)
    windows = await cut(count, 25_001, OLDEST, NOW)
    assert windows[0].end is None
    assert windows[-1].start is None
    assert all(newer.start == older.end for newer, older in pairwise(windows))
    assert len(windows) >= 8


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 400))
async def test_every_order_is_in_exactly_one_window(places, each):
    """However the orders lie in time, no window misses one and no two share one, at a bounded cost."""
    moments = [OLDEST + YEARS * place for place in places for _ in range(each)]
    count, asked = store(moments)
    windows = await cut(count, len(moments), OLDEST, NOW)
    assert sum([sum(_inside(w, moment) for w in windows) for moment in moments]) == len(moments)
    assert len(asked) <= MOST_COUNTS + 1


def test_a_window_is_halved_at_its_middle():
    """Two halves share their edge and keep the open ends; an hour or less is not cut."""
    newer, older = Window(None, None).halves(OLDEST, NOW)
    assert newer == Window(older.end, None)
    assert older.start is None
    assert Window(NOW - timedelta(hours=1), NOW).halves(OLDEST, NOW) is None


def test_a_window_reads_as_shopifys_search():
    """Edges are quoted ISO moments in UTC; an open edge is left out."""
    window = Window(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None)
    assert window.search == "created_at:>='2026-01-02T03:04:05Z'"
    assert Window().search == ""
