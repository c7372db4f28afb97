"""What is remembered of one store's sync: the state that events change and the document is drawn from.

Everything here either adds up or is the newest of its kind, so that the order of the events is of no matter.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from shared.events import BULK_JOBS, JobKind, Problem, Resource

RESOURCE_JOBS: dict[Resource, JobKind] = {resource: kind for kind, resource in BULK_JOBS.items()}
PACE_SLICE = 5  # seconds; rows are counted by slices of time, which gives rates without a list of events
PACE_SLICES = 12  # the newest minute
FIRSTS = 8  # jobs of which is kept when their first rows could be read


class Trouble(Struct, frozen=True, rename="camel"):
    """A problem as people read it: what it is and what helps."""

    code: str
    message: str
    action: str

    @classmethod
    def of(cls, problem: Problem) -> Trouble:
        """The event's problem, without pydantic."""
        return cls(problem.code, problem.message, problem.action)


class Operation(Struct, frozen=True, omit_defaults=True):
    """The newest attempt of one bulk operation, as of `at`; counts are roots (orders, not their lines).

    `size` and `done` are bytes of its file; `again` is why it runs again; `split`: others took its place.
    """

    started_at: datetime
    at: datetime
    waits: bool = False
    prepared: int = 0
    ready: int | None = None
    attempt: int = 1
    size: int = 0
    done: int = 0
    again: str = ""
    split: bool = False


class Job(Struct, frozen=True, omit_defaults=True):
    """The newest job of a kind; counts are rows by table."""

    id: int
    queued_at: datetime | None = None
    first_promoted_at: datetime | None = None
    completed_at: datetime | None = None
    staged: dict[str, int] = field(default_factory=dict)
    promoted: dict[str, int] = field(default_factory=dict)
    pace: dict[int, int] = field(default_factory=dict)
    operations: dict[int, Operation] = field(default_factory=dict)


class Pause(Struct, frozen=True):
    """What was said last of a pause that Shopify imposes."""

    at: datetime
    until: datetime
    reason: str


class Count(Struct, frozen=True):
    """What Shopify counted when a job was queued."""

    job_id: int
    rows: int


class Completion(Struct, frozen=True):
    """The newest job of a kind that came to its end."""

    job_id: int
    at: datetime


class Failure(Struct, frozen=True):
    """The newest failure among the jobs of a kind."""

    job_id: int
    at: datetime
    trouble: Trouble
    final: bool


class Worry(Struct, frozen=True, omit_defaults=True):
    """What the newest judgement of the store's dead letters says; without trouble it is over."""

    at: datetime
    trouble: Trouble | None = None
    halts: bool = False


class Check(Struct, frozen=True, rename="camel"):
    """One table of an audit: Shopify's figures beside ours (sums are decimal strings)."""

    table: str
    shopify_count: int
    our_count: int
    shopify_sum: str | None
    our_sum: str | None
    missing: int
    different: int
    extra: int
    equal: bool


class Audit(Struct, frozen=True):
    """The newest audit that came to its end."""

    job_id: int
    at: datetime
    checks: tuple[Check, ...]

    @property
    def equal(self) -> bool:
        """Whether it proves that all is here; an audit of nothing proves nothing."""
        return bool(self.checks) and all(check.equal for check in self.checks)


class Progress(Struct, frozen=True, omit_defaults=True):
    """All that is remembered of a store's sync."""

    shop: str = ""
    connected_at: datetime | None = None
    latest_at: datetime | None = None
    first_data: dict[int, datetime] = field(default_factory=dict)  # by job, the oldest jobs
    webhooks_at: datetime | None = None
    webhooks_trouble: Trouble | None = None
    jobs: dict[JobKind, Job] = field(default_factory=dict)
    expected: dict[Resource, Count] = field(default_factory=dict)
    completed: dict[JobKind, Completion] = field(default_factory=dict)
    failures: dict[JobKind, Failure] = field(default_factory=dict)
    audit: Audit | None = None
    pause: Pause | None = None
    letters: Worry | None = None
    percent: float = 0.0  # the highest so far: the only thing that depends on the order
    missing_scopes: tuple[str, ...] = ()
    removed_at: datetime | None = None
    removed_reason: str = ""
    last_old_job: int = 0  # jobs up to this one belong to a connection that was removed
