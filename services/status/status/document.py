"""Progress -> the document that the JSON and SSE endpoints show (section "Status HTTP" of the docs)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from shared.events import BULK_JOBS, JobKind, Resource
from status import measure
from status.state import (
    RESOURCE_JOBS,
    Check,
    Completion,
    Job,
    Operation,
    Pause,
    Progress,
    Trouble,
)

MilestoneState = Literal["waiting", "active", "done", "failed"]

CHILDREN: dict[Resource, dict[str, str]] = {
    "orders": {"order_line_items": "lineItems", "refunds": "refunds"},
    "customers": {},
    "products": {"product_variants": "variants"},
}
JOB_MILESTONES: dict[JobKind, tuple[str, str]] = {
    "recent_sync": ("recent_orders", "Recent orders"),
    "bulk_orders": ("history_orders", "Order history"),
    "bulk_customers": ("history_customers", "Customers"),
    "bulk_products": ("history_products", "Products"),
    "catch_up": ("catch_up", "Caught up"),
    "audit": ("audit", "Checked against Shopify"),
}
PAUSES = {
    "points": (
        "Shopify limits how much may be read at a time, and this store's share is used up.",
        "Nothing to do: reading goes on when the time is up.",
    ),
    "throttled": ("Shopify asks to slow down.", "Nothing to do: reading goes on when the time is up."),
    "unavailable": (
        "Shopify does not answer at the moment.",
        "Nothing to do: it is asked again. If it lasts, look Shopify's status page up.",
    ),
}
REMOVED = {
    "disconnected": "The store was disconnected.",
    "uninstalled": "The app was uninstalled from the store.",
    "redacted": "Shopify asked for the store's data to be erased.",
}


class Milestone(Struct, frozen=True, rename="camel"):
    """A step that people care about, and when it was reached."""

    key: str
    label: str
    state: MilestoneState
    at: datetime | None = None


class ResourceView(Struct, frozen=True, rename="camel"):
    """How far one resource's history is; counts are roots, children beside them."""

    name: Resource
    phase: measure.Phase
    expected: int | None
    prepared: int
    downloaded: int
    staged: int
    promoted: int
    percent: float
    rate_per_second: float | None
    eta_seconds: int | None
    children: dict[str, int]


class Recent(Struct, frozen=True, rename="camel"):
    """What a dashboard can show already: at least so many orders."""

    orders_visible: int
    first_data_at: datetime | None


class Limits(Struct, frozen=True, rename="camel"):
    """What the granted scopes leave out."""

    history_limited_to_60_days: bool
    missing_scopes: tuple[str, ...]


class Notice(Struct, frozen=True, rename="camel"):
    """Something that slows the sync down and passes by itself; what is wrong for good is `lastError`."""

    code: str
    message: str
    action: str
    resource: Resource | None = None


class AuditView(Struct, frozen=True, rename="camel"):
    """The newest comparison with Shopify."""

    equal: bool
    completed_at: datetime
    tables: tuple[Check, ...]
    job_id: int


class Document(Struct, frozen=True, rename="camel"):
    """How far a brand's sync is."""

    brand_id: str
    shop: str
    sync_status: measure.Status
    percent: float
    eta_seconds: int | None
    as_of: datetime
    milestones: tuple[Milestone, ...]
    resources: tuple[ResourceView, ...]
    recent: Recent
    limits: Limits
    throttled_until: datetime | None
    notices: tuple[Notice, ...]
    audit: AuditView | None
    last_error: Trouble | None
    version: int


def draw(progress: Progress, *, brand_id: str, version: int, now: datetime) -> Document:
    """The document as of now: only rates, times to go and pauses depend on the moment; at rest, nothing."""
    status = measure.status(progress)
    at_rest = status in ("live", "attention")
    pause = measure.pause(progress, now)
    return Document(
        brand_id=brand_id,
        shop=progress.shop,
        sync_status=status,
        percent=progress.percent,
        eta_seconds=_seconds(measure.eta(progress, now)),
        as_of=progress.latest_at if at_rest and progress.latest_at else now,
        milestones=_milestones(progress, status),
        resources=tuple(_resource(progress, name, None if at_rest else now) for name in RESOURCE_JOBS),
        recent=Recent(_orders_visible(progress), measure.first_data_at(progress)),
        limits=Limits("read_all_orders" in progress.missing_scopes, progress.missing_scopes),
        throttled_until=pause.until if pause else None,
        notices=tuple(_notices(progress, pause)),
        audit=_audit(progress),
        last_error=_last_error(progress),
        version=version,
    )


def _resource(progress: Progress, name: Resource, now: datetime | None) -> ResourceView:
    job = progress.jobs.get(RESOURCE_JOBS[name])
    expected, *here = _counts(progress, name, job)
    prepared, downloaded, staged, promoted = here
    rate = measure.rate(job, now) if now and job and not job.completed_at else None
    rows = job.promoted if job else {}
    return ResourceView(
        name=name,
        phase=measure.phase(progress, name),
        expected=expected,
        prepared=prepared,
        downloaded=downloaded,
        staged=staged,
        promoted=promoted,
        percent=math.floor(measure.fraction(progress, name) * 1000) / 10,
        rate_per_second=round(rate, 1) if rate else None,
        eta_seconds=_seconds(measure.resource_eta(progress, name, now) if now else None),
        children={
            label: _proven_count(progress, name, table) or rows.get(table, 0)
            for table, label in CHILDREN[name].items()
        },
    )


