"""How often one address may begin at /auth/shopify: each start costs a row, and anybody may ask. Pure.

A bucket an address: STARTS of them at once, one more each REFILL seconds. The addresses that were heard of
longest ago are forgotten first, so memory is bounded whoever asks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address

STARTS = 60  # at once: a proxy that hides its clients is one address for all their merchants
REFILL = 1.0  # seconds until one more
ADDRESSES = 10_000  # remembered; about 200 bytes each
NETWORK = 8  # bytes of an IPv6 address that its owner cannot choose


class Starts:
    """Counts starts; `wait` says whether one more is too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free_at: OrderedDict[bytes, float] = OrderedDict()  # when the bucket is full again

    def wait(self, address: str) -> float:
        """Seconds until this address may begin; 0.0 if it may now, which is then counted."""
        now, key = self._clock(), _key(address)
        full_at = max(self._free_at.pop(key, now), now)
        wait = full_at + REFILL - STARTS * REFILL - now
        self._free_at[key] = full_at if wait > 0 else full_at + REFILL
        if len(self._free_at) > ADDRESSES:
            self._free_at.popitem(last=False)
        return max(wait, 0.0)


def _key(address: str) -> bytes:
    try:
        packed = ip_address(address).packed
    except ValueError:
        return address.encode()[:40]
    return packed[:NETWORK] if len(packed) > NETWORK else packed
