"""What is switched off, where, and which test must notice.

A mutation replaces one text of one file by another, in a copy of the repository. The text must stand there
exactly `times` times: whoever moves a mechanism moves its mutation along.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARED, RUNNER = "shared/shared", "services/bulk-runner/bulk_runner"
INGRESS, PROMOTER, STATUS = "services/ingress/ingress", "services/promoter/promoter", "services/status/status"
STAGE = f"{SHARED}/migrations/0003_stage.sql"
STREAM_TESTS, OUTBOX_TESTS = "shared/tests/test_stream.py", "shared/tests/test_outbox.py"
LEASE_TESTS, PROMOTION_TESTS = "shared/tests/test_lease.py", "services/promoter/tests/test_promotion.py"
BULK_TESTS, DOWNLOAD_TESTS = "tests/test_bulk_operations.py", "services/bulk-runner/tests/test_download.py"
INGRESS_TESTS, SIGNATURE_TESTS = (
    "services/ingress/tests/test_connections_api.py",
    "services/ingress/tests/test_signatures.py",
)
PROGRESS_TESTS, STATUS_HTTP_TESTS = (
    "services/status/tests/test_status_progress.py",
    "services/status/tests/test_status_http.py",
)


@dataclass(frozen=True)
class Mutation:
    """A mechanism without its decisive line. `test` is a file, or `file::function`."""

    mechanism: str
    without: str
    file: str
    before: str
    after: str
    test: str
    times: int = 1


MUTATIONS = (
    Mutation(
        "inbox",
        "an event that was handled is handled again",
        f"{SHARED}/db.py",
        "yield connection if await settle(connection, event, service) else None",
        "await settle(connection, event, service)\n        yield connection",
        f"{STREAM_TESTS}::test_an_event_is_handled_once_however_often_it_comes",
    ),
    Mutation(
        "outbox",
        "what the work has written down is not sent",
        f"{SHARED}/queries.sql",
        "where published_at is null\n  and event_type",
        "where false\n  and event_type",
        f"{OUTBOX_TESTS}::test_events_are_sent_in_order_and_once",
    ),
    Mutation(
        "relay",
        "a relay takes what another is sending",
        f"{SHARED}/queries.sql",
        "<> all ($2::text[])\norder by id\nlimit $1\nfor update skip locked;",
        "<> all ($2::text[])\norder by id\nlimit $1;",
        f"{OUTBOX_TESTS}::test_relays_share_the_work",
    ),
    Mutation(
        "sweeper",
        "an event that Redis lost is not sent again",
        f"{SHARED}/queries.sql",
        "where settled_at is null\n  and published_at < now() -",
        "where false\n  and published_at < now() -",
        f"{OUTBOX_TESTS}::test_an_emptied_redis_gets_what_is_unhandled_again",
    ),
    Mutation(
        "groups",
        "a group begins with what comes after it",
        f"{SHARED}/stream.py",
        'await client.xgroup_create(name, self.service, id="0", mkstream=True)',
        'await client.xgroup_create(name, self.service, id="$", mkstream=True)',
        f"{STREAM_TESTS}::test_a_message_from_before_the_group_is_handled",
    ),
    Mutation(
        "guard",
        "a subscriber that Redis took down stays down",
        f"{SHARED}/stream.py",
        "                    for subscriber in dead:\n                        await subscriber.start()",
        "                    for subscriber in dead:\n                        del subscriber",
        f"{STREAM_TESTS}::test_an_emptied_redis_heals",
    ),
    Mutation(
        "claiming",
        "what a dead process left is nobody's",
        f"{SHARED}/stream.py",
        "for subscription in (new, left):",
        "for subscription in (new,):",
        f"{STREAM_TESTS}::test_what_a_dead_process_left_is_claimed",
    ),
    Mutation(
        "message lease",
        "a handler that works for long loses its message to another",
        f"{SHARED}/stream.py",
        "await self._claim(idle=0)",
        "pass",
        f"{STREAM_TESTS}::test_a_running_handler_keeps_its_message",
    ),
    Mutation(
        "dead letters",
        "a message that fails is tried for ever",
        f"{SHARED}/stream.py",
        "hopeless = isinstance(error, PermanentError | ValidationError) or deliveries >= MAX_DELIVERIES",
        "hopeless = False",
        f"{STREAM_TESTS}::test_what_cannot_be_mended_is_put_aside_at_once",
    ),
    Mutation(
        "the cap of deliveries",
        "poison is tried for ever",
        f"{SHARED}/stream.py",
        "hopeless = isinstance(error, PermanentError | ValidationError) or deliveries >= MAX_DELIVERIES",
        "hopeless = isinstance(error, PermanentError | ValidationError)",
        f"{STREAM_TESTS}::test_poison_is_put_aside_after_the_last_try",
    ),
    Mutation(
        "outages",
        "an outage of Postgres buries the messages of its time",
        f"{SHARED}/stream.py",
        "await delivery.put_back(deliveries, counted=False, after=after)",
        "await delivery.put_back(deliveries, counted=True, after=after)",
        f"{STREAM_TESTS}::test_an_outage_is_not_the_messages_fault",
    ),
    Mutation(
        "fencing",
        "a worker that woke up after its lease writes",
        f"{SHARED}/lease.py",
        "        if affected(status) != 1:\n            raise LeaseLostError",
        "        if affected(status) != 1 and False:\n            raise LeaseLostError",
        f"{LEASE_TESTS}::test_a_paused_worker_can_do_no_harm",
    ),
    Mutation(
        "epochs",
        "a new holder looks like the old one",
        f"{SHARED}/queries.sql",
        "epoch = l.epoch + 1",
        "epoch = l.epoch",
        f"{LEASE_TESTS}::test_a_paused_worker_can_do_no_harm",
    ),
    Mutation(
        "one worker at a time",
        "a lease is given to everybody who asks",
        f"{SHARED}/queries.sql",
        "where l.expires_at < now()\nreturning epoch;",
        "returning epoch;",
        f"{LEASE_TESTS}::test_one_worker_at_a_time",
    ),
    Mutation(
        "resume at the byte",
        "a server that ignores Range sends the beginning once more",
        f"{RUNNER}/download.py",
        "            return offset  # the server does not know ranges",
        "            return 0",
        f"{DOWNLOAD_TESTS}::test_reading_goes_on_at_an_offset",
    ),
    Mutation(
        "bounded memory",
        "a batch is the whole file",
        f"{RUNNER}/download.py",
        "if len(buffer) >= LARGEST_BATCH:",
        "if len(buffer) >= 2**62:",
        f"{DOWNLOAD_TESTS}::test_batches_are_bounded_and_end_at_lines",
    ),
    Mutation(
        "torn lines",
        "what comes before the cut counts as a line",
        f"{RUNNER}/download.py",
        '    end = len(buffer) if offset + len(buffer) == size else buffer.rfind(b"\\n") + 1',
        "    end = len(buffer)",
        f"{DOWNLOAD_TESTS}::test_an_unfinished_last_line_is_not_given_out",
    ),
    Mutation(
        "checkpoints",
        "a batch is staged and its offset is not noted",
        f"{RUNNER}/on_bulk_ready.py",
        "aside, shops.tokens.vault)\n        await _checkpoint(tx, further)",
        "aside, shops.tokens.vault)",
        "tests/test_route.py::test_a_killed_runner_is_replaced_where_it_stopped",
    ),
    Mutation(
        "only our own operations",
        "whatever runs at the shop is taken for ours",
        f"{RUNNER}/start_bulk.py",
        "if found.query.startswith(operation.marker):",
        "if True:",
        f"{BULK_TESTS}::test_another_apps_operation_is_waited_for_and_left_alone",
    ),
    Mutation(
        "lines set aside alone",
        "a judgement waits for everybody who refers to its connection",
        f"{SHARED}/queries.sql",
        "where id = $1 and removed_at is null\nfor no key update;",
        "where id = $1 and removed_at is null\nfor update;",
        "shared/tests/test_trouble.py::test_files_of_a_store_set_lines_aside_side_by_side",
    ),
    Mutation(
        "times are times",
        "a bulk file may say yesterday",
        f"{SHARED}/texts.py",
        'pattern=r"(?a:\\A[12]',
        'pattern=r"|(?a:\\A[12]',
        "tests/test_fuzz_lines.py::test_a_spoiled_line_is_rows_or_unreadable",
    ),
    Mutation(
        "public hosts only",
        "a bulk file is fetched from wherever the answer says",
        f"{RUNNER}/on_bulk_ready.py",
        "if why := await why_refused(polled.url, shop.url):",
        'if why := "":',
        "tests/test_attacks.py::test_links_of_bulk_files_lead_to_public_hosts_only",
    ),
    Mutation(
        "completeness",
        "a file counts whatever Shopify said that it holds",
        f"{RUNNER}/on_bulk_ready.py",
        "    if whole and 0 <= operation.root_object_count - operation.roots_done <= maybe_roots:",
        "    if True:",
        f"{BULK_TESTS}::test_an_operation_ends_whatever_happens[file lacks lines that were counted]",
    ),
    Mutation(
        "adoption",
        "an operation that Shopify accepted before we fell is started twice",
        f"{RUNNER}/start_bulk.py",
        "if found.query.startswith(operation.marker):",
        "if found.query.startswith(operation.marker) and False:",
        f"{BULK_TESTS}::test_a_run_that_was_never_noted_is_adopted",
    ),
    Mutation(
        "never older over newer",
        "an order that comes late replaces a newer one",
        STAGE,
        "(t.updated_at is null or (t.updated_at, t.sent_at) <= (excluded.updated_at, excluded.sent_at))",
        "true",
        f"{PROMOTION_TESTS}::test_an_older_copy_changes_nothing",
        times=3,
    ),
    Mutation(
        "deleted stays deleted",
        "a copy from before the deletion brings the row back",
        STAGE,
        "and (t.deleted_at is null or t.deleted_at < excluded.updated_at)",
        "",
        f"{PROMOTION_TESTS}::test_a_tombstone_comes_before_its_row_and_only_a_newer_copy_lifts_it",
        times=3,
    ),
    Mutation(
        "tombstones",
        "a deletion of what has not arrived is forgotten",
        STAGE,
        "    if b.rows ? 'deletions' then\n        perform stage.promote_deletions(b);",
        "    if b.rows ? 'nothing' then\n        perform stage.promote_deletions(b);",
        f"{PROMOTION_TESTS}::test_a_tombstone_comes_before_its_row_and_only_a_newer_copy_lifts_it",
    ),
    Mutation(
        "children as a set",
        "a line that an order no longer has stays",
        STAGE,
        "    if b.operation_id is null then\n        update shopify.order_line_items t",
        "    if false then\n        update shopify.order_line_items t",
        f"{PROMOTION_TESTS}::test_children_are_replaced_as_a_set",
    ),
    Mutation(
        "the last word on a tag",
        "an addition that comes late undoes a later removal",
        STAGE,
        "    where said_at >= coalesce((known -> tag ->> 'at')::timestamptz, '-infinity');",
        "    where true;",
        "services/promoter/tests/test_ordering.py::test_tags_end_as_their_last_changes_left_them",
    ),
    Mutation(
        "one bad row does not sink its batch",
        "a batch of which Postgres refuses a row fails whole",
        f"{PROMOTER}/on_staged_batch.py",
        "        is_done = await _take_turn(event, pool, vault)",
        "        raise",
        "services/promoter/tests/test_refused_rows.py::test_a_refused_order_does_not_sink_its_batch",
    ),
    Mutation(
        "one bad node does not sink its page",
        "a node that cannot be read fails its job",
        f"{RUNNER}/resources/nodes.py",
        "    except (*UNREADABLE, UnexpectedAnswerError) as error:",
        "    except ZeroDivisionError as error:",
        "tests/test_set_aside.py::test_bad_nodes_of_pages_do_not_sink_their_page",
    ),
    Mutation(
        "never equal without being read",
        "what an audit cannot read is left out of the comparison",
        f"{RUNNER}/audit.py",
        "            await put([unproven(resource, node.text) for node in aside])\n",
        "",
        "tests/test_set_aside.py::test_what_an_audit_cannot_read_is_not_equal",
    ),
    Mutation(
        "never equal without being read, of a file",
        "a line that an audit cannot read is left out of the comparison",
        f"{RUNNER}/on_bulk_ready.py",
        "                await put([unproven(operation.resource, line) for line in unread])",
        "                pass",
        "tests/test_set_aside.py::test_what_an_audit_cannot_read_of_a_file_is_not_equal",
    ),
    Mutation(
        "one store never touches another",
        "the end of one store deletes the rows of all",
        STAGE,
        "delete from shopify.orders where connection_id = b.connection_id;",
        "delete from shopify.orders;",
        f"{PROMOTION_TESTS}::test_a_shop_redaction_deletes_one_store_only",
    ),
    Mutation(
        "signatures",
        "whoever sends a webhook is believed",
        f"{INGRESS}/webhooks.py",
        'if not is_webhook_signed(body, headers.get("x-shopify-hmac-sha256", ""), self.secrets):',
        'if not is_webhook_signed(body, headers.get("x-shopify-hmac-sha256", ""), self.secrets) and False:',
        f"{INGRESS_TESTS}::test_a_webhook_that_is_not_shopifys_is_refused",
    ),
    Mutation(
        "deliveries count once",
        "a webhook that Shopify repeats is staged again",
        f"{INGRESS}/webhooks.py",
        "if d.webhook_id in new]",
        "]",
        f"{INGRESS_TESTS}::test_a_webhook_is_counted_once",
    ),
    Mutation(
        "2xx only when durable",
        "a webhook is answered before it is committed",
        f"{INGRESS}/webhooks.py",
        "                return await delivery.done",
        "                return Outcome.STAGED",
        f"{INGRESS_TESTS}::test_a_webhook_waits_for_postgres_or_is_refused",
    ),
    Mutation(
        "percent never falls",
        "it follows what is known at the moment",
        f"{STATUS}/progress.py",
        "return replace(after, percent=max(after.percent, percent(after)))",
        "return replace(after, percent=percent(after))",
        f"{PROGRESS_TESTS}::test_percent_never_falls_and_100_means_live",
    ),
    Mutation(
        "never 100 % before the proof",
        "an audit that found differences is an audit",
        f"{STATUS}/measure.py",
        "if progress.audit and progress.audit.equal:",
        "if progress.audit:",
        f"{PROGRESS_TESTS}::test_percent_in_the_right_order_stays_below_100_until_the_equal_audit",
    ),
    Mutation(
        "a brand's token is for that brand",
        "any valid token reads any brand",
        f"{STATUS}/access.py",
        "if readable != brand_id:",
        "if False:",
        f"{STATUS_HTTP_TESTS}::test_who_may_read_what",
    ),
    Mutation(
        "events without order",
        "the job that came last is the newest",
        f"{STATUS}/progress.py",
        "return {**known, key: value} if there is None or _age(there) <= _age(value) else dict(known)",
        "return {**known, key: value}",
        f"{PROGRESS_TESTS}::test_any_order_ends_in_the_same_document",
    ),
    Mutation(
        "no locks while paused",
        "a connection that was used once has no time-out",
        f"{SHARED}/db.py",
        'f"{connection.get_reset_query()}\\n{_end_when_it_stands_still()}"',
        "connection.get_reset_query()",
        f"{LEASE_TESTS}::test_a_worker_that_is_paused_in_a_transaction_keeps_no_locks",
    ),
    Mutation(
        "clean end",
        "a cancellation that a driver swallowed is lost",
        f"{SHARED}/outages.py",
        "task.cancelling() > 0",
        "task.cancelling() > 1",
        "shared/tests/test_outages.py::test_a_loop_ends_though_a_driver_swallows_the_cancellation",
    ),
    Mutation(
        "first rows first",
        "a store that has loaded much never rests",
        f"{SHARED}/lanes.py",
        "or not await self._gives_way(connection_id):",
        "or await self._gives_way(connection_id) or True:",
        "shared/tests/test_lanes.py::test_a_rest_is_as_long_as_the_turn_asks_and_holds_no_place",
    ),
    Mutation(
        "first rows first",
        "a large store rests for another large one",
        f"{SHARED}/queries.sql",
        "and coalesce(l.lines, 0) < $2",
        "and $2 > 0",
        "shared/tests/test_giving_way.py::test_nobody_rests_for_stores_that_are_through_or_as_large",
    ),
    Mutation(
        "look-ups by key",
        "the planner believes that a new store beside a huge one has no rows",
        STAGE,
        "p.connection_id = (select b.connection_id)",
        "p.connection_id = b.connection_id",
        f"{PROMOTION_TESTS}::test_a_small_store_beside_a_huge_one_is_looked_up_by_key",
        16,
    ),
)
