"""Bulk operations that always finish: each way in which one can go wrong ends with rows equal to the store,
and with exactly as many operations as it should take.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest
from absent import leases_run_out, messages_are_claimable
from stores import TOKEN, make_store

from bulk_runner.bulk_operation import load_operation
from bulk_runner.documents import bulk_document
from bulk_runner.shops import Shops
from bulk_runner.start_bulk import start
from shared.db import connect
from shared.settings import Settings
from shared.shopify import Shopify
from shared.tokens import Tokens

LIVE_WITHIN = 90  # seconds
ORDERS = 4_500  # three windows, and so three bulk operations of orders


async def counters(store) -> dict[str, int]:
    answer = await store.http.get(f"{store.control}/log")
    found: dict[str, int] = answer.json()["counters"]
    return found


async def first_plan(store) -> int:
    """How many operations were planned before anything went wrong."""
    rows = await store.db.fetchrow(
        "select count(*) as planned, count(*) filter (where state = 'split') as split "
        "from control.bulk_operations"
    )
    return int(rows["planned"] - 2 * rows["split"])


FAULTS = {
    "fails": (
        {"bulk_fail": {"times": 1, "error_code": "INTERNAL_SERVER_ERROR", "partial": True, "after": 50}},
        2,
    ),
    "times out": ({"bulk_fail": {"times": 1, "error_code": "TIMEOUT", "after": 0}}, 2),
    "expires": ({"bulk_expired": {"times": 1}}, 1),
    "completes without a file": ({"bulk_no_url": {"times": 1}}, 1),
    "file lacks lines that were counted": ({"bulk_short": {"times": 1, "lines": 3}}, 1),
    "download is cut": ({"download_cut": {"times": 4, "bytes": 150_000}}, 0),
    "link is refused": ({"download_http": {"times": 2, "status": 403}}, 0),
    "file server is down": ({"download_http": {"times": 2, "status": 503}}, 0),
    "API is flaky": ({"http": {"rate": 0.15, "status": 502}, "internal_error": {"rate": 0.1}}, 0),
    "connections are reset": ({"reset": {"rate": 0.15}}, 0),
    "answer to a start is lost": ({"unanswered": {"times": 2, "of": "RunBulk"}}, 0),
    "API throttles": ({"throttle": {"rate": 0.1}}, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_operation_ends_whatever_happens(services, until, fault):
    """With the fault injected, all rows are equal, and it took just the operations it should take."""
    faults, more = FAULTS[fault]
    await services.start_all()
    async with make_store(services, orders=ORDERS) as store:
        answer = await store.http.patch(f"{store.control}/faults", json=faults)
        assert answer.status_code == 200, answer.text
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)

        assert await store.differences() == []
        halved = await store.db.fetchval("select count(*) from control.bulk_operations where state = 'split'")
        expected = await first_plan(store) + (more if halved or more < 2 else 1)
        assert (await counters(store))["bulk_started"] == expected
        assert (await counters(store)).get("bulk_cancelled", 0) == 0


async def test_a_stuck_operation_is_canceled_and_run_again(services, until):
    """Counters stand still for BULK_STUCK_AFTER: ours is canceled, once, and its rows come all the same."""
    services.env["BULK_STUCK_AFTER"] = "1"
    await services.start_all()
    async with make_store(services, orders=ORDERS) as store:
        await store.http.patch(f"{store.control}/faults", json={"bulk_stuck": {"times": 1, "after": 10}})
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        found = await counters(store)
        halved = await store.db.fetchval("select count(*) from control.bulk_operations where state = 'split'")
        assert found["bulk_cancelled"] == 1
        assert found["bulk_started"] == await first_plan(store) + (2 if halved else 1)


@pytest.mark.parametrize("never", [True, {"refused": "Try again later"}], ids=["canceling", "refused"])
async def test_an_operation_that_shopify_does_not_end_is_left_behind(services, until, never):
    """Stuck, and the cancel changes nothing: after as long again its window runs anew, in another slot."""
    services.env["BULK_STUCK_AFTER"] = "1"
    await services.start_all()
    async with make_store(services, orders=ORDERS) as store:
        faults = {"bulk_stuck": {"times": 1, "after": 10}, "bulk_cancel": never}
        await store.http.patch(f"{store.control}/faults", json=faults)
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        halved = await store.db.fetchval("select count(*) from control.bulk_operations where state = 'split'")
        assert (await counters(store))["bulk_started"] == await first_plan(store) + (2 if halved else 1)


async def test_an_operation_that_somebody_canceled_runs_again(services, until):
    """CANCELED, and not by us: the same window runs once more, and we cancel nothing."""
    await services.start_all()
    async with make_store(services, orders=ORDERS, objects_per_second=2_000) as store:
        await store.connect()
        gid = await until(
            lambda: store.db.fetchval(
                "select gid from control.bulk_operations where state = 'running' and resource = 'orders'"
            ),
            LIVE_WITHIN,
        )
        await _ask(
            store, "mutation($id: ID!) { bulkOperationCancel(id: $id) { userErrors { message } } }", id=gid
        )
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        found = await counters(store)
        assert found["bulk_cancelled"] == 1
        assert found["bulk_started"] == await first_plan(store) + 1
        assert (
            await store.db.fetchval("select count(*) from control.bulk_operations where state = 'split'") == 0
        )


async def test_a_file_that_arrives_corrupt_is_had_written_again(services, until):
    """A line that is no JSON: the operation runs again, and the store is whole."""
    await services.start_all()
    async with make_store(services, orders=60) as store:
        await store.post("load", bulk={"customers": '{"id":"gid://shopify/Customer/1","firstNa\n'})
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        assert (await counters(store))["bulk_started"] == await first_plan(store) + 1
        assert await store.db.fetchval("select count(*) from control.dead_letters") == 0


async def test_a_denied_operation_fails_with_its_remedy(services, until):
    """ACCESS_DENIED is not tried again: the connection shows what to do."""
    await services.start_all()
    async with make_store(services, orders=ORDERS) as store:
        fault = {"bulk_fail": {"times": 1, "error_code": "ACCESS_DENIED", "after": 0}}
        await store.http.patch(f"{store.control}/faults", json=fault)
        await store.connect()
        found = await until(
            lambda: store.db.fetchval(
                "select problem from control.connections where sync_status = 'attention'"
            ),
            LIVE_WITHIN,
        )
        assert '"code": "access_denied"' in found
        assert "Grant the app its scopes" in found


async def test_another_apps_operation_is_waited_for_and_left_alone(services, until):
    """With the only slot taken by a query that is not ours, we wait, touch nothing, and go on later."""
    await services.start_all()
    async with make_store(services, orders=ORDERS, max_operations=1, objects_per_second=3_000) as store:
        foreign = await _run(store, "# somebody else\n{ customers { edges { node { id email } } } }")
        await store.connect()
        await until(
            lambda: store.db.fetchval("select max(waits) > 0 from control.bulk_operations"), LIVE_WITHIN
        )
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        assert (await counters(store))["bulk_started"] == await first_plan(store) + 1
        assert (await counters(store)).get("bulk_cancelled", 0) == 0
        assert foreign not in await store.db.fetchval("select array_agg(gid) from control.bulk_operations")


async def test_a_run_that_was_never_noted_is_adopted(services, database_url):
    """Shopify accepted the query and we died before noting it: its marker is found, nothing is run twice."""
    await services.start("ingress")
    async with make_store(services, orders=300) as store:
        connection = await store.connect()
        job = await store.db.fetchval(
            "insert into control.jobs (connection_id, kind, state) "
            "values ($1, 'bulk_orders', 'running') returning id",
            connection,
        )
        planned = await store.db.fetchval(
            "insert into control.bulk_operations (connection_id, job_id, resource) "
            "values ($1, $2, 'orders') returning id",
            connection,
            job,
        )
        settings = Settings(_env_file=None, **{name.lower(): value for name, value in services.env.items()})
        shopify = Shopify(settings)
        pool = await connect(database_url, service="test")
        shops = Shops(pool, Tokens.of(pool, shopify, settings))
        operation = await load_operation(pool, planned)
        accepted = await _run(
            store, bulk_document(operation.path, operation.document_name, "", operation.marker)
        )

        await start(shops, shopify.shop(store.shop, TOKEN), operation)
        assert (await load_operation(pool, planned)).gid == accepted
        assert (await counters(store))["bulk_started"] == 1
        await shopify.close()
        await pool.close()


STATES = {
    "planned": "select count(*) > 0 from control.bulk_operations where state = 'planned'",
    "running": "select count(*) > 0 from control.bulk_operations where state = 'running'",
    "completed": "select count(*) > 0 from control.bulk_operations where state = 'ready'",
    "downloading": "select max(bytes_done) > 0 from control.bulk_operations where state = 'ready'",
    "staged": "select count(*) > 0 from control.bulk_operations where state = 'staged'",
}


@pytest.mark.parametrize("state", STATES)
async def test_a_runner_killed_at_any_state_starts_nothing_twice(services, until, state):
    """`kill -9` at each state of an operation: a new runner ends the sync, and no operation ran twice."""
    started = await services.start_all()
    async with make_store(services, orders=ORDERS, objects_per_second=6_000) as store:
        await store.connect()
        await until(lambda: store.db.fetchval(STATES[state]), LIVE_WITHIN)
        await started["bulk-runner"].kill(signal.SIGKILL)
        await leases_run_out(store.db, started["bulk-runner"])
        messages_are_claimable(services.env["REDIS_URL"])
        await services.start("bulk-runner")
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        assert (await counters(store))["bulk_started"] == await first_plan(store)


async def test_a_small_store_is_live_within_seconds_and_without_bulk_operations(services, until):
    """A store of 200 orders is read by pages: no bulk operation runs for it."""
    services.env["PAGED_UP_TO"] = "250"
    await services.start_all()
    async with make_store(services, orders=200) as store:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        assert await store.differences() == []
        assert "bulk_started" not in await counters(store)


async def _run(store, query: str) -> str:
    mutation = (
        "mutation($q: String!) { "
        "bulkOperationRunQuery(query: $q) { bulkOperation { id } userErrors { message } } }"
    )
    data = await _ask(store, mutation, q=query)
    gid: str = data["bulkOperationRunQuery"]["bulkOperation"]["id"]
    return gid


async def _ask(store, document: str, **variables: object) -> dict[str, Any]:
    """What somebody else with the app's token might ask."""
    answer = await store.http.post(
        f"{store.services.sandbox_url}/{store.shop}/admin/api/2026-10/graphql.json",
        json={"query": document, "variables": variables},
        headers={"X-Shopify-Access-Token": TOKEN},
    )
    data: dict[str, Any] = answer.json()["data"]
    return data
