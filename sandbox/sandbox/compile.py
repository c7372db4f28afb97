"""Turns a selection set into functions: document -> plan once, then plan(object) -> dict for every row.

graphql-core parses, checks and coerces; its executor would be thirty times too slow for a bulk file. Here
every field becomes one function of the object it is read from, with arguments, fragments and directives
settled beforehand.
"""

from collections.abc import Callable, Iterator
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLIncludeDirective,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSkipDirective,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
    is_leaf_type,
)
from graphql.execution.values import VariableValues, get_argument_values, get_directive_values

from sandbox import money
from sandbox.context import JSON, Context, FieldError
from sandbox.paging import Listing, Page, cursor, in_order, page
from sandbox.resolve import Read
from sandbox.schema import schema
from sandbox.tables import TABLES

Row = dict[str, Any]  # Any: one answer object, ready for JSON
Project = Callable[[Any], Row]
NEEDED = {
    "Customer": "read_customers",
    "CustomerConnection": "read_customers",
    "InventoryItem": "read_products",
    "LineItem": "read_orders",
    "LineItemConnection": "read_orders",
    "Order": "read_orders",
    "OrderConnection": "read_orders",
    "Product": "read_products",
    "ProductConnection": "read_products",
    "ProductVariant": "read_products",
    "ProductVariantConnection": "read_products",
    "Refund": "read_orders",
}
NEEDED_BY_FIELD = {
    "customersCount": "read_customers",
    "ordersCount": "read_orders",
    "productVariantsCount": "read_products",
    "productsCount": "read_products",
}


