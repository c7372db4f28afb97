import json
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

ORDERS = """# marker 7
{ orders { edges { node { __typename id name url: sourceName totalPriceSet { shopMoney { amount currencyCode } }
    lineItems { edges { node { __typename id title quantity product { id } } } } } } } }"""  # noqa: E501
IDS = "{ orders { edges { node { id } } } }"


def rows(content):
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def number(gid):
    return int(gid.rsplit("/", 1)[-1])


@pytest.mark.samples
async def test_refused_queries_get_the_captured_messages(sandbox, material):
    """Each captured refusal is repeated word for word."""
    for file in ("bulk-operation-run-query-validators", "bulk-operation-run-query-user-error-codes"):
        cases = json.loads((material / f"samples/captured/{file}.json").read_text())["validations"]
        for name, case in cases.items():
            if name == "connectionWithinList":  # its fulfillment events are not served; see the next test
                continue
            wanted = case["response"]["data"]["bulkOperationRunQuery"]
            assert (await sandbox.ask(case["query"], case["variables"]))["data"][
                "bulkOperationRunQuery"
            ] == wanted, name


async def test_a_connection_inside_a_list_is_refused(sandbox):
    """Refund lines cannot be had in bulk."""
    query = "{ orders { edges { node { id refunds { refundLineItems { edges { node { id } } } } } } } }"
    started = await sandbox.start(query)
    assert "connection field within a list field" in started["userErrors"][0]["message"]


async def test_a_bulk_file_is_the_truth_with_its_counters(sandbox):
    """Every order and line item once, exact counts and size, slashes escaped, __parentId last."""
    operation, content = await sandbox.bulk(ORDERS)
    assert operation["query"] == ORDERS
    found = rows(content)
    orders = {number(row["id"]): row for row in found if "__parentId" not in row}
    lines = {number(row["id"]): row for row in found if "__parentId" in row}
    truth, line_truth = await sandbox.truth("orders"), await sandbox.truth("order_line_items")
    assert orders.keys() == truth.keys()
    assert {
        id_: (row["title"], row["quantity"], number(row["__parentId"])) for id_, row in lines.items()
    } == {id_: (row["title"], row["quantity"], row["order_id"]) for id_, row in line_truth.items()}
    assert operation["objectCount"] == str(len(found))
    assert operation["rootObjectCount"] == str(len(truth))
    assert operation["fileSize"] == str(len(content))
    assert b'"id":"gid:\\/\\/shopify\\/Order\\/' in content
    assert all(list(row)[-1] == "__parentId" for row in lines.values())
    assert list(next(iter(orders.values()))) == ["__typename", "id", "name", "url", "totalPriceSet"]


async def test_children_come_after_their_parent_but_not_beside_it(sandbox):
    """Ungrouped, nearly no line item follows its own order; grouped, all do."""
    for grouped in (False, True):
        _, content = await sandbox.bulk(ORDERS, grouped=grouped)
        seen, beside, children, last_root = set(), 0, 0, None
        for row in rows(content):
            if "__parentId" in row:
                assert row["__parentId"] in seen
                children += 1
                beside += row["__parentId"] == last_root
            else:
                seen.add(row["id"])
                last_root = row["id"]
        assert beside == children if grouped else beside < children / 10


async def test_an_operation_reads_the_shop_as_it_was_when_run(sandbox):
    """What is deleted while it runs is still in its file."""
    await sandbox.control("PATCH", objects_per_second=2000)
    before = await sandbox.truth("orders")
    started = await sandbox.start(IDS)
    await sandbox.control("DELETE", f"/orders/{next(iter(before))}")
    operation = await sandbox.finish(started["bulkOperation"]["id"])
    assert operation["objectCount"] == str(len(before))


