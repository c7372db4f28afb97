"""A believable shop out of a seed: the same seed and anchor give the same shop, down to every cent.

Three years of trade that grows, a busy last three days, guests, refunds, edits, cancellations, several
currencies, deleted products and the strings of texts.AWKWARD. Random draws are few and cheap: 20,000
orders must be there in a blink.
"""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

import gc

from msgspec.structs import replace

from sandbox import clock
from sandbox.draw import Draw
from sandbox.model import Order
from sandbox.people import make_customer
from sandbox.sales import make_order
from sandbox.shelves import make_product
from sandbox.store import ALL_SCOPES, Store

HISTORY = 3 * 365 * clock.DAY
RECENT = 3 * clock.DAY
RECENT_ORDERS = 60  # the least a demo needs in its last three days
DELETED_PRODUCTS = 0.03
GUESTS = 0.12


def generate(
    shop: str,
    orders: int,
    seed: int = 7,
    currency: str = "USD",
    *,
    customers: int | None = None,
    products: int | None = None,
    anchor: int | None = None,
    scopes: tuple[str, ...] = ALL_SCOPES,
) -> Store:
    store = Store({}, {}, {}, {}, currency, "America/New_York", shop, seed=seed, scopes=scopes)
    store.nanoseconds = clock.running_clock(anchor)
    store.name = shop.removesuffix(".myshopify.com").replace("-", " ").title()
    end = store.now()
    store.created_at = end - HISTORY - 30 * clock.DAY
    gc.disable()  # nothing made here is garbage; scanning it over and over is half the time
    try:
        draw = Draw((seed, orders, currency))
        _stock(store, draw, max(5, orders // 40) if products is None else products, end)
        _people(store, draw, orders * 2 // 5 if customers is None else customers, end)
        _trade(store, draw, orders, end)
    finally:
        gc.enable()
    return store


def _stock(store: Store, draw: Draw, count: int, end: int) -> None:
    for number in range(count):
        make_product(
            store, draw, store.created_at + int(draw.random() * (end - store.created_at) * 0.9), number, end
        )


def _people(store: Store, draw: Draw, count: int, end: int) -> None:
    for at in sorted(end - int(draw.random() * HISTORY) for _ in range(count)):
        make_customer(store, draw, at, end)


def _moments(draw: Draw, count: int, end: int) -> list[int]:
    """Trade grows: later days hold more orders; the last three hold at least what a demo needs."""
    recent = min(count // 2 if count < 2 * RECENT_ORDERS else max(RECENT_ORDERS, count // 200), count)
    old = [end - RECENT - int((1 - draw.random() ** 0.6) * (HISTORY - RECENT)) for _ in range(count - recent)]
    return sorted(old + [end - 60 - int(draw.random() * (RECENT - 60)) for _ in range(recent)])


def _trade(store: Store, draw: Draw, count: int, end: int) -> None:
    # Products that were sold and then deleted: their lines keep the title and lose the product.
    doomed = (
        {id_ for id_ in store.products if draw.random() < DELETED_PRODUCTS}
        if len(store.products) > 5
        else set()
    )
    variants, people = list(store.variants.values()), list(store.customers.values())
    orders = store.orders
    for number, at in enumerate(_moments(draw, count, end), 1001):
        customer = None if not people or draw.random() < GUESTS else draw.pick(people)
        order = make_order(store, draw, number, at, end, customer, variants)
        orders[order.id] = order
    for id_ in doomed:
        for variant_id in store.products.pop(id_).variant_ids:
            del store.variants[variant_id]
    _tally(store)


def counted(order: Order) -> bool:
    """Test orders do not count for a customer; every other one does, cancelled or not."""
    return not order.test


def tally_of(orders: "list[Order]") -> tuple[int, int, int | None]:
    """What a customer's orders make of them: number, amount spent (received - refunded), last order."""
    kept = [order for order in orders if counted(order)]
    last = max(kept, key=lambda order: (order.created_at, order.id)).id if kept else None
    return len(kept), sum(order.received - order.refunded for order in kept), last


def _tally(store: Store) -> None:
    by_customer: dict[int, list[Order]] = {}
    for order in store.orders.values():
        store.sold.update(line.product_id for line in order.lines if line.product_id)
        if order.customer_id:
            by_customer.setdefault(order.customer_id, []).append(order)
    for id_, orders in by_customer.items():
        number, spent, last = tally_of(orders)
        customer = store.customers[id_]
        touched = max([customer.updated_at, *[order.updated_at for order in orders]])
        store.customers[id_] = replace(
            customer, number_of_orders=number, amount_spent=spent, last_order_id=last, updated_at=touched
        )
