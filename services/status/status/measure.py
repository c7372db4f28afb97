"""Progress -> how far, how fast, how long: pure arithmetic on the state.

percent = 1 connected + 4 recent orders + 80 history + 5 catch-up + 10 audit;  100 only when live
history = its resources by their size;  a resource = 20 % prepared at Shopify, 20 % downloaded, 60 % promoted

A bulk file counts as downloaded by its bytes. A piece of it is downloaded and staged in one transaction, so
there is no time between the two that could be shown.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from shared.events import BULK_JOBS, JobKind, Resource
from status.state import PACE_SLICE, RESOURCE_JOBS, Check, Failure, Job, Operation, Pause, Progress

Status = Literal["connecting", "recent", "backfilling", "catching_up", "auditing", "live", "attention"]
Phase = Literal["waiting", "preparing", "downloading", "promoting", "done"]

CONNECTED, RECENT, HISTORY, CATCH_UP, AUDIT = 1.0, 4.0, 80.0, 5.0, 10.0  # percent each
PREPARED, DOWNLOADED, PROMOTED = 0.2, 0.2, 0.6  # parts of a resource
BEGUN = 0.3  # how much of a step without a count is credited once it is under way
BEFORE_LIVE = 99.0  # percent; the rest is the proof
SMALLEST_SHARE = 0.05  # a resource's least share of the history: a small one must show, too
ALL_BUT = 0.99  # of the count is as good as all: orders are made and deleted while a job runs
PACE_WINDOW = 30  # seconds that a rate looks back
CLOSING = 10  # seconds that catch-up and audit usually add


def status(progress: Progress) -> Status:
    """Where the sync stands, as one word."""
    if is_removed(progress) or any(needs_help(progress, kind) for kind in progress.failures):
        return "attention"
    worry = progress.letters if progress.letters and progress.letters.trouble else None
    if worry and worry.halts:
        return "attention"
    if progress.audit and progress.audit.equal and progress.audit.job_id > newest_load(progress):
        return "attention" if worry else "live"
    return _step(progress)


def _step(progress: Progress) -> Status:
    jobs, load = progress.jobs, newest_load(progress)
    catch_up, audit = newest_job(progress, "catch_up"), newest_job(progress, "audit")
    is_loading = any(kind in jobs and not jobs[kind].completed_at for kind in BULK_JOBS)
    if load and (is_loading or load > max(catch_up, audit)):
        return "backfilling"
    if audit > catch_up:
        return "auditing"
    if catch_up:
        return "catching_up"
    return "recent" if "recent_sync" in jobs else "connecting"


def newest_load(progress: Progress) -> int:
    """The id of the latest job that loads history; what was caught up or proven before it is so no more."""
    return max(newest_job(progress, kind) for kind in BULK_JOBS)


def newest_job(progress: Progress, kind: JobKind) -> int:
    """The id of the newest job of a kind, 0 if there is none."""
    return progress.jobs[kind].id if kind in progress.jobs else 0


def is_removed(progress: Progress) -> bool:
    """Whether the store is disconnected and not connected again."""
    return progress.removed_at is not None and progress.connected_at is None


def open_failure(progress: Progress, kind: JobKind) -> Failure | None:
    """The failure of this kind of job that no later success has settled."""
    failure, success = progress.failures.get(kind), progress.completed.get(kind)
    return failure if failure and not (success and success.at >= failure.at) else None


def needs_help(progress: Progress, kind: JobKind) -> bool:
    """Whether this kind of job stays failed until somebody acts; a newer job means that somebody did."""
    failure = open_failure(progress, kind)
    return bool(failure and failure.final and newest_job(progress, kind) <= failure.job_id)


def percent(progress: Progress) -> float:
    """How far the sync is: 0 to 99, and 100 once it is live."""
    if status(progress) == "live":
        return 100.0
    parts = (
        CONNECTED * (progress.connected_at is not None),
        RECENT * _uncounted(progress, "recent_sync"),
        HISTORY * _history(progress),
        CATCH_UP * _uncounted(progress, "catch_up"),
        AUDIT * BEGUN * ("audit" in progress.jobs),
    )
    return min(math.floor(sum(parts) * 10) / 10, BEFORE_LIVE)


def _uncounted(progress: Progress, kind: JobKind) -> float:
    if kind in progress.completed:
        return 1.0
    job = progress.jobs.get(kind)
    return 0.0 if job is None else 2 * BEGUN if job.promoted else BEGUN


def _history(progress: Progress) -> float:
    shares = {
        name: expected(progress, name) or 0 for name, kind in RESOURCE_JOBS.items() if kind in progress.jobs
    }
    least = max(1.0, SMALLEST_SHARE * sum(shares.values()))
    weights = {name: max(float(size), least) for name, size in shares.items()}
    done = sum(weight * fraction(progress, name) for name, weight in weights.items())
    return done / sum(weights.values()) if weights else 0.0


def fraction(progress: Progress, resource: Resource) -> float:
    """How much of a resource's history is here: 0 to 1."""
    job, size = progress.jobs.get(RESOURCE_JOBS[resource]), expected(progress, resource)
    if job and job.completed_at:
        return 1.0
    if job is None or not size:
        return 0.0
    here = (prepared(job, resource), downloaded(job, resource), arrived(job, resource))
    counts = zip(here, (PREPARED, DOWNLOADED, PROMOTED), strict=True)
    return min(sum(min(count / size, 1.0) * part for count, part in counts), 0.99)


