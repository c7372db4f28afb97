"""Every type the sandbox serves with every field it can answer. The shipped schema is cut to exactly this."""

from sandbox.fields_app import APP, MUTATION
from sandbox.fields_catalog import CATALOG
from sandbox.fields_order import ORDERS
from sandbox.resolve import MONEY, Table
from sandbox.roots import QUERY

TABLES: dict[str, Table] = {**APP, **CATALOG, **ORDERS, **MONEY, "QueryRoot": QUERY, "Mutation": MUTATION}
# Connections, their edges and PageInfo are the executor's own: all of them look the same.
CONNECTION_FIELDS = ("edges", "nodes", "pageInfo")
EDGE_FIELDS = ("cursor", "node")
PAGE_INFO = ("endCursor", "hasNextPage", "hasPreviousPage", "startCursor")
INTERFACES = ("Node", "LegacyInteroperability", "DisplayableError")