def _proven_count(progress: Progress, name: Resource, table: str) -> int:
    proof = measure.proven(progress, name, table)
    return proof.our_count if proof else 0


def _counts(progress: Progress, name: Resource, job: Job | None) -> tuple[int | None, int, int, int, int]:
    """Expected, prepared, downloaded, staged, promoted. The audit knows best; repeats count once."""
    if proof := measure.proven(progress, name):
        return proof.shopify_count, proof.shopify_count, proof.our_count, proof.our_count, proof.our_count
    expected = measure.expected(progress, name)
    if job is None:
        return expected, 0, 0, 0, 0
    here = [
        min(count(job, name), expected) if expected else count(job, name)
        for count in (measure.prepared, measure.downloaded, measure.staged, measure.promoted)
    ]
    if job.completed_at:
        # Orders made or deleted while it ran: the end of the job says that what came is what there was.
        return here[3], here[3], here[3], here[3], here[3]
    return expected, here[0], here[1], here[2], here[3]


def _milestones(progress: Progress, status: measure.Status) -> tuple[Milestone, ...]:
    live_at = progress.audit.at if status == "live" and progress.audit else None
    return (
        _reached("connected", "Store connected", progress.connected_at),
        _reached("first_data", "First data visible", measure.first_data_at(progress)),
        _webhooks(progress),
        *(_job_milestone(progress, kind) for kind in JOB_MILESTONES),
        _reached("live", "Live", live_at),
    )


def _reached(key: str, label: str, at: datetime | None) -> Milestone:
    return Milestone(key, label, "done" if at else "waiting", at)


def _webhooks(progress: Progress) -> Milestone:
    state: MilestoneState = (
        "failed" if progress.webhooks_trouble else "done" if progress.webhooks_at else "waiting"
    )
    return Milestone("webhooks", "Listening for changes", state, progress.webhooks_at)


def _job_milestone(progress: Progress, kind: JobKind) -> Milestone:
    key, label = JOB_MILESTONES[kind]
    if measure.needs_help(progress, kind):
        return Milestone(key, label, "failed", progress.failures[kind].at)
    done, audit = progress.completed.get(kind), progress.audit
    differs = kind == "audit" and audit and not audit.equal
    newest, since = measure.newest_job(progress, kind), _since(progress, kind)
    if done and done.job_id >= since and not differs:
        return Milestone(key, label, "done", _at(done))
    return Milestone(key, label, "active" if newest and newest >= since else "waiting")


def _since(progress: Progress, kind: JobKind) -> int:
    """The id of the job from which on one counts: what is loaded anew is to be caught up and proven anew."""
    if kind == "recent_sync":
        return 0
    return measure.newest_job(progress, kind) if kind in BULK_JOBS else measure.newest_load(progress)


def _at(done: Completion) -> datetime:
    return done.at


def _orders_visible(progress: Progress) -> int:
    """At least so many different orders are readable: the ways they come overlap, so no sum."""
    counts = [measure.at_least(job, "orders") for job in progress.jobs.values()]
    counts += [
        check.our_count
        for check in (progress.audit.checks if progress.audit else ())
        if check.table == "orders"
    ]
    return max(counts, default=0)


def _audit(progress: Progress) -> AuditView | None:
    audit = progress.audit
    return AuditView(audit.equal, audit.at, audit.checks, audit.job_id) if audit else None


def _last_error(progress: Progress) -> Trouble | None:
    if measure.is_removed(progress):
        reason = progress.removed_reason
        return Trouble(reason, REMOVED.get(reason, "The store was removed."), "Connect the store again.")
    letters = progress.letters.trouble if progress.letters else None
    failures = [
        failure
        for kind in sorted(progress.failures)
        # A difference that an audit found is mostly what was set aside.
        if not (letters and kind == "audit") and (failure := measure.open_failure(progress, kind))
    ]
    if failures:
        return max(failures, key=lambda failure: (failure.final, failure.at)).trouble
    return letters or progress.webhooks_trouble


def _notices(progress: Progress, pause: Pause | None) -> Iterator[Notice]:
    if pause:
        message, action = PAUSES.get(pause.reason, PAUSES["throttled"])
        yield Notice(f"paused_{pause.reason}", message, action)
    for name, kind in RESOURCE_JOBS.items():
        job = progress.jobs.get(kind)
        if job and not job.completed_at and not measure.needs_help(progress, kind):
            yield from _notices_of(name, measure.under_way(job))


def _notices_of(name: Resource, operations: Sequence[Operation]) -> Iterator[Notice]:
    """What holds a resource up: operations that run again, and slots that others have."""
    again = [operation for operation in operations if operation.attempt > 1]
    if again:
        last = max(again, key=lambda operation: (operation.attempt, operation.at, operation.again))
        why = f": {last.again}" if last.again else ""
        yield Notice(
            "runs_again",
            f"Shopify prepares a part of the {name} again, attempt {last.attempt}{why}.",
            "Nothing to do: what was loaded stays, and the rest is asked for in smaller parts.",
            name,
        )
    if operations and all(operation.waits for operation in operations):
        yield Notice(
            "waiting_for_slot",
            "The shop runs as many bulk operations of this app as it may.",
            "Nothing to do: it goes on when one ends. If it lasts, look what else the app runs there.",
            name,
        )


def _seconds(value: float | None) -> int | None:
    return None if value is None else math.ceil(value)
