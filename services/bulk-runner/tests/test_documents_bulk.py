"""GraphQL documents out of files, and the text that a bulk operation gets: pure."""

from __future__ import annotations

import json

import pytest
from graphql import parse
from hypothesis import given
from hypothesis import strategies as st

from bulk_runner.documents import bulk_document, definitions, document

ORDERS = "resources/orders.graphql"
MARKER = "# backstock 0"


def test_a_file_is_split_at_its_definitions():
    """Operations and fragments are found by name, each whole; comments above them belong to nobody."""
    found = definitions(ORDERS)
    assert {"OrderFields", "LineItemFields", "OrdersPage", "BulkOrders", "AuditOrders"} <= set(found)
    for name, text in found.items():
        assert text.split()[1].partition("(")[0] == name
        assert text.count("{") == text.count("}")


def test_a_document_brings_the_fragments_that_it_spreads():
    """What is sent parses by itself: each fragment is there once, and none that is not used."""
    text = document(ORDERS, "OrdersPage")
    names = [definition.name.value for definition in parse(text).definitions]
    assert names == ["OrdersPage", "OrderFields", "LineItemFields"]
    assert [d.name.value for d in parse(document(ORDERS, "MoreLineItems")).definitions] == [
        "MoreLineItems",
        "LineItemFields",
    ]


def test_an_unknown_document_is_an_error_at_once():
    """A name that no file has raises where it is asked for."""
    with pytest.raises(KeyError):
        document(ORDERS, "Nothing")
    with pytest.raises(FileNotFoundError):
        document("resources/nothing.graphql", "Nothing")


def test_a_bulk_document_is_plain_text():
    """The marker first, then one selection without a name, variables or fragments, the search put in."""
    text = bulk_document(ORDERS, "BulkOrders", "created_at:>='2026-01-01T00:00:00Z'", MARKER)
    first, _, rest = text.partition("\n")
    assert first == MARKER
    assert rest.startswith("{")
    assert "orders(query: \"created_at:>='2026-01-01T00:00:00Z'\")" in rest
    assert "$" not in rest
    assert "..." not in rest
    (operation,) = parse(text).definitions
    assert operation.name is None


@given(st.text(max_size=40))
def test_any_search_survives(search):
    """Quotes, backslashes, line ends, letters of any script: Shopify reads the search that was given."""
    (operation,) = parse(bulk_document(ORDERS, "AuditOrders", search, MARKER)).definitions
    (root,) = operation.selection_set.selections
    assert root.arguments[0].value.value == search
    assert json.loads(json.dumps(search)) == search
