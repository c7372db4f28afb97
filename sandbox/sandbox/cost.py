"""What a query costs, and the bucket it is paid from.

Fitted to captured responses (exact for about 4 in 5): scalars, PageInfo, money and addresses 0, an object
1, a root count 10, a mutation 10 (its payload's own objects free), a connection 2 + f(n) * (1 + child)
with f(n) = max(1, floor(2 ln n)). The actual cost is the same sum over what came back.
"""

import math
import time
from typing import TYPE_CHECKING, Any

from graphql import GraphQLObjectType, SelectionSetNode, get_named_type, is_leaf_type
from msgspec import Struct

from sandbox.context import JSON

if TYPE_CHECKING:
    from sandbox.compile import Compiler

SINGLE_QUERY_LIMIT = 1000
MUTATION = 10
ROOT_COUNT = 10
_FREE = {"MoneyBag", "MoneyV2", "MailingAddress", "SelectedOption", "PageInfo", "Count"}
_DOCUMENTATION = "https://shopify.dev/api/usage/rate-limits"


class Plan(Struct):
    """The cost of one field: `own` if it is there, `children` below it, `size` asked of a connection."""

    key: str
    own: int
    children: list["Plan"]
    size: int | None = None

    def requested(self) -> int:
        below = sum([child.requested() for child in self.children])
        return self.own + below if self.size is None else 2 + steps(self.size) * (1 + below)

    def actual(self, value: Any) -> int:  # Any: the answer, part by part
        if value is None:
            return 2 if self.size is not None else 0
        if isinstance(value, list):
            return max((self.actual(item) for item in value), default=0)
        if self.size is None:
            return self.own + self.below(value)
        edges = next((found for found in value.values() if isinstance(found, list)), [])
        nodes = [edge.get("node", edge) for edge in edges if edge] if self.children else []
        # An empty page costs as much as one object (captured).
        return 2 + steps(max(1, len(edges))) * (1 + max((self.below(node) for node in nodes), default=0))

    def below(self, node: JSON) -> int:
        return sum([child.actual(node.get(child.key)) for child in self.children])


def steps(size: int) -> int:
    return 0 if size <= 0 else max(1, math.floor(2 * math.log(size)))


def plan(
    compiler: "Compiler", root: GraphQLObjectType, selection: SelectionSetNode, *, mutation: bool
) -> Plan:
    children = []
    for field in _plans(compiler, root, [selection], root=True):
        if mutation:
            field.own = MUTATION
            for payload in field.children:
                payload.own = 0
        children.append(field)
    return Plan("data", 0, children)


def _plans(
    compiler: "Compiler", kind: GraphQLObjectType, selections: list[SelectionSetNode], *, root: bool = False
) -> list[Plan]:
    plans = []
    for key, nodes in compiler.fields(kind, *selections).items():
        name = nodes[0].name.value
        if name == "__typename":
            continue
        named = get_named_type(kind.fields[name].type)
        if is_leaf_type(named):
            continue
        inner = [node.selection_set for node in nodes if node.selection_set]
        if not isinstance(named, GraphQLObjectType):
            plans.append(Plan(key, 1, []))
        elif named.name.endswith("Connection"):
            args = compiler.arguments(kind.fields[name], nodes[0])
            size = args.get("first") if args.get("first") is not None else args.get("last")
            plans.append(Plan(key, 2, _node_plans(compiler, named, inner), size or 0))
        elif root and named.name == "Count":
            plans.append(Plan(key, ROOT_COUNT, []))
        else:
            plans.append(Plan(key, 0 if named.name in _FREE else 1, _plans(compiler, named, inner)))
    return plans


def _node_plans(
    compiler: "Compiler", kind: GraphQLObjectType, selections: list[SelectionSetNode]
) -> list[Plan]:
    """Edges and nodes cost nothing themselves: what a connection costs is below its nodes."""
    plans: list[Plan] = []
    for nodes in compiler.fields(kind, *selections).values():
        name = nodes[0].name.value
        inner = [node.selection_set for node in nodes if node.selection_set]
        named = get_named_type(kind.fields[name].type) if name != "__typename" else None
        if name in {"nodes", "node"} and isinstance(named, GraphQLObjectType):
            plans += _plans(compiler, named, inner)
        elif name == "edges" and isinstance(named, GraphQLObjectType):
            plans += _node_plans(compiler, named, inner)
    return plans


class Bucket:
    """Leaks `rate` points a second; one per app and shop."""

    def __init__(self, size: float, rate: float) -> None:
        self.size, self.rate = size, rate
        self.level, self.at = size, time.monotonic()

    def available(self) -> float:
        now = time.monotonic()
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now
        return self.level

    def take(self, points: float) -> None:
        self.level = max(0.0, self.available() - points)

    def status(self) -> JSON:
        return {
            "maximumAvailable": float(self.size),
            "currentlyAvailable": int(self.available()),
            "restoreRate": float(self.rate),
        }


def throttled(requested: int, bucket: Bucket) -> JSON:
    return {
        "errors": [
            {"message": "Throttled", "extensions": {"code": "THROTTLED", "documentation": _DOCUMENTATION}}
        ],
        "extensions": {
            "cost": {
                "requestedQueryCost": requested,
                "actualQueryCost": None,
                "throttleStatus": bucket.status(),
            }
        },
    }


def too_expensive(requested: int, bucket: Bucket) -> JSON:
    message = (
        f"Query cost is {requested}, which exceeds the single query max cost limit "
        f"({SINGLE_QUERY_LIMIT}).\n\n"
        "See https://shopify.dev/concepts/about-apis/rate-limits for more information on how the\n"
        "cost of a query is calculated.\n\n"
        "To query larger amounts of data with fewer limits, bulk operations should be used.\n"
    )
    extensions = {
        "code": "MAX_COST_EXCEEDED",
        "cost": requested,
        "maxCost": SINGLE_QUERY_LIMIT,
        "documentation": _DOCUMENTATION,
    }
    cost = {"requestedQueryCost": requested, "actualQueryCost": None, "throttleStatus": bucket.status()}
    return {"errors": [{"message": message, "extensions": extensions}], "extensions": {"cost": cost}}
