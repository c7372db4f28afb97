"""Every GraphQL document that the product sends, against Shopify's own schema, costs and bulk rules."""

from __future__ import annotations

import ast
import gzip
import json
import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from graphql import (
    FieldNode,
    GraphQLSchema,
    InlineFragmentNode,
    NoDeprecatedCustomRule,
    OperationDefinitionNode,
    build_client_schema,
    get_named_type,
    is_leaf_type,
    is_list_type,
    parse,
    validate,
)
from graphql.type import GraphQLNonNull
from graphql.utilities import strip_ignored_characters
from graphql.validation import specified_rules

from bulk_runner import heal
from bulk_runner.bulk_operation import PATHS
from bulk_runner.documents import bulk_document, definitions, document
from bulk_runner.resources import customers, orders, products, refunds

SCHEMA = Path(__file__).parents[2] / "shared" / "shopify" / "schema" / "admin_2026-10.json.gz"
MOST_POINTS = 1000  # that one query may cost
MOST_BYTES = 65_535  # of a bulk query
OPERATION = re.compile(r"\s*(?:query|mutation)\s+(?P<name>\w+)\s*[({]")
MARKER = "# backstock 6f1c8a1e-0000-4000-8000-000000000000"
SEARCHES = ("", "created_at:>='2026-01-01T00:00:00Z' created_at:<'2026-02-01T00:00:00Z'", 'tag:"a\\"b" ü')

# The sizes that the product really asks for, by document; whatever else varies costs nothing.
SIZES = {
    "OrdersPage": {"first": orders.PAGE_SIZE},
    "CustomersPage": {"first": customers.PAGE_SIZE},
    "ProductsPage": {"first": products.PAGE_SIZE},
    "RefundLines": {"ids": refunds.AT_ONCE},
    "OrdersById": {"ids": heal.AT_ONCE},
    "CustomersById": {"ids": heal.AT_ONCE},
    "ProductsById": {"ids": heal.AT_ONCE},
    "StillThere": {"ids": heal.AT_ONCE},
}


def needs_schema(test):
    """Marks a test that reads the captured schema."""
    there = pytest.mark.skipif(
        not SCHEMA.exists(),
        reason="needs Shopify's schema in ../shared/shopify/schema; it is not part of the repository",
    )
    return pytest.mark.samples(there(test))


def graphql_files():
    """Every .graphql file of the bulk runner, by its path in the package."""
    root = files("bulk_runner")
    folder = Path(str(root))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.graphql"))


def operations():
    """The queries and mutations of the files, as (path, name)."""
    return [
        (path, name)
        for path in graphql_files()
        for name, text in definitions(path).items()
        if not text.startswith("fragment")
    ]


def constants():
    """Every text in the Python sources that is a GraphQL operation, by module and name."""
    found = {}
    for package in ("ingress", "bulk_runner", "promoter", "status", "shared"):
        folder = Path(str(files(package)))
        for source in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text("utf-8"))):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and OPERATION.match(node.value)
                ):
                    name = OPERATION.match(node.value)["name"]
                    found[f"{package}/{source.relative_to(folder)}:{name}"] = node.value
    return found


def is_bulk(path, name):
    return name in BULK_NAMES and path in PATHS.values()


BULK_NAMES = {f"{kind}{resource.capitalize()}" for kind in ("Bulk", "Audit") for resource in PATHS}
BULK = [(path, name) for path, name in operations() if is_bulk(path, name)]
DOCUMENTS = {
    **{f"{path}:{name}": document(path, name) for path, name in operations() if not is_bulk(path, name)},
    **constants(),
}
BULK_DOCUMENTS = {
    f"{name}/{number}": bulk_document(path, name, search, MARKER)
    for path, name in BULK
    for number, search in enumerate(SEARCHES)
}


@cache
def schema() -> GraphQLSchema:
    raw = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    return build_client_schema(raw["data"], assume_valid=True)


def test_no_document_is_forgotten():
    """What the scan finds includes the documents that we know; each bulk resource has both of its own."""
    by_hand = {"Who", "Subscriptions", "Subscribe", "Unsubscribe"}
    assert by_hand <= {name.rpartition(":")[2] for name in constants()}
    assert {name for _, name in BULK} == BULK_NAMES
    assert {"OrdersPage", "RunBulk", "PollBulk", "RecentBulks", "OrdersCount"} <= {n for _, n in operations()}
    used = re.compile(r"\bdocument\([\w.\"]+, \"(\w+)\"\)")
    folder = Path(str(files("bulk_runner")))
    sent = {name for source in folder.rglob("*.py") for name in used.findall(source.read_text("utf-8"))}
    assert sent | BULK_NAMES == {name for _, name in operations()}, "a document is never sent, or not there"


