"""Cuts Shopify's published Admin schema to what the sandbox serves: `python -m sandbox.trim_schema
admin_2026-10.json.gz`.

Types keep only fields that tables.TABLES answers; those keep all arguments, and enums and inputs are kept
whole, so a document that is valid here is valid there.
"""

import gzip
import json
import sys
from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_client_schema,
    get_named_type,
    print_schema,
)

from sandbox import schema
from sandbox.tables import CONNECTION_FIELDS, EDGE_FIELDS, INTERFACES, PAGE_INFO, TABLES


def wanted(name: str) -> tuple[str, ...]:
    if name in TABLES:
        return tuple(TABLES[name])
    if name.endswith("Connection"):
        return CONNECTION_FIELDS
    if name.endswith("Edge"):
        return EDGE_FIELDS
    return PAGE_INFO if name == "PageInfo" else ()


def keep(full: GraphQLSchema) -> set[str]:
    """The names of all types that can be reached from the roots by served fields."""
    seen: set[str] = set()
    todo = ["QueryRoot", "Mutation"]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        kind = full.type_map[name]
        if isinstance(kind, GraphQLObjectType):
            todo += [interface.name for interface in kind.interfaces if interface.name in INTERFACES]
            for field in wanted(name):
                served = kind.fields[field]
                todo += [
                    get_named_type(served.type).name,
                    *(get_named_type(a.type).name for a in served.args.values()),
                ]
        elif isinstance(kind, GraphQLInputObjectType):
            todo += [get_named_type(field.type).name for field in kind.fields.values()]
    return seen


def cut(full: GraphQLSchema) -> str:
    kept = keep(full)
    for name in kept:
        kind = full.type_map[name]
        _forget(kind)
        if isinstance(kind, GraphQLObjectType):
            fields: dict[str, GraphQLField] = {field: kind.fields[field] for field in sorted(wanted(name))}
            kind.fields = fields
            kind.interfaces = tuple(i for i in kind.interfaces if i.name in INTERFACES and i.name in kept)
    types = [full.type_map[name] for name in sorted(kept)]
    for kind in types:
        if isinstance(kind, (GraphQLObjectType, GraphQLInterfaceType)):
            for field in kind.fields.values():
                _bare(field)
    trimmed = GraphQLSchema(query=full.query_type, mutation=full.mutation_type, types=types, description=None)
    return print_schema(trimmed)


def _forget(kind: GraphQLNamedType) -> None:
    kind.description = None
    if isinstance(kind, GraphQLScalarType):
        kind.specified_by_url = None
    if isinstance(kind, GraphQLEnumType):
        for value in kind.values.values():
            value.description = None
    if isinstance(kind, GraphQLInputObjectType):
        for field in kind.fields.values():
            field.description = None


def _bare(field: GraphQLField) -> None:
    field.description = None
    for argument in field.args.values():
        argument.description = None


def main(path: str) -> None:
    with gzip.open(path) as file:
        raw = json.load(file)
    full = build_client_schema(raw["data"], assume_valid=True)
    schema.PATH.write_text(cut(full), encoding="utf-8")
    print(f"{schema.PATH.name}: {len(Path(schema.PATH).read_text().splitlines())} lines")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