async def test_the_sixth_operation_is_told_of_the_five(sandbox):
    """Slots are counted until an operation really ends, cancelling included."""
    await sandbox.control("PATCH", "/faults", bulk_stuck={})
    ids = [(await sandbox.start(IDS))["bulkOperation"]["id"] for _ in range(5)]
    refused = await sandbox.start(IDS)
    assert refused["bulkOperation"] is None
    assert refused["userErrors"] == [{
        "field": None, "code": "OPERATION_IN_PROGRESS",
        "message": f"A bulk query operation for this app and shop is already in progress: {', '.join(ids)}.",
    }]  # fmt: skip
    cancel = "mutation($id: ID!) { bulkOperationCancel(id: $id) { bulkOperation { status } userErrors { field message } } }"  # noqa: E501
    answer = (await sandbox.data(cancel, {"id": ids[0]}))["bulkOperationCancel"]
    assert answer == {"bulkOperation": {"status": "CANCELING"}, "userErrors": []}
    ended = await sandbox.finish(ids[0])
    assert (ended["status"], ended["url"], ended["completedAt"]) == ("CANCELED", None, None)
    await sandbox.control("PATCH", "/faults", bulk_stuck=None)
    done, _ = await sandbox.bulk(IDS)
    late = (await sandbox.data(cancel, {"id": done["id"]}))["bulkOperationCancel"]
    assert late["userErrors"][0]["message"] == "A bulk operation cannot be canceled when it is completed"


async def test_nothing_found_means_no_file(sandbox):
    """Zero rows: completed, counted, and no link."""
    operation, _ = await sandbox.bulk(
        "{ orders(query: \"updated_at:>='2099-01-01T00:00:00Z'\") { edges { node { id } } } }"
    )
    assert (operation["status"], operation["url"], operation["objectCount"]) == ("COMPLETED", None, "0")


async def test_a_file_can_be_read_in_ranges_and_only_with_its_signature(sandbox):
    """206 with Content-Range for a part; 403 for a changed link; it lives seven days."""
    operation, content = await sandbox.bulk(IDS)
    part = await sandbox.http.get(operation["url"], headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, content[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
    assert part.headers["content-type"].startswith("application/jsonl")
    assert (await sandbox.http.get(operation["url"].replace("Signature=", "Signature=0"))).status_code == 403
    assert "Expires" in parse_qs(urlsplit(operation["url"]).query)


async def test_a_failed_operation_may_leave_a_part(sandbox):
    """FAILED with its error code, no url, and a partialDataUrl with what was written."""
    await sandbox.control("PATCH", "/faults", bulk_fail={"times": 1, "partial": True})
    operation = await sandbox.finish((await sandbox.start(IDS))["bulkOperation"]["id"])
    assert (operation["status"], operation["errorCode"], operation["url"]) == (
        "FAILED",
        "INTERNAL_SERVER_ERROR",
        None,
    )
    assert rows((await sandbox.http.get(operation["partialDataUrl"])).content)


async def test_a_download_can_be_cut(sandbox):
    """The connection breaks after the bytes it was told to let through."""
    operation, _ = await sandbox.bulk(IDS)
    await sandbox.control("PATCH", "/faults", download_cut={"bytes": 1000, "times": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await sandbox.http.get(operation["url"])
    assert (await sandbox.http.get(operation["url"])).status_code == 200


async def test_an_expired_link_is_refused(sandbox):
    """EXPIRED operations have links that answer 403."""
    await sandbox.control("PATCH", "/faults", bulk_expired={"times": 1})
    operation = await sandbox.finish((await sandbox.start(IDS))["bulkOperation"]["id"])
    assert operation["status"] == "EXPIRED"
    assert (await sandbox.http.get(operation["url"])).status_code == 403


@pytest.mark.samples
async def test_captured_files_go_through_the_real_route(sandbox, material):
    """Loaded bytes are served as they are, with truthful counters."""
    text = (material / "samples/bulk/products_children.jsonl").read_text()
    await sandbox.control("POST", "/load", bulk={"products": text})
    operation, content = await sandbox.bulk("{ products { edges { node { id } } } }")
    assert content == text.encode()
    assert (operation["objectCount"], operation["rootObjectCount"]) == (str(len(rows(content))), "1")
