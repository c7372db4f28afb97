"""What the three resources have in common: ids, money, pages, and what a line of a bulk file is. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from shared.errors import BadPayloadError
from shared.events import Resource
from shared.rows import AuditedRow, Row
from shared.shopify_errors import UnexpectedAnswerError
from shared.texts import Amount

T = TypeVar("T")
R = TypeVar("R", Row, AuditedRow)

NULL = b"null"
LARGEST_ID = 2**63 - 1

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
class ReadNode(Generic[R]):
    """A node of an answer: its text, and its rows or why it has none.

    `root`: the id of the order, customer or product that it belongs to, where that can be read.
    """

    text: bytes
    rows: list[R]
    root: int | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Page(Generic[R]):
    """A page, node by node, and the cursor after it."""

    nodes: list[ReadNode[R]]
    next: str | None


@dataclass(frozen=True)
class LineKind:
    """One type of object in a bulk file: how it is decoded, its rows, what an audit keeps of it."""

    decoder: msgspec.json.Decoder[Any]
    rows: Callable[[Any, str], list[Row]]
    audited: Callable[[Any], list[AuditedRow]]
    is_root: bool = False


async def read_nodes(
    texts: Iterable[msgspec.Raw], read: Callable[[bytes, int], Awaitable[list[R]]]
) -> list[ReadNode[R]]:
    """Each node with what `read` makes of its text and its place; what is none has its reason instead."""
    return [await _read_node(bytes(text), place, read) for place, text in enumerate(texts)]


async def _read_node(
    text: bytes, place: int, read: Callable[[bytes, int], Awaitable[list[R]]]
) -> ReadNode[R]:
    try:
        return ReadNode(text, await read(text, place), root_of(text))
    except (*UNREADABLE, UnexpectedAnswerError) as error:  # the latter: of a further page of its children
        return ReadNode(text, [], root_of(text), error)


def as_asked(gids: Sequence[str], texts: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
    """Those of the nodes that there are, if they are the answer to these ids: one for each, null for gone."""
    found = [_gid_of(bytes(text)) for text in texts]
    if len(found) != len(gids) or any(
        there not in (None, gid) for there, gid in zip(found, gids, strict=True)
    ):
        raise BadPayloadError("nodes(ids:) answered with other objects than were asked for")
    return [text for text in texts if bytes(text) != NULL]


def _gid_of(text: bytes) -> str | None:
    try:
        return msgspec.json.decode(text, type=_Ids).id
    except UNREADABLE:
        return None


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


def root_of(text: bytes) -> int | None:
    """The same, None where it cannot be read or is none that Shopify gives."""
    try:
        found = parent_of(text)
    except UNREADABLE:
        return None
    return found if found <= LARGEST_ID else None


def unproven(resource: Resource, text: bytes) -> AuditedRow:
    """What stands in an audit for a text that it cannot compare: newer than any row of ours, so never equal.

    Without an id that can be read it is an object 0, which is missing here.
    """
    return AuditedRow(resource, root_of(text) or 0, None, "infinity", None)


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
