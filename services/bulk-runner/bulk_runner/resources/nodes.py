"""What the three resources have in common: ids, money, pages, and what a line of a bulk file is. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shared.errors import BadPayloadError
from shared.rows import AuditedRow, Row
from shared.texts import Amount

T = TypeVar("T")

# Our documents ask for `id` first, so this is the object's own id; slashes are escaped in bulk files.
_TYPE = re.compile(rb'\s*\{\s*"id"\s*:\s*"gid:(?:\\?/){2}shopify\\?/(\w+)')

# What comes of a text that is no node: no JSON, another form, an id that is none, nesting without an end.
UNREADABLE = (BadPayloadError, msgspec.DecodeError, ValueError, RecursionError)


class Money(msgspec.Struct, gc=False):
    """A decimal as text."""

    amount: Amount


class MoneyBag(msgspec.Struct, rename="camel", gc=False):
    """Shop money; the customer's currency is not kept."""

    shop_money: Money


class Ref(msgspec.Struct, gc=False):
    """Another object, by its id."""

    id: str


class PageInfo(msgspec.Struct, rename="camel"):
    """Where the next page begins."""

    has_next_page: bool
    end_cursor: str | None = None

    @property
    def next(self) -> str | None:
        """The cursor of the next page, if there is one."""
        return self.end_cursor if self.has_next_page else None


class Nodes(msgspec.Struct, Generic[T], rename="camel"):
    """A page of a connection."""

    nodes: list[T]
    page_info: PageInfo


class _Ids(msgspec.Struct):
    id: str
    parent: str | None = msgspec.field(name="__parentId", default=None)


@dataclass(frozen=True)
class Page:
    """A page as rows, and the cursor after it."""

    rows: list[Row]
    next: str | None


@dataclass(frozen=True)
class LineKind:
    """One type of object in a bulk file: how it is decoded, its rows, what an audit keeps of it."""

    decoder: msgspec.json.Decoder[Any]
    rows: Callable[[Any, str], list[Row]]
    audited: Callable[[Any], list[AuditedRow]]
    is_root: bool = False


class _Identified(Protocol):
    id: str


N = TypeVar("N", bound=_Identified)


def as_asked(gids: Sequence[str], nodes: Sequence[N | None]) -> Sequence[N | None]:
    """The nodes, if they are the answer to these ids: one for each, null for what is gone."""
    if len(nodes) != len(gids) or any(node and node.id != gid for gid, node in zip(gids, nodes, strict=True)):
        raise BadPayloadError("nodes(ids:) answered with other objects than were asked for")
    return nodes


def kind_of(line: bytes, kinds: Mapping[str, LineKind]) -> LineKind:
    """The kind of the object on a line; one of UNREADABLE if it is none of these."""
    if not line.isascii():
        line.decode()  # of what is left out nobody else would notice that it is no UTF-8
    name = _type_of(line)
    if name not in kinds:
        raise BadPayloadError(f"nobody asked for a {name} here")
    return kinds[name]


def _type_of(line: bytes) -> str:
    found = _TYPE.match(line)
    if found is None:
        raise BadPayloadError("the line does not begin with a Shopify id")
    return found[1].decode()


def parent_of(line: bytes) -> int:
    """The id of the object that a line belongs to: its parent's, or its own."""
    found = msgspec.json.decode(line, type=_Ids)
    return numeric_id(found.parent or found.id)


def numeric_id(gid: str) -> int:
    """`gid://shopify/Order/1` -> 1 (some ids carry a query string); ValueError if it is no id."""
    digits = gid[gid.rindex("/") + 1 :].partition("?")[0]
    if not (digits.isascii() and digits.isdecimal()):  # int() takes signs, blanks and underscores, too
        raise ValueError("an id of Shopify's ends with a number")
    return int(digits)


def reference(ref: Ref | None) -> int | None:
    """The numeric id of another object, if there is one."""
    return numeric_id(ref.id) if ref else None


def parent_id(gid: str | None, kind: str) -> int:
    """The numeric id of a line's parent; BadPayloadError if it has none, or one of another type."""
    if gid is None:
        raise BadPayloadError("the line has no __parentId")
    if not gid.startswith(f"gid://shopify/{kind}/"):
        raise BadPayloadError(f"the line's __parentId is no {kind}")
    return numeric_id(gid)


def amount(bag: MoneyBag | None) -> str | None:
    """The amount, if there is one."""
    return bag.shop_money.amount if bag else None