@needs_schema
@pytest.mark.parametrize("name", [*DOCUMENTS, *BULK_DOCUMENTS])
def test_a_document_fits_shopifys_schema(name):
    """It is valid against the published schema and uses nothing that is deprecated there."""
    text = {**DOCUMENTS, **BULK_DOCUMENTS}[name]
    problems = validate(schema(), parse(text), [*specified_rules, NoDeprecatedCustomRule], max_errors=5)
    assert [problem.message for problem in problems] == []


@needs_schema
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_not_too_expensive(name):
    """With the sizes that are really asked for it costs less than what one query may cost."""
    assert cost(DOCUMENTS[name]) <= MOST_POINTS


@needs_schema
def test_the_cost_model_is_the_fitted_one():
    """The model's figures for four shapes of query are those that the formula gives by hand."""
    page = "customers(first: 100) { nodes { id amountSpent { amount } } pageInfo { hasNextPage } }"
    assert cost(f"query A {{ {page} }}") == 2 + 9
    lines = "lineItems(first: 50) { nodes { id product { id } variant { id } } }"
    assert cost(f"query B {{ orders(first: 50) {{ nodes {{ id {lines} }} }} }}") == 2 + 7 * (1 + 2 + 7 * 3)
    assert cost("query C { ordersCount { count } customersCount { count } }") == 20
    cancel = 'bulkOperationCancel(id: "gid://shopify/BulkOperation/1") { bulkOperation { id } }'
    assert cost(f"mutation D {{ {cancel} }}") == 10


# The cost of a query, as fitted to 1,459 captured ones: leaves, pages and money are free, an object is 1,
# a count at the root 10, a mutation 10, a connection 2 + f(n) * (1 + what stands below a node).

FREE = {"MoneyBag", "MoneyV2", "MailingAddress", "SelectedOption", "SEO", "PageInfo"}


def cost(text):
    parsed = parse(text)
    fragments = {d.name.value: d for d in parsed.definitions if not isinstance(d, OperationDefinitionNode)}
    (operation,) = (d for d in parsed.definitions if isinstance(d, OperationDefinitionNode))
    name = operation.name.value if operation.name else ""
    root = schema().get_root_type(operation.operation)
    fields = list(selected(root, operation.selection_set, fragments))
    if operation.operation.value == "mutation":
        return 10 * len(fields)
    sizes = SIZES.get(name, {})
    for variable in operation.variable_definitions or ():
        if variable.variable.name.value in ("first", "ids"):
            assert variable.variable.name.value in sizes, f"{name}: say in SIZES how many are asked for"
    return max(1, sum(_cost(parent, field, fragments, sizes, root=True) for parent, field in fields))


def selected(kind, selection_set, fragments):
    """The fields of a selection with the type that they stand on, fragments opened."""
    for node in selection_set.selections:
        if isinstance(node, FieldNode):
            if node.name.value != "__typename":
                yield kind, node
            continue
        inner = node if isinstance(node, InlineFragmentNode) else fragments[node.name.value]
        narrowed = schema().get_type(inner.type_condition.name.value) if inner.type_condition else kind
        yield from selected(narrowed, inner.selection_set, fragments)


def _cost(parent, field, fragments, sizes, *, root=False):
    definition = parent.fields[field.name.value]
    kind = get_named_type(definition.type)
    if is_leaf_type(kind):
        return 0
    inside = list(selected(kind, field.selection_set, fragments))
    if kind.name.endswith("Connection"):
        n = size(field, "first", sizes)
        below = sum(_cost(p, f, fragments, sizes) for p, f in node_fields(inside, fragments))
        return 2 + max(1, math.floor(2 * math.log(n))) * (1 + below)
    below = sum(_cost(p, f, fragments, sizes) for p, f in inside)
    if kind.name == "Count":
        return 10 if root else 1
    if root and any(argument.name.value == "ids" for argument in field.arguments or ()):
        return size(field, "ids", sizes) * (1 + below)
    return below + (0 if kind.name in FREE else 1)


