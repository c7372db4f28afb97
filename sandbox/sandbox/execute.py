"""One GraphQL request: check, price, run its root fields in order, and answer in Shopify's shape."""

import re
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLNonNull,
    GraphQLObjectType,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
)
from graphql.execution.values import VariableValues, get_variable_values

from sandbox import cost
from sandbox.compile import Compiler
from sandbox.context import JSON, Context, DocumentError, FieldError
from sandbox.schema import load, operation, schema

_GID = re.compile(r"gid://[\w-]+/\w+/[^\s]+")


class Request:
    """A checked document with its variables, ready to be priced and run."""

    def __init__(self, text: str, variables: JSON | None, name: str | None) -> None:
        self.document = load(text)
        self.operation = operation(self.document, name)
        self.values = _variables(self.operation, variables or {})
        self.variables: JSON = self.values.coerced
        self.fragments = {
            node.name.value: node
            for node in self.document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        root = schema().mutation_type if self.is_mutation else schema().query_type
        assert isinstance(root, GraphQLObjectType)  # noqa: S101  the shipped schema has both
        self.root = root

    @property
    def is_mutation(self) -> bool:
        return self.operation.operation is OperationType.MUTATION

    @property
    def name(self) -> str:
        return self.operation.name.value if self.operation.name else ""

    def compiler(self, context: Context) -> Compiler:
        return Compiler(self.fragments, self.values, context)

    def price(self, context: Context) -> cost.Plan:
        return cost.plan(
            self.compiler(context), self.root, self.operation.selection_set, mutation=self.is_mutation
        )


def execute(request: Request, context: Context) -> JSON:
    """{"data": ..., "errors": ...}; a failed non-null root field makes all data null."""
    compiler, data, dead = request.compiler(context), {}, False
    for key, nodes in compiler.fields(request.root, request.operation.selection_set).items():
        _check_ids(request, nodes[0])
        try:
            data[key] = compiler.field(request.root, nodes)(None)
        except FieldError as error:
            data[key] = None
            name = nodes[0].name.value
            dead = dead or isinstance(request.root.fields[name].type, GraphQLNonNull)
            context.errors.append(
                {
                    "message": str(error),
                    "locations": _where(nodes[0]),
                    "extensions": error.extensions,
                    "path": [key],
                }
            )
    answer: JSON = {"errors": context.errors} if context.errors else {}
    answer["data"] = None if dead else data
    return answer


def _where(node: FieldNode) -> list[JSON]:
    if node.loc is None:
        return []
    token = node.loc.start_token
    return [{"line": token.line, "column": token.column}]


def _variables(node: OperationDefinitionNode, given: JSON) -> VariableValues:
    found = get_variable_values(schema(), node.variable_definitions or (), given)
    if isinstance(found, VariableValues):
        return found
    raise DocumentError(*(_invalid(error, given) for error in found))


def _invalid(error: GraphQLError, given: JSON) -> JSON:
    name = match[1] if (match := re.match(r"Variable '\$(\w+)'", error.message)) else ""
    kind = ""
    if error.nodes and error.nodes[0].loc:
        source = error.nodes[0].loc.source.body[error.nodes[0].loc.start : error.nodes[0].loc.end]
        kind = source.partition(":")[2].partition("=")[0].strip()
    value: Any = given.get(name)  # Any: whatever the client sent
    why = "Expected value to not be null" if value is None else error.message
    return {
        "message": f"Variable ${name} of type {kind} was provided invalid value",
        "locations": [{"line": at.line, "column": at.column} for at in error.locations or ()],
        "extensions": {
            "code": "INVALID_VARIABLE",
            "value": value,
            "problems": [{"path": [], "explanation": why}],
        },
    }


def _check_ids(request: Request, node: FieldNode) -> None:
    """A malformed gid refuses the whole document, in two ways: written in it, or given as a variable."""
    for argument in node.arguments or ():
        if argument.name.value != "id":
            continue
        if isinstance(argument.value, StringValueNode):
            if not _GID.fullmatch(argument.value.value):
                where = [f"query {request.name}" if request.name else "query", node.name.value, "id"]
                raise DocumentError(
                    {
                        "message": f"Invalid global id '{argument.value.value}'",
                        "locations": _where(node),
                        "path": where,
                        "extensions": {"code": "argumentLiteralsIncompatible", "typeName": "CoercionError"},
                    }
                )
            continue
        name = getattr(argument.value, "name", None)
        value = request.variables.get(name.value) if name else None
        if value is not None and name and not _GID.fullmatch(str(value)):
            problem = {
                "path": [],
                "explanation": f"Invalid global id '{value}'",
                "message": f"Invalid global id '{value}'",
            }
            raise DocumentError(
                {
                    "message": f"Variable ${name.value} of type ID! was provided invalid value",
                    "locations": [{"line": 1, "column": 1}],
                    "extensions": {"code": "INVALID_VARIABLE", "value": value, "problems": [problem]},
                }
            )
