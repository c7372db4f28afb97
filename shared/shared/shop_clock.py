"""What time it is at a shop, by the `Date` of its answers.

Rows that were read and rows that a webhook brought are compared by when Shopify sent them. A webhook says
so by Shopify's clock; so must what we read, or a machine whose clock is off would let old win over new.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


class ShopClock:
    """Never ahead of the shop's own: a `Date` is cut to the second, and old when it arrives."""

    def __init__(self) -> None:
        self._ahead: timedelta | None = None

    @property
    def is_known(self) -> bool:
        """Whether an answer has told the time."""
        return self._ahead is not None

    def heed(self, date: str | None) -> None:
        """Take in the `Date` of an answer that arrived just now; one that is none counts for nothing."""
        try:
            said = parsedate_to_datetime(date or "")
        except ValueError:
            return
        self._ahead = said.astimezone(UTC) - datetime.now(UTC)

    def now(self) -> datetime:
        """The shop's time, or ours where it never said."""
        return datetime.now(UTC) + (self._ahead or timedelta(0))
