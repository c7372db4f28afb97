import gzip
import json

import pytest
from graphql import (
    build_client_schema,
    is_enum_type,
    is_input_object_type,
    is_interface_type,
    is_object_type,
    is_union_type,
    parse,
    validate,
)  # fmt: skip

from sandbox.schema import schema
from sandbox.tables import TABLES


@pytest.mark.samples
def test_every_type_field_argument_and_enum_value_is_the_real_schemas(material):
    """Nothing in the shipped schema differs from Shopify's; enums and inputs are whole."""
    with gzip.open(material / "schema" / "admin_2026-10.json.gz") as file:
        real = build_client_schema(json.load(file)["data"], assume_valid=True)
    for name, ours in schema().type_map.items():
        if name.startswith("__"):
            continue
        theirs = real.type_map[name]
        assert type(ours) is type(theirs)
        if is_enum_type(ours):
            assert {v: x.deprecation_reason for v, x in ours.values.items()} == {
                v: x.deprecation_reason for v, x in theirs.values.items()
            }
        elif is_input_object_type(ours):
            assert {f: (str(x.type), x.deprecation_reason) for f, x in ours.fields.items()} == {
                f: (str(x.type), x.deprecation_reason) for f, x in theirs.fields.items()
            }
        elif is_union_type(ours):
            assert {x.name for x in ours.types} == {x.name for x in theirs.types}
        elif is_object_type(ours) or is_interface_type(ours):
            assert {x.name for x in ours.interfaces} <= {x.name for x in theirs.interfaces}
            for field, mine in ours.fields.items():
                other = theirs.fields[field]
                assert (str(mine.type), mine.deprecation_reason) == (
                    str(other.type),
                    other.deprecation_reason,
                )
                assert {a: (str(x.type), x.default_value) for a, x in mine.args.items()} == {
                    a: (str(x.type), x.default_value) for a, x in other.args.items()
                }


def test_the_shipped_schema_holds_exactly_what_is_answered():
    """Each field of the schema has a reader and each reader a field."""
    for name, table in TABLES.items():
        assert set(schema().type_map[name].fields) == set(table), name


@pytest.mark.samples
def test_queries_written_for_shopify_are_valid_here(material):
    """What a client sends to Shopify is accepted unchanged."""
    files = sorted((material / "queries").glob("*.graphql"))
    assert files
    for file in files:
        assert validate(schema(), parse(file.read_text())) == [], file.name
