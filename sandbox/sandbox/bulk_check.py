"""Which queries a bulk operation takes, refused in the words Shopify uses (captured userErrors).

What needs no schema is checked first, so that a query is refused for its shape even where the sandbox
lacks a field.
"""

from collections.abc import Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    parse,
)

from sandbox.context import DocumentError
from sandbox.schema import load, schema

MAX_BYTES = 65_535
MAX_CONNECTIONS = 5
MAX_DEPTH = 2
_Fragments = dict[str, FragmentDefinitionNode]


def problems(text: str) -> list[str]:
    size = len(text.encode())
    if size > MAX_BYTES:
        return [f"Query is too large ({size} bytes; maximum is {MAX_BYTES} bytes)"]
    try:
        document = parse(text)
    except GraphQLError as error:
        what = (
            "unexpected end of file"
            if "<EOF>" in error.message
            else error.message.removeprefix("Syntax Error: ")
        )
        return [f"Invalid bulk query: syntax error, {what}"]
    operation = next(
        (node for node in document.definitions if isinstance(node, OperationDefinitionNode)), None
    )
    if operation is None:
        return ["Invalid bulk query: syntax error, unexpected end of file"]
    if operation.operation is not OperationType.QUERY:
        return ["Invalid operation type. Only `query` operations are supported."]
    return _shape(operation, _fragments(document)) or _against_schema(text, operation, _fragments(document))


def _fragments(document: DocumentNode) -> _Fragments:
    return {
        node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
    }


def _fields(selection: SelectionSetNode | None, fragments: _Fragments) -> Iterator[FieldNode]:
    for node in selection.selections if selection else ():
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            yield from _fields(node.selection_set, fragments)
        elif isinstance(node, FragmentSpreadNode) and node.name.value in fragments:
            yield from _fields(fragments[node.name.value].selection_set, fragments)


def _is_connection(node: FieldNode, fragments: _Fragments) -> bool:
    return any(child.name.value in {"edges", "nodes"} for child in _fields(node.selection_set, fragments))


def _connections(
    selection: SelectionSetNode | None, fragments: _Fragments, above: tuple[FieldNode, ...] = ()
) -> Iterator[tuple[FieldNode, ...]]:
    """Each connection with those it is nested in, outermost first."""
    for node in _fields(selection, fragments):
        here = (*above, node) if _is_connection(node, fragments) else above
        if here is not above:
            yield here
        yield from _connections(node.selection_set, fragments, here)


def _node_fields(node: FieldNode, fragments: _Fragments) -> list[FieldNode]:
    edges = [child for child in _fields(node.selection_set, fragments) if child.name.value == "edges"]
    nodes = [
        child
        for edge in edges
        for child in _fields(edge.selection_set, fragments)
        if child.name.value == "node"
    ]
    return [field for child in nodes for field in _fields(child.selection_set, fragments)]


def _shape(operation: OperationDefinitionNode, fragments: _Fragments) -> list[str]:
    found, roots = [], list(_fields(operation.selection_set, fragments))
    if any(node.name.value == "node" for node in roots):
        found.append("Bulk queries cannot contain a top level `node` field.")
    chains = list(_connections(operation.selection_set, fragments))
    if not chains:
        found.append("Bulk queries must contain at least one connection.")
    if len(chains) > MAX_CONNECTIONS:
        found.append(f"Bulk queries cannot contain more than {MAX_CONNECTIONS} connections.")
    if any(len(chain) - 1 > MAX_DEPTH for chain in chains):
        found.append(
            f"Bulk queries cannot contain connections with a nesting depth greater than {MAX_DEPTH}."
        )
    if wrong := [chain[-1].name.value for chain in chains if not _node_fields(chain[-1], fragments)]:
        found.append(
            "All connection fields in a bulk query must select their contents using 'edges' > 'node', e.g: "
            f"'{wrong[0]} {{ edges {{ node {{'. Selecting via 'nodes' is not supported. "
            f"Invalid connection fields: '{', '.join(wrong)}'."
        )
    elif nameless := _without_id(chains, fragments):
        found.append(
            "The parent 'node' field for a nested connection must select the 'id' field without an alias and "
            f"must be of 'ID' return type. Connection fields without 'id': {', '.join(nameless)}."
        )
    return found


def _without_id(chains: list[tuple[FieldNode, ...]], fragments: _Fragments) -> list[str]:
    parents = {chain[-2].name.value: chain[-2] for chain in chains if len(chain) > 1}
    return [
        name
        for name, node in parents.items()
        if not any(field.name.value == "id" and not field.alias for field in _node_fields(node, fragments))
    ]


def _against_schema(text: str, operation: OperationDefinitionNode, fragments: _Fragments) -> list[str]:
    try:
        load(text)
    except DocumentError as error:
        return [f"Invalid bulk query: {each['message']}" for each in error.errors]
    root = schema().query_type
    assert root is not None  # noqa: S101  the shipped schema has one
    if _connection_in_list(root, operation.selection_set, fragments, inside=False):
        return ["Queries that contain a connection field within a list field are not currently supported."]
    return []


def _connection_in_list(
    kind: GraphQLObjectType, selection: SelectionSetNode | None, fragments: _Fragments, *, inside: bool
) -> bool:
    for node in _fields(selection, fragments):
        field = kind.fields.get(node.name.value)
        named = get_named_type(field.type) if field else None
        if field is None or not isinstance(named, GraphQLObjectType):
            continue
        if named.name.endswith("Connection"):
            if inside:
                return True
            nodes = [
                f for e in _fields(node.selection_set, fragments) for f in _fields(e.selection_set, fragments)
            ]
            below = get_named_type(named.fields["nodes"].type)
            assert isinstance(below, GraphQLObjectType)  # noqa: S101
            if any(_connection_in_list(below, n.selection_set, fragments, inside=False) for n in nodes):
                return True
            continue
        bare = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        if _connection_in_list(
            named, node.selection_set, fragments, inside=inside or isinstance(bare, GraphQLList)
        ):
            return True
    return False
