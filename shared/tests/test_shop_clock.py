"""What time it is at a shop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from shared.shop_clock import ShopClock


def _off_by(clock: ShopClock) -> float:
    return (clock.now() - datetime.now(UTC)).total_seconds()


def test_the_shops_clock_is_followed_and_never_run_ahead_of():
    """A shop a minute behind is told from a Date that is cut to the second, so up to a second earlier."""
    clock = ShopClock()
    assert not clock.is_known
    clock.heed(format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True))
    assert clock.is_known
    assert -61.1 <= _off_by(clock) <= -60


def test_an_answer_without_a_date_leaves_our_own_clock():
    """No Date, or none that can be read, changes nothing."""
    clock = ShopClock()
    for date in (None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"):
        clock.heed(date)
    assert not clock.is_known
    assert abs(_off_by(clock)) < 0.1
