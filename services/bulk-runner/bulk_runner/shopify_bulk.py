"""What Shopify is asked about bulk operations, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from bulk_runner.documents import document
from shared.shopify import Shop, UserErrors

PATH = "shopify.graphql"


class _NewOperation(msgspec.Struct, rename="camel"):
    id: str
    created_at: datetime


class Run(msgspec.Struct, rename="camel"):
    """An operation that runs now, or why there is none."""

    user_errors: list[UserErrors]
    bulk_operation: _NewOperation | None = None


class RunBulk(msgspec.Struct, rename="camel"):
    """The answer of RunBulk."""

    bulk_operation_run_query: Run


class PolledOperation(msgspec.Struct, rename="camel"):
    """A bulk operation as Shopify shows it; counters are strings there."""

    id: str
    status: str
    created_at: datetime
    object_count: str
    root_object_count: str
    error_code: str | None = None
    file_size: str | None = None
    url: str | None = None


class PollBulk(msgspec.Struct, rename="camel"):
    """The answer of PollBulk; None if Shopify does not know the id."""

    bulk_operation: PolledOperation | None


class _Canceled(msgspec.Struct, rename="camel"):
    user_errors: list[UserErrors]


class CancelBulk(msgspec.Struct, rename="camel"):
    """The answer of CancelBulk."""

    bulk_operation_cancel: _Canceled


class FoundOperation(msgspec.Struct, rename="camel"):
    """A bulk operation in a listing, with its query as it was sent."""

    id: str
    query: str
    created_at: datetime
    status: str


class _Found(msgspec.Struct):
    nodes: list[FoundOperation]


class RecentBulks(msgspec.Struct, rename="camel"):
    """The answer of RecentBulks."""

    bulk_operations: _Found


async def run(shop: Shop, query: str, still: Callable[[], None]) -> Run:
    """Have a bulk query run, if it is `still` ours to start; `user_errors` says why not."""
    answer = await shop.query(RunBulk, document(PATH, "RunBulk"), {"query": query}, still=still)
    return answer.bulk_operation_run_query


async def ask(shop: Shop, gid: str) -> PolledOperation | None:
    """How Shopify says the operation stands."""
    answer = await shop.query(PollBulk, document(PATH, "PollBulk"), {"id": gid})
    return answer.bulk_operation


async def cancel(shop: Shop, gid: str) -> str:
    """Ask for its end; it holds its slot until it has ended. Returns why Shopify refuses, if it does."""
    answer = await shop.query(CancelBulk, document(PATH, "CancelBulk"), {"id": gid})
    return "; ".join(error.message for error in answer.bulk_operation_cancel.user_errors)


async def recent(shop: Shop) -> list[FoundOperation]:
    """The shop's latest bulk queries of this app, whoever had them run."""
    answer = await shop.query(RecentBulks, document(PATH, "RecentBulks"))
    return answer.bulk_operations.nodes