class Compiler:
    def __init__(
        self, fragments: dict[str, FragmentDefinitionNode], variables: VariableValues, context: Context
    ) -> None:
        self.fragments, self.variables, self.context = fragments, variables, context

    def fields(self, kind: GraphQLObjectType, *selections: SelectionSetNode) -> dict[str, list[FieldNode]]:
        """Response key -> field nodes that are to be merged, fragments flattened, directives applied."""
        found: dict[str, list[FieldNode]] = {}
        for selection in selections:
            for node in self._flat(kind, selection):
                found.setdefault((node.alias or node.name).value, []).append(node)
        return found

    def _flat(self, kind: GraphQLObjectType, selection: SelectionSetNode) -> Iterator[FieldNode]:
        for node in selection.selections:
            if not self._wanted(node):
                continue
            if isinstance(node, FieldNode):
                yield node
                continue
            if isinstance(node, FragmentSpreadNode):
                inner: FragmentDefinitionNode | InlineFragmentNode = self.fragments[node.name.value]
            else:
                assert isinstance(node, InlineFragmentNode)  # noqa: S101  the grammar knows no fourth kind
                inner = node
            on = inner.type_condition.name.value if inner.type_condition else kind.name
            if on == kind.name or any(interface.name == on for interface in kind.interfaces):
                yield from self._flat(kind, inner.selection_set)

    def _wanted(self, node: Any) -> bool:  # any selection node
        if not node.directives:
            return True
        skip = get_directive_values(GraphQLSkipDirective, node, self.variables)
        include = get_directive_values(GraphQLIncludeDirective, node, self.variables)
        return not (skip and skip["if"]) and not (include and not include["if"])

    def project(self, kind: GraphQLObjectType, *selections: SelectionSetNode) -> Project:
        """The function that reads one object of this type."""
        if kind.name == "MoneyBag" and (quick := self._plain_bag(kind, *selections)):
            return quick
        parts = [(key, self.field(kind, nodes)) for key, nodes in self.fields(kind, *selections).items()]
        return lambda of: {key: part(of) for key, part in parts}

    def _plain_bag(self, kind: GraphQLObjectType, *selections: SelectionSetNode) -> Project | None:
        """`{ shopMoney { amount currencyCode } }` stands a dozen times in every order: made in one step."""
        outer = self.fields(kind, *selections)
        if list(outer) != ["shopMoney"] or outer["shopMoney"][0].name.value != "shopMoney":
            return None
        below = outer["shopMoney"][0].selection_set
        inner = [
            node.name.value
            for node in (below.selections if below else ())
            if isinstance(node, FieldNode) and not node.alias and not node.directives
        ]
        if inner != ["amount", "currencyCode"] or len(outer["shopMoney"]) > 1:
            return None
        currency, places, amount = self.context.view.currency, self.context.view.places, money.trimmed
        return lambda bag: {"shopMoney": {"amount": amount(bag[0], places), "currencyCode": currency}}

    def arguments(self, field: GraphQLField, node: FieldNode) -> JSON:
        return get_argument_values(field, node, self.variables)

    def field(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Read:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda _: kind.name
        field = kind.fields[name]
        if denied := self.denied(name, field, nodes[0]):
            return denied
        get = TABLES[kind.name][name](self.arguments(field, nodes[0]), self.context)
        named = get_named_type(field.type)
        if is_leaf_type(named):
            return get
        inner = [node.selection_set for node in nodes if node.selection_set]
        if isinstance(named, GraphQLInterfaceType):
            return self.behind_interface(field, get, inner)
        assert isinstance(named, GraphQLObjectType)  # noqa: S101
        if named.name.endswith("Connection"):
            return self.connection(named, get, self.arguments(field, nodes[0]), inner)
        return _mapped(get, self.project(named, *inner), is_list=_is_list(field))

    def denied(self, name: str, field: GraphQLField, node: FieldNode) -> Read | None:
        scope = NEEDED_BY_FIELD.get(name) or NEEDED.get(get_named_type(field.type).name)
        if scope is None or scope in self.context.scopes:
            return None
        access = f"`{scope}` access scope."
        error = FieldError(
            f"Access denied for {name} field. Required access: {access}",
            "ACCESS_DENIED",
            documentation="https://shopify.dev/api/usage/access-scopes",
            requiredAccess=access,
        )
        told: list[bool] = []

        def refuse(of: object) -> None:
            if of is None:  # a root field: its error is reported with its own path
                raise error
            if not told:
                told.append(True)
                where = (
                    [{"line": at.line, "column": at.column} for at in [node.loc.start_token] if node.loc]
                    if node.loc
                    else []
                )
                self.context.errors.append(
                    {
                        "message": str(error),
                        "locations": where,
                        "extensions": error.extensions,
                        "path": [name],
                    }
                )

        return refuse

    def behind_interface(self, field: GraphQLField, get: Read, inner: list[SelectionSetNode]) -> Read:
        """`node(id)`: which type it is shows only when it is read."""
        known: dict[str, Project] = {}

        def project(typed: tuple[str, object]) -> Row:
            name, of = typed
            if name not in known:
                kind = schema().type_map[name]
                assert isinstance(kind, GraphQLObjectType)  # noqa: S101
                known[name] = self.project(kind, *inner)
            return known[name](of)

        return _mapped(get, project, is_list=_is_list(field))

    def connection(
        self, kind: GraphQLObjectType, get: Read, args: JSON, inner: list[SelectionSetNode]
    ) -> Read:
        parts = [
            (key, self._connection_part(kind, nodes)) for key, nodes in self.fields(kind, *inner).items()
        ]

        def read(of: object) -> Row:
            found = get(of)
            shown = page(found if isinstance(found, Listing) else in_order(found), args)
            return {key: part(shown) for key, part in parts}

        return read

    def _connection_part(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Callable[[Page], Any]:
        name = nodes[0].name.value
        inner = [node.selection_set for node in nodes if node.selection_set]
        if name == "__typename":
            return lambda _: kind.name
        named = get_named_type(kind.fields[name].type)
        assert isinstance(named, GraphQLObjectType)  # noqa: S101
        if name == "pageInfo":
            wanted = [(key, each[0].name.value) for key, each in self.fields(named, *inner).items()]
            return lambda page: {key: {**page.info(), "__typename": "PageInfo"}[name] for key, name in wanted}
        if name == "nodes":
            project = self.project(named, *inner)
            return lambda page: [project(item) for item in page.items]
        parts = [(key, self._edge_part(named, each)) for key, each in self.fields(named, *inner).items()]
        return lambda page: [
            {key: part(item, at) for key, part in parts}
            for item, at in zip(page.items, page.keys, strict=True)
        ]

    def _edge_part(self, kind: GraphQLObjectType, nodes: list[FieldNode]) -> Callable[[Any, Any], Any]:
        name = nodes[0].name.value
        if name == "cursor":
            return lambda _item, at: cursor(at)
        if name == "__typename":
            return lambda _item, _at: kind.name
        named = get_named_type(kind.fields["node"].type)
        assert isinstance(named, GraphQLObjectType)  # noqa: S101
        project = self.project(named, *[node.selection_set for node in nodes if node.selection_set])
        return lambda item, _at: project(item)


def _mapped(get: Read, project: Callable[[Any], Any], *, is_list: bool) -> Read:
    if is_list:
        return lambda of: (
            None if (found := get(of)) is None else [None if x is None else project(x) for x in found]
        )
    return lambda of: None if (found := get(of)) is None else project(found)


def _is_list(field: GraphQLField) -> bool:
    kind = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    return isinstance(kind, GraphQLList)
