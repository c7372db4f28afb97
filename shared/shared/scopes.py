"""What a token may read. Pure.

Shopify grants scopes one by one, and takes what is not granted out of its answers or denies it. So nothing is
asked for that is not granted, and what a scope opens later is loaded then.
"""

from __future__ import annotations

from collections.abc import Collection

from shared.events import Resource

RESOURCES: tuple[Resource, ...] = ("orders", "customers", "products")
SCOPE_OF: dict[Resource, str] = {
    "orders": "read_orders",
    "customers": "read_customers",
    "products": "read_products",
}
ALL_ORDERS = "read_all_orders"  # without it Shopify shows the orders of the last 60 days, and says nothing
VISIBLE_DAYS = 60


def readable(scopes: Collection[str]) -> tuple[Resource, ...]:
    """The resources that may be read."""
    return tuple(resource for resource in RESOURCES if SCOPE_OF[resource] in scopes)


def lacking(scopes: Collection[str]) -> list[str]:
    """The scopes that would show more of the orders: older ones, or whose and of what they are."""
    return [scope for scope in (ALL_ORDERS, *SCOPE_OF.values()) if scope not in scopes]
