"""One shop in memory: what it holds, who may read it, and what time it is there.

`View` is what queries read. A snapshot is a View over copied dicts, which is whole because objects are
frozen (model.py).
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandbox import clock, money
from sandbox.model import Customer, Order, Product, Variant

ALL_SCOPES = ("read_all_orders", "read_customers", "read_inventory", "read_orders", "read_products")
# Real ids of one kind step by about this much, and kinds do not share a range.
ID_STEP = 32_768
ID_BASE = {
    "Order": 5_612_000_000_000,
    "LineItem": 14_310_000_000_000,
    "Refund": 930_100_000_000,
    "RefundLineItem": 604_500_000_000,
    "OrderTransaction": 6_870_000_000_000,
    "ShippingLine": 4_720_000_000_000,
    "Customer": 7_405_000_000_000,
    "MailingAddress": 8_900_000_000_000,
    "Product": 8_143_000_000_000,
    "ProductVariant": 44_200_000_000_000,
    "InventoryItem": 46_300_000_000_000,
    "BulkOperation": 7_749_000_000_000,
    "WebhookSubscription": 1_927_000_000_000,
}


@dataclass
class View:
    orders: dict[int, Order]
    customers: dict[int, Customer]
    products: dict[int, Product]
    variants: dict[int, Variant]
    currency: str
    zone: str
    shop: str

    @property
    def places(self) -> int:
        return money.decimals(self.currency)


@dataclass
class Changed:
    """What an object was before its last change: searches see that until the index catches up."""

    at: float
    before: object | None


@dataclass
class Store(View):
    seed: int = 7
    name: str = "Demo Store"
    email: str = "owner@example.com"
    created_at: int = 0
    scopes: tuple[str, ...] = ALL_SCOPES
    nanoseconds: Callable[[], int] = time.time_ns
    index_lag: float = 0.0
    version: int = 0
    shop_id: int = 548_380_009
    recent: dict[tuple[str, int], Changed] = field(default_factory=dict)
    sold: set[int] = field(default_factory=set)
    ids: dict[str, Iterator[int]] = field(default_factory=lambda: defaultdict(itertools.count))

    def __post_init__(self) -> None:
        for kind, base in ID_BASE.items():
            self.ids[kind] = itertools.count(base + self.seed % 1000, ID_STEP)

    def now(self) -> int:
        return self.nanoseconds() // clock.SECOND

    def next_id(self, kind: str) -> int:
        return next(self.ids[kind])

    def snapshot(self) -> View:
        return View(
            dict(self.orders),
            dict(self.customers),
            dict(self.products),
            dict(self.variants),
            self.currency,
            self.zone,
            self.shop,
        )
