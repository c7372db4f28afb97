import json

import pytest


@pytest.mark.samples
async def test_read_errors_are_the_captured_ones(sandbox, material):
    """Missing windows, bad dates, bad enums and bad ids are answered as Shopify answered them."""
    cases = json.loads((material / "samples/captured/bulk-operations-read-arg-validation.json").read_text())[
        "cases"
    ]
    assert len(cases) > 5
    for name, case in cases.items():
        got, wanted = await sandbox.ask(case["query"], case["variables"]), case["response"]
        for each in (got, wanted):
            each.get("extensions", {}).get("cost", {}).pop("throttleStatus", None)
        assert got == wanted, name


async def test_pages_visit_every_object_once_in_order(sandbox):
    """Following endCursor walks the whole list, both ways, without a gap or a repeat."""
    query = """query($after: String, $reverse: Boolean!) { orders(first: 40, after: $after, sortKey: UPDATED_AT,
        reverse: $reverse) { nodes { id updatedAt } pageInfo { hasNextPage endCursor } } }"""  # noqa: E501
    for reverse in (False, True):
        seen, after, more = [], None, True
        while more:
            page = (await sandbox.data(query, {"after": after, "reverse": reverse}))["orders"]
            seen += page["nodes"]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert len({each["id"] for each in seen}) == len(seen) == 150
        assert [x["updatedAt"] for x in seen] == sorted((x["updatedAt"] for x in seen), reverse=reverse)


async def test_fragments_aliases_directives_and_names_work(sandbox):
    """A document may use all of the query language that clients use."""
    query = """query Two($yes: Boolean!) { one: orders(first: 1) { edges { node { ...Part } } }
        shop { __typename mail: email @skip(if: $yes) name @include(if: $yes) } }
        fragment Part on Order { key: id ... on Order { total: totalPriceSet { shopMoney { a: amount } } } }"""  # noqa: E501
    found = await sandbox.data(query, {"yes": True})
    assert set(found["one"]["edges"][0]["node"]) == {"key", "total"}
    assert found["shop"] == {"__typename": "Shop", "name": "Test Store"}


