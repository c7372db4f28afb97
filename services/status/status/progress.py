"""(Progress, Event) -> Progress: pure, and the same end whatever the order of the events.

The inbox hands over each event once, consumer groups in any order. So counters add up, and all else is the
newest of its kind: by job id, by attempt, or by `occurred_at`. A removal draws a line: what happened before
it is gone, and what belongs before it and comes late is ignored.

Only `percent` remembers the way: it is the highest that was shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from msgspec.structs import astuple, replace

from shared.events import (
    BULK_JOBS,
    BulkProgressed,
    BulkReady,
    BulkStarted,
    ConnectionCreated,
    ConnectionRemoved,
    Event,
    JobCompleted,
    JobFailed,
    JobKind,
    JobQueued,
    Promoted,
    ShopWaits,
    StagedBatch,
    TableCheck,
    TroubleChanged,
    WebhooksRegistered,
)
from status.measure import percent
from status.state import (
    FIRSTS,
    PACE_SLICE,
    PACE_SLICES,
    Audit,
    Check,
    Completion,
    Count,
    Failure,
    Job,
    Operation,
    Pause,
    Progress,
    Trouble,
    Worry,
)

V = TypeVar("V", Completion, Count, Failure)
K = TypeVar("K")


def reduce(progress: Progress, event: Event) -> Progress:
    """What is known after the event."""
    if isinstance(event, ConnectionRemoved):
        after = _end(progress, event)
    elif _belongs_to_the_past(progress, event):
        after = progress
    else:
        after = _apply(progress, event)
    after = replace(after, latest_at=_later(progress.latest_at, event.occurred_at))
    return replace(after, percent=max(after.percent, percent(after)))


def _apply(progress: Progress, event: Event) -> Progress:  # noqa: C901, PLR0911, PLR0912 - a table
    match event:
        case ConnectionCreated():
            at = _later(progress.connected_at, event.occurred_at)
            return replace(progress, shop=event.shop, connected_at=at)
        case WebhooksRegistered():
            return _webhooks_registered(progress, event)
        case JobQueued():
            return _job_queued(progress, event)
        case BulkStarted():
            return _operation_moved(progress, event, event.operation_id)
        case BulkProgressed():
            return _operation_moved(
                progress,
                event,
                event.operation_id,
                prepared=event.root_object_count,
                waits=event.waiting_for_slot,
                again=event.runs_again,
                split=event.split,
            )
        case BulkReady():
            roots, size = event.root_object_count, event.file_size
            return _operation_moved(
                progress, event, event.operation_id, prepared=roots, ready=roots, size=size
            )
        case StagedBatch():
            return _batch_staged(progress, event)
        case Promoted():
            return _batch_promoted(progress, event)
        case JobCompleted():
            return _job_completed(progress, event)
        case JobFailed():
            failure = Failure(event.job_id, event.occurred_at, Trouble.of(event.problem), event.final)
            return replace(progress, failures=_newest(progress.failures, event.kind, failure))
        case ShopWaits():
            pause = Pause(event.occurred_at, event.until, event.reason)
            return replace(progress, pause=max(progress.pause or pause, pause, key=_age))
        case TroubleChanged():
            return _trouble_changed(progress, event)
        case _:
            raise TypeError(f"{type(event).__name__} says nothing about progress")


# --- the line that a removal draws


def _end(progress: Progress, event: ConnectionRemoved) -> Progress:
    if progress.removed_at and event.occurred_at <= progress.removed_at:
        return progress
    line = event.occurred_at
    reconnected = progress.connected_at is not None and progress.connected_at > line
    registered = progress.webhooks_at is not None and progress.webhooks_at > line
    after = replace(
        progress,
        connected_at=progress.connected_at if reconnected else None,
        webhooks_at=progress.webhooks_at if registered else None,
        webhooks_trouble=progress.webhooks_trouble if registered else None,
        pause=progress.pause if progress.pause and progress.pause.at > line else None,
        letters=progress.letters if progress.letters and progress.letters.at > line else None,
        percent=0.0,
        removed_at=line,
        removed_reason=event.reason,
        last_old_job=max(progress.last_old_job, event.last_job_id),
    )
    return _forget_old_jobs(after)


def _belongs_to_the_past(progress: Progress, event: Event) -> bool:
    if job_id := getattr(event, "job_id", None):
        return bool(job_id <= progress.last_old_job)
    return progress.removed_at is not None and event.occurred_at <= progress.removed_at


def _forget_old_jobs(progress: Progress) -> Progress:
    last = progress.last_old_job
    return replace(
        progress,
        jobs={kind: job for kind, job in progress.jobs.items() if job.id > last},
        first_data={job_id: at for job_id, at in progress.first_data.items() if job_id > last},
        expected={key: count for key, count in progress.expected.items() if count.job_id > last},
        completed={key: end for key, end in progress.completed.items() if end.job_id > last},
        failures={key: failure for key, failure in progress.failures.items() if failure.job_id > last},
        audit=progress.audit if progress.audit and progress.audit.job_id > last else None,
    )


# --- what each event changes


def _webhooks_registered(progress: Progress, event: WebhooksRegistered) -> Progress:
    if progress.webhooks_at and progress.webhooks_at > event.occurred_at:
        return progress
    trouble = Trouble.of(event.problem) if event.problem else None
    return replace(progress, webhooks_at=event.occurred_at, webhooks_trouble=trouble)


def _trouble_changed(progress: Progress, event: TroubleChanged) -> Progress:
    trouble = Trouble.of(event.problem) if event.problem else None
    worry = Worry(event.occurred_at, trouble, event.halts)
    return replace(progress, letters=max(progress.letters or worry, worry, key=lambda w: (w.at, repr(w))))


def _job_queued(progress: Progress, event: JobQueued) -> Progress:
    expected = progress.expected
    for resource in BULK_JOBS.values():
        if resource in event.expected and event.kind in BULK_JOBS:
            expected = _newest(expected, resource, Count(event.job_id, event.expected[resource]))
    job = _job(progress, event.kind, event.job_id)
    if job is None:
        return replace(progress, expected=expected)
    queued_at = _earlier(job.queued_at, event.occurred_at)
    return _keep(replace(progress, expected=expected), event.kind, replace(job, queued_at=queued_at))


def _operation_moved(
    progress: Progress,
    event: BulkStarted | BulkProgressed | BulkReady | StagedBatch,
    operation_id: int,
    *,
    waits: bool = False,
    again: str = "",
    split: bool = False,
    ready: int | None = None,
    **counts: int,
) -> Progress:
    """The operation's newest attempt with what the event says; news of an older attempt change nothing."""
    job = _job(progress, event.kind, event.job_id) if event.kind and event.job_id else None
    before = job.operations.get(operation_id) if job else None
    if job is None or event.kind is None or (before and before.attempt > event.attempt):
        return progress
    at = event.occurred_at
    if before is None or before.attempt < event.attempt:
        before = Operation(started_at=at, at=at, waits=waits, attempt=event.attempt)
    operation = replace(
        before,
        started_at=min(before.started_at, at),
        at=max(before.at, at),
        waits=waits if at > before.at else before.waits and (waits or at < before.at),
        ready=before.ready if ready is None else ready,
        again=max(before.again, again),
        split=before.split or split,
        **{name: max(getattr(before, name), count) for name, count in counts.items()},
    )
    return _keep(progress, event.kind, replace(job, operations={**job.operations, operation_id: operation}))


