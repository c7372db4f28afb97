"""Windows on a connection: first/last, after/before, reverse; cursors as Shopify makes them."""

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from sandbox.context import JSON, FieldError

MAX_PAGE = 250
MAX_OBJECTS = 25_000  # Shopify pages no further than this; beyond it wants a bulk operation
Key = tuple[Any, int]  # Any: a moment, a number or a text, the same kind within one listing


class Listing(NamedTuple):
    """Objects in ascending order of their keys."""

    items: list[Any]
    keys: list[Key]
    newest_first: bool = False  # shown from the end unless `reverse` asks for the start


class Page(NamedTuple):
    items: list[Any]
    keys: list[Key]
    has_next: bool
    has_previous: bool

    def info(self) -> JSON:
        return {
            "endCursor": cursor(self.keys[-1]) if self.keys else None,
            "hasNextPage": self.has_next,
            "hasPreviousPage": self.has_previous,
            "startCursor": cursor(self.keys[0]) if self.keys else None,
        }


def listing(items: list[Any], key: Callable[[Any], Key]) -> Listing:
    pairs = sorted([(key(item), item) for item in items], key=lambda pair: pair[0])
    return Listing([item for _, item in pairs], [key for key, _ in pairs])


def in_order(items: list[Any]) -> Listing:
    """A nested connection: its objects are already in their order."""
    return Listing(items, [(index, index) for index in range(len(items))])


def cursor(key: Key) -> str:
    return base64.b64encode(msgspec.json.encode({"last_id": key[1], "last_value": key[0]})).decode()


def _key(text: str) -> Key:
    try:
        found = msgspec.json.decode(base64.b64decode(text, validate=True))
        return found["last_value"], found["last_id"]
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError):
        raise FieldError(f"Invalid cursor for current pagination sort: {text}", "BAD_REQUEST") from None


def check(args: JSON) -> None:
    first, last = args.get("first"), args.get("last")
    if first is None and last is None:
        raise FieldError("you must provide one of first or last", "BAD_REQUEST")
    if first is not None and last is not None:
        raise FieldError("providing both first and last is not supported", "BAD_REQUEST")
    for name, size in (("first", first), ("last", last)):
        if size is not None and size > MAX_PAGE:
            raise FieldError(f"{name} cannot exceed {MAX_PAGE}", "BAD_REQUEST")
        if size is not None and size < 0:
            raise FieldError(f"{name} cannot be negative", "BAD_REQUEST")


def page(of: Listing, args: JSON) -> Page:
    check(args)
    keys, backwards = of.keys, bool(args.get("reverse")) != of.newest_first
    low, high = 0, len(keys)
    after, before = args.get("after"), args.get("before")
    if backwards:
        after, before = before, after
    try:
        low = bisect_right(keys, _key(after)) if after else low
        high = max(low, bisect_left(keys, _key(before))) if before else high
    except TypeError:
        raise FieldError("Invalid cursor for current pagination sort.", "BAD_REQUEST") from None
    take_front = (args.get("first") is not None) != backwards
    size = args["first"] if args.get("first") is not None else args["last"]
    start, end = (low, min(high, low + size)) if take_front else (max(low, high - size), high)
    depth = len(keys) - end if backwards else start
    if depth >= MAX_OBJECTS:
        raise FieldError(
            f"Pagination is limited to {MAX_OBJECTS} objects. Use bulk operations.", "BAD_REQUEST"
        )
    items, shown = of.items[start:end], keys[start:end]
    more, less = end < len(keys), start > 0
    if backwards:
        return Page(items[::-1], shown[::-1], less, more)
    return Page(items, shown, more, less)