def expected(progress: Progress, resource: Resource) -> int | None:
    """How many there are: by Shopify's last count, or by its file when that holds more."""
    job, counted = progress.jobs.get(RESOURCE_JOBS[resource]), progress.expected.get(resource)
    sizes = [operation.ready for operation in job.operations.values() if operation.ready] if job else []
    sizes += [counted.rows] if counted else []
    return max(sizes, default=None)


def staged(job: Job, resource: Resource) -> int:
    """Roots that were read and staged; a batch counts as staged at the latest when it is promoted."""
    return max(job.staged.get(resource, 0), promoted(job, resource))


def promoted(job: Job, resource: Resource) -> int:
    """Roots that dashboards can read."""
    return job.promoted.get(resource, 0)


def prepared(job: Job, resource: Resource) -> int:
    """Roots that Shopify has put into its files; what was downloaded must have been in one."""
    return max(sum(operation.prepared for operation in job.operations.values()), downloaded(job, resource))


def downloaded(job: Job, resource: Resource) -> int:
    """Roots by the bytes of the files that were read; by rows where there is no file."""
    files = [operation for operation in job.operations.values() if operation.size]
    if not job.operations:
        return staged(job, resource)
    return sum(
        (operation.ready or 0) * min(operation.done, operation.size) // operation.size for operation in files
    )


def arrived(job: Job, resource: Resource) -> int:
    """Promoted roots that count for this run: a file that is read again brings the same rows again."""
    return min(promoted(job, resource), downloaded(job, resource))


def at_least(job: Job, table: str) -> int:
    """Different rows of a table that a job has certainly brought: each attempt may repeat the one before."""
    attempts = max((operation.attempt for operation in job.operations.values()), default=1)
    return -(-job.promoted.get(table, 0) // attempts)


def under_way(job: Job) -> list[Operation]:
    """The operations whose file is not there yet, or not read; those that were split are no more."""
    return [
        operation
        for operation in job.operations.values()
        if not operation.split and (operation.ready is None or operation.done < operation.size)
    ]


def pause(progress: Progress, now: datetime) -> Pause | None:
    """The pause that Shopify imposes at this moment."""
    return progress.pause if progress.pause and progress.pause.until > now else None


def first_data_at(progress: Progress) -> datetime | None:
    """When the first rows could be read."""
    promoted_at = [job.first_promoted_at for job in progress.jobs.values() if job.first_promoted_at]
    return min([*progress.first_data.values(), *promoted_at], default=None)


def proven(progress: Progress, resource: Resource, table: str | None = None) -> Check | None:
    """The audit's line for a resource, or for a table of its, if it is newer than the resource's own load."""
    audit, job = progress.audit, progress.jobs.get(RESOURCE_JOBS[resource])
    if audit is None or (job and job.id > audit.job_id):
        return None
    return next((check for check in audit.checks if check.table == (table or resource)), None)


def phase(progress: Progress, resource: Resource) -> Phase:
    """What happens to a resource at this moment."""
    job = progress.jobs.get(RESOURCE_JOBS[resource])
    if job is None:
        return "waiting"
    if job.completed_at:
        return "done"
    if downloaded(job, resource) >= (expected(progress, resource) or math.inf) * ALL_BUT:
        return "promoting"
    if downloaded(job, resource) or any(operation.ready is not None for operation in job.operations.values()):
        return "downloading"
    return "preparing" if any(not operation.waits for operation in under_way(job)) else "waiting"


def rate(job: Job | None, now: datetime) -> float | None:
    """Roots promoted a second, over the last half minute; None when nothing moved."""
    second = now.timestamp()
    slices = {
        number: n
        for number, n in (job.pace if job else {}).items()
        if second - number * PACE_SLICE <= PACE_WINDOW
    }
    rows = sum(slices.values())
    if not rows:
        return None
    return rows / max(second - min(slices) * PACE_SLICE, 1.0)


def resource_eta(progress: Progress, resource: Resource, now: datetime) -> float | None:
    """Seconds until a resource's history is here; None while nobody can tell."""
    job, size = progress.jobs.get(RESOURCE_JOBS[resource]), expected(progress, resource)
    if job is None or not size:
        return None
    match phase(progress, resource):
        case "done" | "waiting":
            return None
        case "preparing":
            return _preparing_eta(job, size, now)
        case "downloading" | "promoting":
            pace = rate(job, now)
            return max(size - arrived(job, resource), 0) / pace if pace else None


def _preparing_eta(job: Job, size: int, now: datetime) -> float | None:
    counts = sum(operation.prepared for operation in job.operations.values())
    began = min(operation.started_at for operation in job.operations.values())
    last = max(operation.at for operation in job.operations.values())
    if not counts or last <= began:
        return None
    seconds = (last - began).total_seconds() * max(size - counts, 0) / counts
    return max(seconds - (now - last).total_seconds(), 1.0)


def eta(progress: Progress, now: datetime) -> float | None:
    """Seconds until live; None while a part of it cannot be told."""
    if status(progress) != "backfilling":
        return None
    waiting = [
        name
        for name, kind in RESOURCE_JOBS.items()
        if kind in progress.jobs and phase(progress, name) != "done"
    ]
    etas = [resource_eta(progress, name, now) for name in waiting]
    known = [seconds for seconds in etas if seconds is not None]
    return max(known) + CLOSING if known and len(known) == len(etas) else None