def _batch_staged(progress: Progress, event: StagedBatch) -> Progress:
    if event.job_id is None or event.kind is None:  # a webhook's: news, but no step of a sync
        return progress
    job = _job(progress, event.kind, event.job_id)
    if job is None:
        return progress
    after = _keep(progress, event.kind, replace(job, staged=_sum(job.staged, event.rows)))
    if event.operation_id is None or not event.bytes_done:
        return after
    return _operation_moved(after, event, event.operation_id, done=event.bytes_done)


def _batch_promoted(progress: Progress, event: Promoted) -> Progress:
    if event.job_id is None or event.kind is None:
        return progress
    progress = replace(progress, first_data=_first_data(progress.first_data, event))
    job = _job(progress, event.kind, event.job_id)
    if job is None:
        return progress
    root = BULK_JOBS.get(event.kind, "orders")
    changed = replace(
        job,
        promoted=_sum(job.promoted, event.rows),
        first_promoted_at=_earlier(job.first_promoted_at, event.occurred_at),
        pace=_paced(job.pace, event.occurred_at, event.rows.get(root, 0)),
    )
    return _keep(progress, event.kind, changed)


def _first_data(known: Mapping[int, datetime], event: Promoted) -> dict[int, datetime]:
    job_id = event.job_id or 0
    all_known = {**known, job_id: _earlier(known.get(job_id), event.occurred_at)}
    return {job: all_known[job] for job in sorted(all_known)[:FIRSTS]}


def _job_completed(progress: Progress, event: JobCompleted) -> Progress:
    done = _newest(progress.completed, event.kind, Completion(event.job_id, event.occurred_at))
    after = replace(progress, completed=done)
    if event.audit is not None:
        audit = Audit(event.job_id, event.occurred_at, tuple(_check(table) for table in event.audit))
        after = replace(after, audit=max(after.audit or audit, audit, key=_age))
    job = _job(after, event.kind, event.job_id)
    if job is None:
        return after
    return _keep(after, event.kind, replace(job, completed_at=_later(job.completed_at, event.occurred_at)))


# --- small parts


def _job(progress: Progress, kind: JobKind, job_id: int) -> Job | None:
    """The job as known so far; None if a newer one of its kind has taken its place."""
    known = progress.jobs.get(kind)
    if known is None or known.id < job_id:
        return Job(job_id)
    return known if known.id == job_id else None


def _keep(progress: Progress, kind: JobKind, job: Job) -> Progress:
    return replace(progress, jobs={**progress.jobs, kind: job})


def _newest(known: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    """The mapping with the value, unless a newer job's is there."""
    there = known.get(key)
    return {**known, key: value} if there is None or _age(there) <= _age(value) else dict(known)


def _age(value: Completion | Count | Failure | Audit | Pause) -> tuple[object, ...]:
    """What is newer has the greater age; the rest of the tuple only decides between twins."""
    match value:
        case Count():
            return value.job_id, value.rows
        case Pause():
            return value.at, value.until, value.reason
        case Failure():
            return value.job_id, value.at, value.final, astuple(value.trouble)
        case Completion() | Audit():
            return value.job_id, value.at


def _sum(rows: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    total = Counter(rows)
    total.update(more)
    return dict(total)


def _paced(pace: Mapping[int, int], at: datetime, rows: int) -> dict[int, int]:
    """The pace with these rows in their slice of time; only the newest slices are kept."""
    counts = _sum_slices(pace, int(at.timestamp()) // PACE_SLICE, rows)
    newest = max(counts)
    return {number: count for number, count in counts.items() if number > newest - PACE_SLICES}


def _sum_slices(pace: Mapping[int, int], number: int, rows: int) -> dict[int, int]:
    return {**pace, number: pace.get(number, 0) + rows}


def _check(table: TableCheck) -> Check:
    return Check(**table.model_dump())


def _later(known: datetime | None, at: datetime) -> datetime:
    return at if known is None or at > known else known


def _earlier(known: datetime | None, at: datetime) -> datetime:
    return at if known is None or at < known else known
