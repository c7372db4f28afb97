"""Documents against the shipped schema: parse, check, and refuse in Shopify's words.

The schema is cut from Shopify's published Admin schema (trim_schema.py). Refusals carry a code in
`extensions` and never `extensions.cost`.
"""

import re
from functools import cache, lru_cache
from pathlib import Path

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    Node,
    OperationDefinitionNode,
    build_schema,
    parse,
    validate,
)

from sandbox.context import JSON, DocumentError

PATH = Path(__file__).with_name("schema.graphql")
# graphql-core's message -> Shopify's, with its code; the groups fill both.
_REFUSALS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        r"Cannot query field '(\w+)' on type '(\w+)'",
        "Field '{0}' doesn't exist on type '{1}'",
        "undefinedField",
        ("fieldName", "typeName"),
    ),
    (
        r"Unknown argument '(\w+)' on field '\w+\.(\w+)'",
        "Field '{1}' doesn't accept argument '{0}'",
        "argumentNotAccepted",
        ("argumentName", "name"),
    ),
    (
        r"Field '(\w+)' argument '(\w+)' of type .* is required",
        "Field '{0}' is missing required arguments: {1}",
        "missingRequiredArguments",
        ("name", "arguments"),
    ),
    (
        r"Field '(\w+)' of type '(.+?)' must have a selection",
        (
            "Field must have selections (field '{0}' returns {1} but has no selections. "
            "Did you mean '{0} {{ ... }}'?)"
        ),
        "selectionMismatch",
        ("nodeName", "typeName"),
    ),
    (
        r"Field '(\w+)' must not have a selection since type '(.+?)'",
        "Selections can't be made on scalars (field '{0}' returns {1} but has selections)",
        "selectionMismatch",
        ("nodeName", "typeName"),
    ),
    (
        r"Variable '\$(\w+)' is not defined",
        "Variable ${0} is used but not declared",
        "variableNotDefined",
        ("variableName",),
    ),
    (
        r"Variable '\$(\w+)' is never used",
        "Variable ${0} is declared but not used",
        "variableNotUsed",
        ("variableName",),
    ),
    (
        r"Unknown fragment '(\w+)'",
        "Fragment {0} was used, but not defined",
        "useAndDefineFragment",
        ("fragmentName",),
    ),
    (
        r"Fragment '(\w+)' is never used",
        "Fragment {0} was defined, but not used",
        "useAndDefineFragment",
        ("fragmentName",),
    ),
    (
        r"Variable '\$(\w+)' of type '(.+?)' used in position expecting type '(.+?)'",
        "Type mismatch on variable ${0} and argument ({1} / {2})",
        "variableMismatch",
        ("variableName",),
    ),
)
# Shopify names these values in its own way; what graphql-core says is close enough to be read.
_OTHER = "argumentLiteralsIncompatible"


@cache
def schema() -> GraphQLSchema:
    return build_schema(PATH.read_text(encoding="utf-8"), assume_valid=True)


@lru_cache(256)
def _parsed(text: str) -> DocumentNode | GraphQLError:
    try:
        return parse(text)
    except GraphQLError as error:
        return error


@lru_cache(256)
def problems(text: str) -> tuple[GraphQLError, ...]:
    document = _parsed(text)
    return (document,) if isinstance(document, GraphQLError) else tuple(validate(schema(), document))


def load(text: str) -> DocumentNode:
    """The checked document, or DocumentError."""
    document, found = _parsed(text), problems(text)
    if isinstance(document, GraphQLError):
        raise DocumentError({"message": _syntax(document), "locations": _where(document)})
    if found:
        raise DocumentError(*(refusal(error, document) for error in found))
    return document


def operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    chosen = [node for node in operations if not name or (node.name and node.name.value == name)]
    if not operations or (not chosen and not name):
        raise DocumentError({"message": "No query string was present"})
    if not chosen:
        raise DocumentError({"message": f'No operation named "{name}"'})
    if len(chosen) > 1:
        raise DocumentError({"message": "An operation name is required"})
    return chosen[0]


def refusal(error: GraphQLError, document: DocumentNode) -> JSON:
    path = _path(document, error.nodes[0]) if error.nodes else []
    for pattern, message, code, names in _REFUSALS:
        if match := re.match(pattern, error.message):
            groups = match.groups()
            extensions = {"code": code, **dict(zip(names, groups, strict=False))}
            return {
                "message": message.format(*groups),
                "locations": _where(error),
                "path": path,
                "extensions": extensions,
            }
    extensions = {"code": _OTHER, "typeName": "CoercionError"}
    return {"message": error.message, "locations": _where(error), "path": path, "extensions": extensions}


def _syntax(error: GraphQLError) -> str:
    line = error.locations[0] if error.locations else None
    what = error.message.removeprefix("Syntax Error: ")
    if "<EOF>" in what:
        return "syntax error, unexpected end of file"
    return f"syntax error, {what} at [{line.line}, {line.column}]" if line else f"syntax error, {what}"


def _where(error: GraphQLError) -> list[JSON]:
    return [{"line": at.line, "column": at.column} for at in error.locations or ()]


def _path(document: DocumentNode, target: Node) -> list[str]:
    """From the operation to the node that is refused, as Shopify prints it."""
    for definition in document.definitions:
        found = _search(definition, target)
        if found is not None:
            return found
    return []


def _search(node: Node, target: Node) -> list[str] | None:
    here = _label(node)
    if node is target:
        return here
    for key in node.keys:
        child = getattr(node, key, None)
        for each in child if isinstance(child, (list, tuple)) else (child,):
            if isinstance(each, Node) and (found := _search(each, target)) is not None:
                return here + found
    return None


def _label(node: Node) -> list[str]:
    if isinstance(node, OperationDefinitionNode):
        return [f"{node.operation.value} {node.name.value}" if node.name else node.operation.value]
    if isinstance(node, FieldNode):
        return [(node.alias or node.name).value]
    name = getattr(node, "name", None)
    return [name.value] if node.kind in {"argument", "object_field"} and name else []
