"""A shop with people in it: random changes, mostly sales, each with its webhooks.

Only products nobody bought and customers without orders are deleted, as staff do; so a copy that missed
nothing equals the truth, row by row.
"""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandbox import changes, texts
from sandbox.context import JSON
from sandbox.draw import Draw

if TYPE_CHECKING:
    from sandbox.site import Site
    from sandbox.world import World

RECENT = 400  # staff work on what came in lately
TICK = 0.2
Action = Callable[["Site", Draw], object]


def _order(site: "Site", draw: Draw) -> int:
    return draw.pick(list(site.store.orders)[-RECENT:])


def _note(site: "Site", draw: Draw) -> None:
    note = draw.text(draw.pick(texts.NOTES), 0.3)
    changes.update_order(site, _order(site, draw), {"note": note, "tags": draw.tags()})


def _fulfill(site: "Site", draw: Draw) -> None:
    closed = draw.random() < 0.5
    changes.update_order(site, _order(site, draw), {"fulfilled": True, "paid": True, "closed": closed})


def _refund(site: "Site", draw: Draw) -> None:
    order = site.store.orders[_order(site, draw)]
    rows = [{"line_item_id": line.id, "quantity": 1} for line in order.lines if line.current_quantity][:1]
    partly: JSON = {"lines": rows, "restock_type": "RETURN"}
    changes.refund_order(site, order.id, partly if rows and draw.random() < 0.7 else {})


def _cancel(site: "Site", draw: Draw) -> None:
    changes.cancel_order(site, _order(site, draw), {"reason": draw.pick(("CUSTOMER", "INVENTORY", "OTHER"))})


def _reprice(site: "Site", draw: Draw) -> None:
    body = {"tags": draw.tags(), "variant": {"price": str(draw.between(3, 300))}}
    changes.update_product(site, draw.pick(list(site.store.products)), body)


def _variants(site: "Site", draw: Draw) -> None:
    product = site.store.products[draw.pick(list(site.store.products))]
    changes.change_variants(site, product.id, {"add": 1, "remove": product.variant_ids[1:2]}, draw)


def _drop_product(site: "Site", draw: Draw) -> None:
    unsold = [id_ for id_ in list(site.store.products)[-RECENT:] if id_ not in site.store.sold]
    changes.delete_product(site, draw.pick(unsold), {})


def _drop_customer(site: "Site", draw: Draw) -> None:
    idle = [id_ for id_, customer in site.store.customers.items() if not customer.number_of_orders][-RECENT:]
    changes.delete_customer(site, draw.pick(idle), {})


def _greet(site: "Site", draw: Draw) -> None:
    body = {"tags": draw.tags(), "note": draw.text("Nice")}
    changes.update_customer(site, draw.pick(list(site.store.customers)), body)


ACTIONS: dict[str, tuple[int, Action]] = {
    "create_order": (40, lambda site, draw: changes.create_order(site, {}, draw)),
    "update_order": (14, _note),
    "fulfill_order": (8, _fulfill),
    "refund_order": (9, _refund),
    "cancel_order": (5, _cancel),
    "edit_order": (5, lambda site, draw: changes.edit_order(site, _order(site, draw), {"quantity": 0})),
    "delete_order": (2, lambda site, draw: changes.delete_order(site, _order(site, draw), {})),
    "update_product": (6, _reprice),
    "change_variants": (2, _variants),
    "create_product": (2, lambda site, draw: changes.create_product(site, {}, draw)),
    "delete_product": (1, _drop_product),
    "update_customer": (4, _greet),
    "create_customer": (2, lambda site, draw: changes.create_customer(site, {}, draw)),
    "delete_customer": (1, _drop_customer),
}
_WHEEL = tuple(name for name, (weight, _) in ACTIONS.items() for _ in range(weight))


def act(site: "Site", draw: Draw) -> str:
    """One change; what turns out to be impossible becomes a sale."""
    name = draw.pick(_WHEEL)
    try:
        ACTIONS[name][1](site, draw)
    except (changes.ImpossibleError, changes.MissingError, IndexError):
        name = "create_order"
        ACTIONS[name][1](site, draw)
    return name


async def burst(site: "Site", per_second: float, seconds: float, seed: int) -> dict[str, int]:
    """per_second * seconds changes, evenly spread, and what they were."""
    draw, done = Draw(("traffic", seed)), Counter[str]()
    began = time.monotonic()
    for index in range(int(per_second * seconds)):
        ahead = index / per_second - (time.monotonic() - began)
        await asyncio.sleep(max(0.0, ahead))
        done[act(site, draw)] += 1
    return dict(done)


async def trade(world: "World") -> None:
    """Keeps every shop with `live_orders_per_minute` alive until it is cancelled."""
    owed: dict[str, float] = {}
    draw = Draw(("live", world.settings.seed))
    while True:
        await asyncio.sleep(TICK)
        for shop, site in list(world.sites.items()):
            pace = site.settings.live_orders_per_minute
            owed[shop] = owed.get(shop, 0.0) + pace * TICK / 60 * (0.4 + 1.2 * draw.random())
            while owed[shop] >= 1:
                owed[shop] -= 1
                act(site, draw)
