"""Moments are whole epoch seconds, as precise as Shopify shows them.

GraphQL prints UTC ("2026-07-01T12:17:28Z"), webhooks the shop's own offset ("2026-07-01T08:17:28-04:00").
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY = 86_400
SECOND = 10**9
_EPOCH = date(1970, 1, 1)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def running_clock(anchor: int | None) -> Callable[[], int]:
    """Nanoseconds of the real time, or of a clock that starts at `anchor` and runs on from there."""
    if anchor is None:
        return time.time_ns
    offset = anchor * SECOND - time.monotonic_ns()
    return lambda: offset + time.monotonic_ns()


@lru_cache(8192)
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).isoformat()


def utc(moment: int) -> str:
    days, rest = divmod(moment, DAY)
    hours, rest = divmod(rest, 3600)
    return f"{_day(days)}T{hours:02d}:{rest // 60:02d}:{rest % 60:02d}Z"


def utc_or_none(moment: int | None) -> str | None:
    return None if moment is None else utc(moment)


@lru_cache(64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local(moment: int | None, zone: str) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, _zone(zone)).isoformat()


def parse(text: str, zone: str = "UTC") -> int:
    """A moment in a search filter or a flag; a date alone is midnight in the shop's zone."""
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=_zone(zone))).timestamp())


def iso_now() -> str:
    return datetime.now(UTC).isoformat()
