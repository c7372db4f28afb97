"""A store's first sync as the events that status would see, in the order in which they happen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shared.events import (
    BulkProgressed,
    BulkReady,
    BulkStarted,
    ConnectionCreated,
    ConnectionRemoved,
    Event,
    JobCompleted,
    JobKind,
    JobQueued,
    Promoted,
    Resource,
    ShopWaits,
    StagedBatch,
    TableCheck,
    WebhooksRegistered,
)

START = datetime(2026, 11, 1, 9, 0, tzinfo=UTC)
CHILD_TABLE = {"orders": "order_line_items", "customers": None, "products": "product_variants"}
SIZES: dict[Resource, int] = {"orders": 12_000, "customers": 5_000, "products": 400}


class Clock:
    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self, seconds: float = 0.5) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


class Story:
    """Makes events of one connection, each a little later than the one before."""

    def __init__(self, connection_id: int = 1, brand_id: str = "acme", start: datetime = START) -> None:
        self.who = {"connection_id": connection_id, "brand_id": brand_id}
        self.clock, self.batches, self.jobs, self.operations = Clock(start), 0, 0, 0

    def connected(self) -> Event:
        return ConnectionCreated(**self.who, occurred_at=self.clock(), shop="acme.myshopify.com")

    def removed(self) -> Event:
        return ConnectionRemoved(
            **self.who, occurred_at=self.clock(), reason="disconnected", last_job_id=self.jobs
        )

    def waits(self, seconds: float, reason: str = "throttled") -> Event:
        at = self.clock()
        return ShopWaits(**self.who, occurred_at=at, until=at + timedelta(seconds=seconds), reason=reason)

    def webhooks(self) -> Event:
        return WebhooksRegistered(**self.who, occurred_at=self.clock(), topics=("ORDERS_CREATE",))

    def queued(self, kind: JobKind, **expected: int) -> JobQueued:
        self.jobs += 1
        return JobQueued(**self.who, occurred_at=self.clock(), job_id=self.jobs, kind=kind, expected=expected)

    def batch(self, job: JobQueued | None, rows: dict[str, int], source: str, **file: int) -> Iterator[Event]:
        self.batches += 1
        work = {
            "batch_id": self.batches,
            "rows": rows,
            "source": source,
            "job_id": job.job_id if job else None,
            "kind": job.kind if job else None,
        }
        yield StagedBatch(**self.who, occurred_at=self.clock(0.3), **work, **file)
        yield Promoted(**self.who, occurred_at=self.clock(0.3), written=rows, **work)

    def completed(self, job: JobQueued, audit: tuple[TableCheck, ...] | None = None) -> Event:
        return JobCompleted(
            **self.who, occurred_at=self.clock(), job_id=job.job_id, kind=job.kind, audit=audit
        )

    def about(self, job: JobQueued, resource: Resource, attempt: int = 1) -> dict[str, object]:
        return {
            "job_id": job.job_id,
            "kind": job.kind,
            "resource": resource,
            "operation_id": self.operations,
            "attempt": attempt,
        }

    def again(self, job: JobQueued, resource: Resource, attempt: int, *, split: bool = False) -> Event:
        return BulkProgressed(
            **self.who,
            **self.about(job, resource, attempt),
            occurred_at=self.clock(),
            shopify_status="",
            runs_again="its file expired",
            split=split,
        )

    def bulk(
        self, job: JobQueued, resource: Resource, size: int, batches: int = 6, *, breaks: bool = False
    ) -> Iterator[Event]:
        """An operation from its start to the last row; one that breaks runs again from the start."""
        self.operations += 1
        if breaks:
            yield from self._attempt(job, resource, size, batches, read=batches // 2, attempt=1)
            yield self.again(job, resource, 2)
        yield from self._attempt(job, resource, size, batches, read=batches, attempt=2 if breaks else 1)
        yield self.completed(job)

    def _attempt(
        self, job: JobQueued, resource: Resource, size: int, batches: int, *, read: int, attempt: int
    ) -> Iterator[Event]:
        about = self.about(job, resource, attempt)
        yield BulkProgressed(
            **self.who, occurred_at=self.clock(), **about, shopify_status="", waiting_for_slot=True
        )
        yield BulkStarted(**self.who, occurred_at=self.clock(), **about, gid=f"gid://{self.operations}")
        for part in (0.3, 0.7):
            roots = int(size * part)
            yield BulkProgressed(
                **self.who,
                occurred_at=self.clock(2),
                **about,
                shopify_status="RUNNING",
                object_count=roots * 3,
                root_object_count=roots,
            )
        yield BulkReady(
            **self.who,
            occurred_at=self.clock(2),
            **about,
            object_count=size * 3,
            root_object_count=size,
            file_size=size * 900,
        )
        for number in range(read):
            roots = size // batches + (size % batches if number == 0 else 0)
            child = CHILD_TABLE[resource]
            rows = {resource: roots} | ({child: roots * 2} if child else {})
            file = {"operation_id": self.operations, "attempt": attempt}
            file["bytes_done"] = size * 900 * (number + 1) // batches
            yield from self.batch(job, rows, "bulk", **file)


def checks(sizes: dict[Resource, int] = SIZES, *, equal: bool = True) -> tuple[TableCheck, ...]:
    return tuple(
        TableCheck(
            table=name,
            shopify_count=size,
            our_count=size if equal else size - 1,
            shopify_sum="1234567.80" if name == "orders" else None,
            our_sum="1234567.80" if name == "orders" else None,
            missing=0 if equal else 1,
            equal=equal,
        )
        for name, size in sizes.items()
    )


def first_sync(story: Story | None = None) -> list[Event]:
    """From the connection to live, with a first audit that finds a row missing."""
    story = story or Story()
    events: list[Event] = [story.connected()]
    recent = story.queued("recent_sync")
    events.append(recent)
    events += story.batch(recent, {"orders": 120, "order_line_items": 300}, "recent")
    events.append(story.webhooks())
    events += story.batch(recent, {"orders": 40, "order_line_items": 90}, "recent")
    events.append(story.completed(recent))
    jobs = {name: story.queued(f"bulk_{name}", **SIZES) for name in SIZES}
    events += jobs.values()
    for name, size in SIZES.items():
        events += story.bulk(jobs[name], name, size, breaks=name == "customers")
        events.append(story.waits(4))
    events += story.batch(None, {"orders": 1, "order_line_items": 2}, "webhook")
    for equal in (False, True):
        catch_up = story.queued("catch_up")
        events += [catch_up, *story.batch(catch_up, {"orders": 7}, "catch_up"), story.completed(catch_up)]
        audit = story.queued("audit")
        events += [audit, story.completed(audit, checks(equal=equal))]
    events += story.batch(None, {"orders": 1, "order_line_items": 2}, "webhook")
    return events
