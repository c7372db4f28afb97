"""Everything that can happen on the route, in route order.

    ConnectionCreated -> JobQueued(recent_sync) -> StagedBatch* -> Promoted* -> JobCompleted
                      -> WebhooksRegistered -> JobQueued(bulk_*) -> BulkStarted -> BulkProgressed*
                         -> BulkFinished -> BulkReady -> StagedBatch* -> Promoted* -> JobCompleted
                      -> JobQueued(catch_up) -> ... -> JobQueued(audit) -> ... -> live
    a webhook         -> StagedBatch -> Promoted
    Shopify says wait -> ShopWaits
    more scopes       -> ScopesGranted -> WebhooksRegistered -> what they open
    disconnect        -> ConnectionRemoved
    a dead letter     -> TroubleChanged;  replayed, if it is Shopify's text: LetterReplayed -> StagedBatch

An event is a fact: past tense, frozen, versioned. Its class names the services that consume it; the
outbox writes that list down with the event, so a lost message can be sent again to whoever missed it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field

Service = Literal["ingress", "bulk-runner", "promoter", "status"]
Resource = Literal["orders", "customers", "products"]
Source = Literal["recent", "bulk", "webhook", "catch_up", "audit"]
JobKind = Literal["recent_sync", "bulk_orders", "bulk_customers", "bulk_products", "catch_up", "audit"]

BULK_JOBS: dict[JobKind, Resource] = {
    "bulk_orders": "orders",
    "bulk_customers": "customers",
    "bulk_products": "products",
}


class Event(BaseModel):
    """What every event carries: its own identity and the connection that it is about."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    consumed_by: ClassVar[tuple[Service, ...]]

    event_id: UUID = Field(default_factory=uuid4)
    version: int = 1
    occurred_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    connection_id: int
    brand_id: str


class Problem(BaseModel):
    """What went wrong, in words for people: what it is and what helps."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    action: str


class TableCheck(BaseModel):
    """One line of an audit: Shopify's figures for a table beside ours (money sums are decimal strings)."""

    model_config = ConfigDict(frozen=True)

    table: str
    shopify_count: int
    our_count: int
    shopify_sum: str | None = None
    our_sum: str | None = None
    missing: int = 0
    different: int = 0
    extra: int = 0
    equal: bool


class ConnectionCreated(Event):
    """A store was connected (or connected again after it had been removed)."""

    consumed_by = ("ingress", "bulk-runner", "status")
    shop: str


class ScopesGranted(Event):
    """The merchant granted the app more scopes: what they open is to be read."""

    consumed_by = ("ingress",)


class WebhooksRegistered(Event):
    """Shopify now tells us of changes. `problem` says why if it does not; history loads all the same.

    `anew`: a sync begins; else only what a scope opened since is missing.
    """

    consumed_by = ("bulk-runner", "status")
    anew: bool = True
    topics: tuple[str, ...] = ()
    problem: Problem | None = None


class JobQueued(Event):
    """A job waits to be worked on. `expected` is Shopify's count per resource, where it is known."""

    consumed_by = ("bulk-runner", "status")
    job_id: int
    kind: JobKind
    expected: dict[str, int] = Field(default_factory=dict)


class BulkStarted(Event):
    """Shopify accepted a bulk operation and prepares its file."""

    consumed_by = ("status",)
    job_id: int
    kind: JobKind
    resource: Resource
    operation_id: int
    gid: str
    attempt: int = 1


class BulkProgressed(Event):
    """Shopify's counters moved, the operation waits for one of the shop's slots, or it runs again.

    `runs_again` says why; `attempt` is then the next one. `split`: two halves of its window take its place.
    """

    consumed_by = ("status",)
    job_id: int
    kind: JobKind
    resource: Resource
    operation_id: int
    shopify_status: str
    object_count: int = 0
    root_object_count: int = 0
    waiting_for_slot: bool = False
    attempt: int = 1
    runs_again: str = ""
    split: bool = False


class BulkFinished(Event):
    """Shopify's `bulk_operations/finish` webhook came: the operation is over, one way or another."""

    consumed_by = ("bulk-runner",)
    gid: str
    shopify_status: str


class BulkReady(Event):
    """A bulk operation completed and its file can be downloaded. Counts are Shopify's; size in bytes."""

    consumed_by = ("bulk-runner", "status")
    job_id: int
    kind: JobKind
    resource: Resource
    operation_id: int
    object_count: int
    root_object_count: int
    file_size: int
    attempt: int = 1


class StagedBatch(Event):
    """Rows wait in schema `stage`. `rows` counts them by table.

    Of a bulk file: `bytes_done` is how much of the operation's file has been read in this attempt.
    """

    consumed_by = ("promoter", "status")
    batch_id: int
    source: Source
    rows: dict[str, int]
    job_id: int | None = None
    kind: JobKind | None = None
    resource: Resource | None = None
    operation_id: int | None = None
    attempt: int = 1
    bytes_done: int = 0


class Promoted(Event):
    """The rows of a batch are in schema `shopify`. `written` counts those that were new or newer."""

    consumed_by = ("bulk-runner", "status")
    batch_id: int
    source: Source
    rows: dict[str, int]
    written: dict[str, int]
    job_id: int | None = None
    kind: JobKind | None = None
    resource: Resource | None = None


class JobCompleted(Event):
    """All of a job is in production. An audit carries what it compared."""

    consumed_by = ("bulk-runner", "status")
    job_id: int
    kind: JobKind
    audit: tuple[TableCheck, ...] | None = None


class JobFailed(Event):
    """A job could not go on. `final`: it will not be tried again without somebody's help."""

    consumed_by = ("status",)
    job_id: int
    kind: JobKind
    problem: Problem
    final: bool = True


class ShopWaits(Event):
    """Reading a store pauses until about then: its points are spent, or Shopify asks for it or is away."""

    consumed_by = ("status",)
    until: datetime
    reason: Literal["points", "throttled", "unavailable"]


class TroubleChanged(Event):
    """What a connection's open dead letters amount to; None once there are none.

    `halts`: the sync waits for one of them; else it went on without a row or a webhook.
    """

    consumed_by = ("status",)
    problem: Problem | None = None
    halts: bool = False


class LetterReplayed(Event):
    """Somebody wants a text of Shopify's that was set aside read again, by the service that had done so."""

    consumed_by = ("ingress", "bulk-runner")
    letter_id: int


class ConnectionRemoved(Event):
    """The store was disconnected here, or the app was uninstalled there.

    `last_job_id`: jobs up to this one are the past, whenever news of them come.
    """

    consumed_by = ("status",)
    reason: Literal["disconnected", "uninstalled", "redacted"]
    last_job_id: int = 0


EVENTS: dict[str, type[Event]] = {
    event.__name__: event
    for event in (
        ConnectionCreated,
        ScopesGranted,
        WebhooksRegistered,
        JobQueued,
        BulkStarted,
        BulkProgressed,
        BulkFinished,
        BulkReady,
        StagedBatch,
        Promoted,
        JobCompleted,
        JobFailed,
        ShopWaits,
        TroubleChanged,
        LetterReplayed,
        ConnectionRemoved,
    )
}
