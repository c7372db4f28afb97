"""The reducer: what is known after a history of events, whatever their order."""

from __future__ import annotations

import ast
import json
from datetime import timedelta
from functools import reduce as fold
from itertools import accumulate, pairwise, takewhile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from status_history import SIZES, START, Story, checks, first_sync

import status
from shared.events import BulkFinished, Event, JobFailed, JobQueued, Problem
from status.document import Document, draw
from status.measure import percent
from status.measure import status as status_of
from status.on_event import with_percent
from status.progress import reduce
from status.state import Progress

HISTORY = first_sync()
LATER = START + timedelta(hours=1)


def after(events: list[Event]) -> Progress:
    return fold(reduce, events, Progress())


def document(progress: Progress, now=LATER) -> Document:
    return draw(progress, brand_id="acme", version=1, now=now)


def shown(events: list[Event], now=LATER) -> Document:
    return document(after(events), now)


def text(progress: Progress) -> str:
    """State and document as JSON, keys in one order, as Postgres keeps them."""
    both = msgspec.to_builtins((progress, document(progress)), str_keys=True)
    return json.dumps(both, sort_keys=True)


def resource(drawn: Document, name: str):
    return next(view for view in drawn.resources if view.name == name)


def failed(story: Story, job: JobQueued, *, final: bool = True) -> JobFailed:
    return JobFailed(
        **story.who,
        occurred_at=story.clock(),
        job_id=job.job_id,
        kind=job.kind,
        final=final,
        problem=Problem(code="access_denied", message="Shopify refuses.", action="Grant read_orders."),
    )


def test_a_first_sync_ends_live():
    """The whole history ends at 100 percent, live, every milestone reached, counts as audited."""
    drawn = shown(HISTORY)
    assert (drawn.sync_status, drawn.percent, drawn.eta_seconds) == ("live", 100.0, None)
    assert {milestone.state for milestone in drawn.milestones} == {"done"}
    assert {view.name: (view.phase, view.expected, view.promoted) for view in drawn.resources} == {
        name: ("done", size, size) for name, size in SIZES.items()
    }
    assert resource(drawn, "orders").children["lineItems"] == 24_000
    assert drawn.audit.equal
    assert drawn.last_error is None


@given(order=st.permutations(HISTORY))
@settings(max_examples=150, deadline=None)
def test_any_order_ends_in_the_same_document(order):
    """Streams give no order: whatever it was, state and document are the same in the end."""
    assert after(order) == after(HISTORY)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_comes_twice_or_was_lost_and_sent_again_ends_in_the_same_document(data):
    """Duplicated, reordered, dropped and replayed: the inbox lets each through once, and that is enough."""
    lost = data.draw(st.sets(st.sampled_from(range(len(HISTORY)))))
    first = [event for number, event in enumerate(HISTORY) if number not in lost]
    twice = data.draw(st.lists(st.sampled_from(HISTORY)))
    deliveries = [*data.draw(st.permutations(first + twice)), *data.draw(st.permutations(HISTORY))]
    counted = list({event.event_id: event for event in reversed(deliveries)}.values())
    assert text(after(counted)) == text(after(HISTORY))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_baseline_and_the_events_since_are_the_live_model_byte_for_byte(data):
    """Whichever events were folded and deleted, in whatever order, at whatever point of the sync."""
    live = HISTORY[: data.draw(st.integers(1, len(HISTORY)))]
    folded = data.draw(st.sets(st.sampled_from(range(len(live)))))
    baseline = after([live[number] for number in data.draw(st.permutations(sorted(folded)))])
    rest = [event for number, event in enumerate(live) if number not in folded]
    rebuilt = fold(reduce, data.draw(st.permutations(rest)), replace(baseline, percent=0.0))
    assert text(with_percent(rebuilt, after(live).percent)) == text(after(live))


@given(order=st.permutations(HISTORY), cut=st.integers(0, len(HISTORY)))
@settings(max_examples=100, deadline=None)
def test_half_a_history_is_the_same_in_any_order_but_for_the_highest_percent(order, cut):
    """Which events are known decides; the order may only have shown a higher percent before."""
    known = set(map(id, order[:cut]))
    sorted_part = [event for event in HISTORY if id(event) in known]
    assert replace(after(order[:cut]), percent=0.0) == replace(after(sorted_part), percent=0.0)