def node_fields(fields, fragments):
    """What is asked of a connection's nodes, through `nodes` or `edges { node }`."""
    for parent, field in fields:
        kind = get_named_type(parent.fields[field.name.value].type)
        if field.name.value in ("nodes", "node"):
            yield from selected(kind, field.selection_set, fragments)
        elif field.name.value == "edges":
            yield from node_fields(selected(kind, field.selection_set, fragments), fragments)


def size(field, argument, sizes):
    value = next(a.value for a in field.arguments if a.name.value == argument)
    return sizes[value.name.value] if hasattr(value, "name") else int(value.value)


# Shopify's rules for bulk queries, as its refusals state them.


@needs_schema
@pytest.mark.parametrize("name", BULK_DOCUMENTS)
def test_a_bulk_document_keeps_shopifys_rules(name):
    """One root connection, five at the most, two deep, edges and nodes with ids, none inside a list."""
    text = BULK_DOCUMENTS[name]
    (operation,) = parse(text).definitions
    assert operation.operation.value == "query"
    assert not operation.variable_definitions
    (root,) = operation.selection_set.selections
    found = list(connections(schema().query_type, root))
    assert 1 <= len(found) <= 5
    assert max(depth for depth, _, _ in found) <= 2
    for _, in_list, field in found:
        assert not in_list, f"{field.name.value} stands inside a list"
        assert [f.name.value for f in field.selection_set.selections] == ["edges"]
        (edges,) = field.selection_set.selections
        (node,) = edges.selection_set.selections
        assert node.name.value == "node"
        first = node.selection_set.selections[0]
        # Our reader takes the first id on a line as the object's own.
        assert (first.name.value, first.alias) == ("id", None)


def connections(kind, field, depth=0, *, in_list=False):
    """Every connection at or below a field: how deep it stands, whether inside a list, and its node."""
    definition = kind.fields[field.name.value]
    named = get_named_type(definition.type)
    if is_leaf_type(named):
        return
    is_connection = named.name.endswith("Connection")
    if is_connection:
        depth += 1
        yield depth, in_list, field
    unwrapped = definition.type.of_type if isinstance(definition.type, GraphQLNonNull) else definition.type
    inside_list = in_list or (is_list_type(unwrapped) and field.name.value != "edges")
    for inner in field.selection_set.selections:
        assert isinstance(inner, FieldNode), "fragments are put in as text"
        yield from connections(named, inner, depth, in_list=inside_list)


@pytest.mark.parametrize("name", BULK_DOCUMENTS)
def test_a_bulk_document_is_small_and_begins_with_its_marker(name):
    """The marker is the first line, the text is far below the limit, no variable or fragment is left."""
    text = BULK_DOCUMENTS[name]
    assert text.splitlines()[0] == MARKER
    assert len(text.encode()) < MOST_BYTES
    assert "..." not in text
    assert "$" not in text
    assert text.count("# backstock") == 1


@pytest.mark.parametrize(("path", "name"), BULK)
@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_reaches_shopify_unchanged(path, name, search):
    """Quotes, backslashes and letters beyond ASCII stand in the bulk text as they were given."""
    (operation,) = parse(bulk_document(path, name, search, MARKER)).definitions
    (root,) = operation.selection_set.selections
    given = {argument.name.value: argument.value.value for argument in root.arguments}
    assert given["query"] == search


@pytest.mark.parametrize(("path", "name"), BULK)
def test_a_bulk_document_asks_what_its_file_says(path, name):
    """Putting fragments and search in as text changes nothing of what is asked."""
    in_file = document(path, name)
    as_bulk = bulk_document(path, name, "x", MARKER)
    assert leaves(in_file) == leaves(as_bulk)
    assert len(leaves(as_bulk)) > 2
    assert strip_ignored_characters(as_bulk).startswith("{")


def leaves(text):
    """Every field path that a document asks for, in order."""
    parsed = parse(text)
    fragments = {d.name.value: d for d in parsed.definitions if not isinstance(d, OperationDefinitionNode)}
    (operation,) = (d for d in parsed.definitions if isinstance(d, OperationDefinitionNode))

    def walk(selection_set, path):
        for node in selection_set.selections:
            if not isinstance(node, FieldNode):
                yield from walk(fragments[node.name.value].selection_set, path)
            elif node.selection_set:
                yield from walk(node.selection_set, (*path, node.name.value))
            else:
                yield (*path, node.name.value)

    return list(walk(operation.selection_set, ()))
