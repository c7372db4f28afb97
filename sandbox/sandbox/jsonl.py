"""A bulk query's rows as Shopify writes them to a file (captured bytes).

One compact object a line, slashes escaped, keys in selection order, nested connections taken out and
written as lines of their own with `__parentId` last. Ungrouped (the default) a child comes after its
parent, but anywhere: here it waits in a pool and leaves it at random, thousands of lines later. Grouped,
it follows its parent at once.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from graphql import FieldNode, GraphQLObjectType, SelectionSetNode, get_named_type

from sandbox.compile import Compiler, Project, Row
from sandbox.execute import Request
from sandbox.paging import Listing
from sandbox.resolve import Read
from sandbox.tables import TABLES

POOL = 2_000  # children that wait for their turn
_encode = msgspec.json.Encoder().encode


class Branch(NamedTuple):
    """A connection: where its objects are, how one is read, what hangs below it."""

    get: Read
    project: Project
    children: "list[Branch]"
    prefix: str  # gid prefix of its nodes, for __parentId


class Waiting(NamedTuple):
    branch: Branch
    of: object
    parent: str


def branches(request: Request, compiler: Compiler) -> list[Branch]:
    return _below(compiler, request.root, [request.operation.selection_set], lambda _: None)[1]


def _is_connection(kind: GraphQLObjectType, node: FieldNode) -> bool:
    name = node.name.value
    return name != "__typename" and get_named_type(kind.fields[name].type).name.endswith("Connection")


def _below(
    compiler: Compiler, kind: GraphQLObjectType, selections: list[SelectionSetNode], reach: Read
) -> tuple[Project, list[Branch]]:
    """The row without its connections, and the connections, reached from the nearest node above."""
    parts: list[tuple[str, Read]] = []
    children: list[Branch] = []
    for key, nodes in compiler.fields(kind, *selections).items():
        node = nodes[0]
        inner = [each.selection_set for each in nodes if each.selection_set]
        if _is_connection(kind, node):
            children.append(_branch(compiler, kind, node, inner, reach))
            continue
        named = get_named_type(kind.fields[node.name.value].type) if node.name.value != "__typename" else None
        if isinstance(named, GraphQLObjectType) and _holds_connection(compiler, named, inner):
            get = TABLES[kind.name][node.name.value](
                compiler.arguments(kind.fields[node.name.value], node), compiler.context
            )
            project, deeper = _below(compiler, named, inner, _chain(reach, get))
            children += deeper
            parts.append((key, _optional(get, project)))
        else:
            parts.append((key, compiler.field(kind, nodes)))
    return (lambda of: {key: part(of) for key, part in parts}), children


def _optional(get: Read, project: Project) -> Read:
    return lambda of: None if (found := get(of)) is None else project(found)


def _chain(reach: Read, get: Read) -> Read:
    return lambda of: None if (found := reach(of)) is None and of is not None else get(found)


def _holds_connection(
    compiler: Compiler, kind: GraphQLObjectType, selections: list[SelectionSetNode]
) -> bool:
    for nodes in compiler.fields(kind, *selections).values():
        if _is_connection(kind, nodes[0]):
            return True
        inner = [node.selection_set for node in nodes if node.selection_set]
        named = get_named_type(kind.fields[nodes[0].name.value].type) if inner else None
        if isinstance(named, GraphQLObjectType) and _holds_connection(compiler, named, inner):
            return True
    return False


def _branch(
    compiler: Compiler, kind: GraphQLObjectType, node: FieldNode, inner: list[SelectionSetNode], reach: Read
) -> Branch:
    field = kind.fields[node.name.value]
    args = compiler.arguments(field, node)
    source = compiler.denied(node.name.value, field, node) or TABLES[kind.name][node.name.value](
        args, compiler.context
    )
    connection = get_named_type(field.type)
    assert isinstance(connection, GraphQLObjectType)  # noqa: S101
    kind_of_node = get_named_type(connection.fields["nodes"].type)
    assert isinstance(kind_of_node, GraphQLObjectType)  # noqa: S101
    selections = [
        each.selection_set
        for edges in compiler.fields(connection, *inner).values()
        if edges[0].name.value == "edges"
        for edge in edges
        if edge.selection_set
        for each in edge.selection_set.selections
        if isinstance(each, FieldNode) and each.name.value == "node" and each.selection_set
    ]
    project, children = _below(compiler, kind_of_node, selections, lambda of: of)

    def get(of: object) -> list[Any]:
        owner = reach(of)
        if owner is None and of is not None:
            return []
        found = source(owner)
        items = found.items if isinstance(found, Listing) else found
        return items[::-1] if args.get("reverse") else items

    return Branch(get, project, children, f"gid://shopify/{kind_of_node.name}/")


def line(row: Row) -> bytes:
    return _encode(row).replace(b"/", b"\\/") + b"\n"


def rows(roots: list[Branch], *, grouped: bool, seed: int) -> Iterator[tuple[bytes, bool]]:
    """All lines with whether each is a root, parents before children."""
    return _grouped(roots) if grouped else _spread(roots, seed)


def _grouped(roots: list[Branch]) -> Iterator[tuple[bytes, bool]]:
    for branch in roots:
        for of in branch.get(None):
            yield line(branch.project(of)), True
            yield from _family(branch, of)


def _family(branch: Branch, of: Any) -> Iterator[tuple[bytes, bool]]:
    for child in branch.children:
        parent = _parent(branch, of)
        for each in child.get(of):
            yield line({**child.project(each), "__parentId": parent}), False
            yield from _family(child, each)


def _parent(branch: Branch, of: Any) -> str:
    return branch.prefix + str(of.id)


def _spread(roots: list[Branch], seed: int) -> Iterator[tuple[bytes, bool]]:
    chance = random.Random(seed).random
    pool: list[Waiting] = []
    for branch in roots:
        for of in branch.get(None):
            yield line(branch.project(of)), True
            _wait(pool, branch, of)
            while len(pool) > POOL:
                yield _leave(pool, chance)
    while pool:
        yield _leave(pool, chance)


def _wait(pool: list[Waiting], branch: Branch, of: Any) -> None:
    for child in branch.children:
        parent = _parent(branch, of)
        pool.extend([Waiting(child, each, parent) for each in child.get(of)])


def _leave(pool: list[Waiting], chance: Callable[[], float]) -> tuple[bytes, bool]:
    index = int(chance() * len(pool))
    pool[index], pool[-1] = pool[-1], pool[index]
    branch, of, parent = pool.pop()
    row = branch.project(of)
    row["__parentId"] = parent
    if branch.children:
        _wait(pool, branch, of)
    return line(row), False