async def test_every_order_reads_as_the_truth_says(sandbox):
    """GraphQL and the truth are two views of one store."""
    query = """query($after: String) { orders(first: 50, after: $after) { pageInfo { hasNextPage endCursor } nodes {
        legacyResourceId name createdAt updatedAt cancelledAt displayFinancialStatus tags test
        totalPriceSet { shopMoney { amount } } currentTotalPriceSet { shopMoney { amount } }
        totalRefundedSet { shopMoney { amount } } customer { legacyResourceId } } } }"""  # noqa: E501
    truth, after, more = await sandbox.truth("orders"), None, True
    while more:
        page = (await sandbox.data(query, {"after": after}))["orders"]
        for node in page["nodes"]:
            row = truth.pop(int(node["legacyResourceId"]))
            assert (node["name"], node["createdAt"], node["updatedAt"]) == (
                row["name"],
                row["created_at"],
                row["updated_at"],
            )
            assert (node["cancelledAt"], node["tags"], node["test"]) == (
                row["cancelled_at"],
                row["tags"],
                row["test"],
            )
            assert node["displayFinancialStatus"] == row["financial_status"]
            for field, column in (
                ("totalPriceSet", "total_price"),
                ("currentTotalPriceSet", "current_total_price"),
                ("totalRefundedSet", "total_refunded"),
            ):
                assert float(node[field]["shopMoney"]["amount"]) == float(row[column])
            assert (node["customer"] and int(node["customer"]["legacyResourceId"])) == row["customer_id"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert truth == {}


async def test_search_finds_what_the_filter_says(sandbox):
    """Date bounds, enums, NOT, OR and parentheses select the same rows as the truth does."""
    truth = list((await sandbox.truth("orders")).values())
    middle = sorted(row["updated_at"] for row in truth)[75]
    for query, test in (
        (f"updated_at:>='{middle}'", lambda row: row["updated_at"] >= middle),
        (f"updated_at:<{middle} financial_status:paid", lambda row: row["updated_at"] < middle and row["financial_status"] == "PAID"),  # noqa: E501
        ("status:cancelled OR (financial_status:refunded AND test:false)", lambda row: row["cancelled_at"] or (row["financial_status"] == "REFUNDED" and not row["test"])),  # noqa: E501
        ("-tag:vip", lambda row: "vip" not in row["tags"]),
        (f"id:{truth[3]['id']}", lambda row: row["id"] == truth[3]["id"]),
    ):  # fmt: skip
        found = await sandbox.data(
            "query($q: String) { ordersCount(query: $q) { count precision } }", {"q": query}
        )
        assert found["ordersCount"] == {
            "count": sum(1 for row in truth if test(row)),
            "precision": "EXACT",
        }, query


async def test_an_unknown_filter_is_ignored_but_told(sandbox):
    """Search fails open: all orders come back, and only extensions.search warns."""
    answer = await sandbox.ask('{ ordersCount(query: "colour:red") { count } }')
    assert answer["data"]["ordersCount"]["count"] == 150
    assert answer["extensions"]["search"][0]["warnings"][0]["code"] == "invalid_field"


async def test_counts_stop_at_their_limit(sandbox):
    """A count beyond `limit` is that limit and AT_LEAST."""
    found = await sandbox.data("{ ordersCount(limit: 1) { count precision } }")
    assert found["ordersCount"] == {"count": 1, "precision": "AT_LEAST"}


async def test_unknown_fields_are_refused_without_cost(sandbox):
    """A document that does not fit the schema costs nothing and carries Shopify's code."""
    answer = await sandbox.ask("{ orders(first: 1) { nodes { colour } } }")
    assert answer["errors"][0]["extensions"]["code"] == "undefinedField"
    assert answer["errors"][0]["message"] == "Field 'colour' doesn't exist on type 'Order'"
    assert "extensions" not in answer


async def test_a_bad_token_is_401_and_an_unknown_shop_404(sandbox):
    """Neither tells more than Shopify does."""
    answer = await sandbox.post("{ shop { name } }", token="shpat_wrong")
    assert answer.status_code == 401
    assert answer.json()["errors"].startswith("[API] Invalid API key or access token")
    sandbox.shop = "nobody.myshopify.com"
    assert (await sandbox.post("{ shop { name } }")).status_code == 404


async def test_a_retired_version_falls_forward(sandbox):
    """The header says which version really answered."""
    answer = await sandbox.post("{ shop { name } }", version="2024-01")
    assert answer.headers["x-shopify-api-version"] == "2026-01"
    assert answer.headers["x-request-id"]


async def test_missing_scopes_deny_one_field_and_hide_old_orders(sandbox):
    """Without read_customers the field is refused; without read_all_orders old orders are left out in silence."""  # noqa: E501
    await sandbox.control("POST", "/tokens", token="shpat_less", scopes=["read_orders"])
    answer = await sandbox.ask("{ shop { name } customersCount { count } }", token="shpat_less")
    assert answer["data"] == {"shop": {"name": "Test Store"}, "customersCount": None}
    assert answer["errors"][0]["extensions"]["code"] == "ACCESS_DENIED"
    count = (await sandbox.ask("{ ordersCount { count } }", token="shpat_less"))["data"]["ordersCount"][
        "count"
    ]
    assert 0 < count < 150


async def test_the_bucket_runs_dry_and_large_queries_never_run(sandbox):
    """THROTTLED comes with status 200 and what is left; a query over 1000 points is refused at any time."""
    await sandbox.make(shop="slow.myshopify.com", orders=5, bucket=100, restore_rate=0.001)
    sandbox.shop = "slow.myshopify.com"
    query = "{ a: ordersCount { count } b: ordersCount { count } c: ordersCount { count } d: ordersCount { count } }"  # noqa: E501
    assert "data" in await sandbox.ask(query)
    assert "data" in await sandbox.ask(query)
    answer = await sandbox.post(query)
    assert answer.status_code == 200
    assert answer.json()["errors"][0]["extensions"]["code"] == "THROTTLED"
    assert answer.json()["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"] == 20
    large = "{" + "".join(f"c{i}: ordersCount {{ count }} " for i in range(101)) + "}"
    assert (await sandbox.ask(large))["errors"][0]["extensions"] == {
        "code": "MAX_COST_EXCEEDED", "cost": 1010, "maxCost": 1000,
        "documentation": "https://shopify.dev/api/usage/rate-limits",
    }  # fmt: skip


@pytest.mark.samples
async def test_costs_are_the_captured_ones(sandbox, material):
    """The requested cost of captured queries is reproduced."""
    captured = json.loads((material / "samples/captured/customers-search.json").read_text())["upstreamCalls"][
        0
    ]
    answer = await sandbox.ask(captured["query"], captured["variables"])
    wanted = captured["response"]["body"]["extensions"]["cost"]["requestedQueryCost"]
    assert answer["extensions"]["cost"]["requestedQueryCost"] == wanted


async def test_a_fresh_change_is_not_found_while_the_index_lags(sandbox):
    """By id it is there at once; by search it is what it was."""
    await sandbox.control("PATCH", index_lag=60)
    id_ = (await sandbox.control("POST", "/orders"))["id"]
    assert (
        await sandbox.data("query($i: ID!) { order(id: $i) { name } }", {"i": f"gid://shopify/Order/{id_}"})
    )["order"]
    found = await sandbox.data("query($q: String) { ordersCount(query: $q) { count } }", {"q": f"id:{id_}"})
    assert found["ordersCount"]["count"] == 0


@pytest.mark.parametrize(("fault", "status", "code"), [
    ({"http": {"status": 503, "times": 1}}, 503, None),
    ({"internal_error": {"times": 1}}, 200, "INTERNAL_SERVER_ERROR"),
    ({"throttle": {"times": 1}}, 200, "THROTTLED"),
    ({"token_revoked": {"times": 1}}, 401, None),
])  # fmt: skip
async def test_a_fault_strikes_as_often_as_told(sandbox, fault, status, code):
    """The first request fails in the chosen way, the next is fine."""
    await sandbox.control("PATCH", "/faults", **fault)
    answer = await sandbox.post("{ shop { name } }")
    assert answer.status_code == status
    if code:
        assert answer.json()["errors"][0]["extensions"]["code"] == code
    assert (await sandbox.post("{ shop { name } }")).json()["data"]["shop"]