@given(order=st.permutations(HISTORY))
@settings(max_examples=150, deadline=None)
def test_percent_never_falls_and_100_means_live(order):
    """In any order percent only rises, and 100 is shown only beside a proof."""
    steps = list(accumulate(order, reduce, initial=Progress()))
    percents = [step.percent for step in steps]
    assert percents == sorted(percents)
    until_live = list(takewhile(lambda step: status_of(step) != "live", steps))
    assert max(step.percent for step in until_live) <= 99


def test_a_live_store_that_loads_anew_is_live_again_after_the_next_audit():
    """A load that is newer than the proof: the word and the milestones say so, percent stays where it was."""
    story = Story()
    events = first_sync(story)
    load = story.queued("bulk_customers", customers=50_000)
    parts = list(story.bulk(load, "customers", 50_000))
    catch_up, audit = story.queued("catch_up"), story.queued("audit")
    steps = [
        ([load, *parts[:6]], "backfilling", {"history_customers": "active", "audit": "waiting"}),
        ([*parts[6:]], "backfilling", {"history_customers": "done", "catch_up": "waiting"}),
        ([catch_up], "catching_up", {"catch_up": "active", "live": "waiting"}),
        ([story.completed(catch_up), audit], "auditing", {"catch_up": "done", "audit": "active"}),
        ([story.completed(audit, checks())], "live", {"audit": "done", "live": "done"}),
    ]
    for more, word, milestones in steps:
        events += more
        drawn = shown(events, story.clock.now)
        assert (drawn.sync_status, drawn.percent) == (word, 100)
        assert milestones.items() <= {m.key: m.state for m in drawn.milestones}.items()


def test_a_catch_up_that_a_person_asks_for_during_a_load_is_no_later_stage():
    """History is loading as long as a job of it has not ended."""
    story = Story()
    load = story.queued("bulk_orders", orders=500)
    events = [story.connected(), load, story.queued("catch_up")]
    assert shown(events).sync_status == "backfilling"
    assert shown([*events, story.completed(load)]).sync_status == "catching_up"


def test_percent_in_the_right_order_stays_below_100_until_the_equal_audit():
    """The audit that differs moves nothing; only the one that is equal says 100."""
    steps = list(accumulate(HISTORY, reduce, initial=Progress()))[1:]
    firsts = [event for event, step in zip(HISTORY, steps, strict=True) if step.percent == 100]
    assert getattr(firsts[0], "audit", None) == checks()
    assert max(step.percent for step in steps if status_of(step) != "live") <= 99


def test_percent_moves_in_every_stage():
    """Preparing, staging and promoting each move the bar."""
    steps = list(accumulate(HISTORY, reduce, initial=Progress()))[1:]
    risen = {
        type(event).__name__
        for event, before, step in zip(HISTORY[1:], steps, steps[1:], strict=False)
        if step.percent > before.percent
    }
    assert {"JobQueued", "BulkProgressed", "StagedBatch", "Promoted", "JobCompleted"} <= risen


def test_webhooks_after_live_change_the_time_but_not_the_percent():
    """A live store's changes keep the document fresh and at 100."""
    story = Story()
    live = after(first_sync(story))
    later = fold(reduce, story.batch(None, {"orders": 3}, "webhook"), live)
    assert (document(later).percent, document(later).sync_status) == (100.0, "live")
    assert document(later).as_of > document(live).as_of
    assert document(later).resources == document(live).resources


def test_the_words_for_where_a_sync_stands_come_in_order():
    """connecting, recent, backfilling, catching up, auditing, (again,) live."""
    words = [status_of(step) for step in accumulate(HISTORY, reduce, initial=Progress())]
    changes = [word for word, before in zip(words[1:], words, strict=False) if word != before]
    assert words[1] == "connecting"
    assert changes == [
        "recent",
        "backfilling",
        "catching_up",
        "auditing",
        "catching_up",
        "auditing",
        "live",
    ]


def test_phases_of_a_resource_come_in_order():
    """waiting, preparing, downloading (promoting as batches land), done."""
    story = Story()
    job = story.queued("bulk_orders", orders=600)
    steps = accumulate([job, *story.bulk(job, "orders", 600)], reduce, initial=after([story.connected()]))
    phases = [resource(document(step), "orders").phase for step in steps]
    assert list(dict.fromkeys(phases)) == ["waiting", "preparing", "downloading", "promoting", "done"]


def test_a_final_failure_needs_attention_until_the_job_succeeds():
    """The problem and its remedy are shown; a success of the same kind clears them."""
    story = Story()
    job = story.queued("bulk_orders", orders=10)
    broken = after([story.connected(), job, failed(story, job)])
    assert document(broken).sync_status == "attention"
    assert document(broken).last_error.action == "Grant read_orders."
    again = story.queued("bulk_orders", orders=10)
    running = reduce(broken, again)
    assert document(running).sync_status == "backfilling"
    assert document(running).last_error is not None
    mended = reduce(running, story.completed(again))
    assert document(mended).last_error is None


def test_a_failure_that_will_be_tried_again_is_shown_without_alarm():
    """Not final: the sync goes on, the problem can be read."""
    story = Story()
    job = story.queued("bulk_orders", orders=10)
    drawn = shown([story.connected(), job, failed(story, job, final=False)])
    assert (drawn.sync_status, drawn.last_error.code) == ("backfilling", "access_denied")


def test_a_failure_that_comes_after_the_success_it_precedes_changes_nothing():
    """Late news of an old failure does not undo a success."""
    story = Story()
    job = story.queued("catch_up")
    late, success = failed(story, job), story.completed(job)
    assert shown([job, success, late]).last_error is None


def test_a_removed_store_starts_afresh_when_connected_again():
    """Nothing of the first connection is left in the second."""
    story = Story()
    first = first_sync(story)
    removed = after([*first, story.removed()])
    assert (document(removed).sync_status, document(removed).percent) == ("attention", 0.0)
    assert document(removed).last_error.code == "disconnected"
    again = reduce(removed, story.connected())
    drawn = document(again)
    assert (drawn.sync_status, drawn.percent, drawn.recent.orders_visible) == ("connecting", 1.0, 0)
    assert [milestone.key for milestone in drawn.milestones if milestone.state == "done"] == ["connected"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_two_lives_of_a_connection_do_not_mix_in_any_order(data):
    """Events of the old connection that come late find the line that the removal drew."""
    story = Story()
    first, end = first_sync(story), story.removed()
    second = [story.connected(), story.queued("recent_sync")]
    events = data.draw(st.permutations([*first, end, *second]))
    known, wanted = after(events), after([*first, end, *second])
    assert replace(known, percent=0.0) == replace(wanted, percent=0.0)


def test_a_resource_repeated_by_a_newer_job_is_counted_afresh():
    """The rows of the job that failed are not added to those of the next."""
    story = Story()
    old = story.queued("bulk_orders", orders=100)
    half = list(story.batch(old, {"orders": 50}, "bulk"))
    new = story.queued("bulk_orders")
    more = list(story.batch(new, {"orders": 10}, "bulk"))
    view = resource(shown([old, *half, new, *more]), "orders")
    assert (view.expected, view.promoted) == (100, 10)


def test_rates_and_times_to_go_come_from_the_last_half_minute():
    """100 rows a second and 400 to go are about four seconds; silence means that nobody knows."""
    story = Story()
    job = story.queued("bulk_orders", orders=1400)
    progress = after([story.connected(), job])
    for _ in range(10):
        progress = fold(reduce, story.batch(job, {"orders": 100}, "bulk"), progress)
        story.clock(0.4)
    view = resource(document(progress, story.clock.now), "orders")
    assert 60 <= view.rate_per_second <= 120
    assert 3 <= view.eta_seconds <= 7
    assert document(progress, story.clock.now).eta_seconds > view.eta_seconds
    silent = resource(document(progress, story.clock(120)), "orders")
    assert (silent.rate_per_second, silent.eta_seconds) == (None, None)


def test_a_pause_is_shown_with_its_end_and_vanishes_by_itself():
    """No event ends it: time does."""
    story = Story()
    paused = after([story.connected(), story.queued("recent_sync"), story.waits(4, "points")])
    now = story.clock.now
    drawn = document(paused, now)
    assert (drawn.throttled_until, drawn.notices[0].code) == (now + timedelta(seconds=4), "paused_points")
    later = document(paused, now + timedelta(seconds=4))
    assert (later.throttled_until, later.notices) == (None, ())


def test_waiting_for_a_slot_and_running_again_are_shown_with_what_to_do():
    """Neither is an error: the document says what slows it down while it does."""
    story = Story()
    job = story.queued("bulk_orders", orders=600)
    events = [story.connected(), job, *story.bulk(job, "orders", 600, breaks=True)]
    steps = list(accumulate(events, reduce, initial=Progress()))
    codes = [tuple(notice.code for notice in document(step).notices) for step in steps]
    seen = [code for code, before in zip(codes, [(), *codes], strict=False) if code != before]
    assert seen == [
        ("waiting_for_slot",),
        (),
        ("runs_again",),
        ("runs_again", "waiting_for_slot"),
        ("runs_again",),
        (),
    ]
    notice = next(n for step in steps for n in document(step).notices if n.code == "runs_again")
    assert notice.resource == "orders"
    assert "attempt 2: its file expired" in notice.message
    assert notice.action


def test_a_file_counts_as_downloaded_by_its_bytes_and_begins_anew_with_each_attempt():
    """Rows that come again do not move the bar a second time, nor are they counted as visible twice."""
    story = Story()
    job = story.queued("bulk_orders", orders=600)
    steps = list(
        accumulate(
            [story.connected(), job, *story.bulk(job, "orders", 600, breaks=True)], reduce, initial=Progress()
        )
    )
    downloaded = [resource(document(step), "orders").downloaded for step in steps]
    assert (downloaded[-1], max(downloaded)) == (600, 600)
    falls = [(a, b) for a, b in pairwise(downloaded) if b < a]
    assert falls == [(300, 0)]
    assert [step.percent for step in steps] == sorted(step.percent for step in steps)
    visible = [document(step).recent.orders_visible for step in steps]
    assert max(visible) <= 600


def test_two_halves_take_the_place_of_an_operation_that_was_too_large():
    """The bytes of the whole no longer count; those of the halves do."""
    story = Story()
    job = story.queued("bulk_orders", orders=600)
    whole = list(story.bulk(job, "orders", 600))[:-7]
    split = story.again(job, "orders", 2, split=True)
    halves = [event for _ in range(2) for event in list(story.bulk(job, "orders", 300))[:-1]]
    progress = after([story.connected(), job, *whole, split, *halves])
    assert resource(document(progress), "orders").downloaded == 600
    assert document(progress).notices == ()


def test_an_empty_store_gets_live_without_dividing_by_zero():
    """No orders, customers or products: still 100 after the proof."""
    story = Story()
    sizes = dict.fromkeys(SIZES, 0)
    events: list[Event] = [story.connected()]
    for name in sizes:
        job = story.queued(f"bulk_{name}", **sizes)
        events += [job, *story.bulk(job, name, 0, batches=1)]
    audit = story.queued("audit")
    events += [audit, story.completed(audit, checks(sizes))]
    assert shown(events).percent == 100
    assert all(percent(after(events[:n])) < 100 for n in range(len(events)))


def test_an_audit_of_nothing_proves_nothing():
    """Live needs at least one table compared."""
    story = Story()
    audit = story.queued("audit")
    assert shown([story.connected(), audit, story.completed(audit, ())]).sync_status == "auditing"


def test_state_and_document_survive_the_way_through_json():
    """What Postgres keeps is what was known; the document's names are the contract's."""
    progress = after(HISTORY)
    assert msgspec.json.decode(msgspec.json.encode(progress), type=Progress) == progress
    drawn = json.loads(msgspec.json.encode(document(progress)))
    assert list(drawn) == [
        "brandId",
        "shop",
        "syncStatus",
        "percent",
        "etaSeconds",
        "asOf",
        "milestones",
        "resources",
        "recent",
        "limits",
        "throttledUntil",
        "notices",
        "audit",
        "lastError",
        "version",
    ]
    assert list(drawn["recent"]) == ["ordersVisible", "firstDataAt"]
    assert list(drawn["limits"]) == ["historyLimitedTo60Days", "missingScopes"]
    assert list(drawn["audit"]["tables"][0])[:3] == ["table", "shopifyCount", "ourCount"]


def test_state_stays_small_whatever_the_number_of_batches():
    """Ten thousand batches leave counters, not a list."""
    story = Story()
    job = story.queued("bulk_orders", orders=10_000)
    progress = after([job])
    for _ in range(2_000):
        progress = fold(reduce, story.batch(job, {"orders": 5}, "bulk"), progress)
    assert len(msgspec.json.encode(progress)) < 2_000


def test_an_event_that_is_not_for_status_is_an_error():
    """An unknown case raises instead of being dropped in silence."""
    event = BulkFinished(connection_id=1, brand_id="acme", gid="gid://1", shopify_status="COMPLETED")
    with pytest.raises(TypeError, match="BulkFinished"):
        reduce(Progress(), event)


def test_the_pure_modules_import_no_driver():
    """State, reducer, arithmetic and document can be read and tested without a server."""
    folder = Path(status.__file__).parent
    drivers = {"asyncpg", "redis", "litestar", "uvicorn", "faststream", "shared.db", "asyncio"}
    for name in ("state", "progress", "measure", "document"):
        tree = ast.parse((folder / f"{name}.py").read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        assert not modules & drivers, name
