"""What buyers and staff do to a shop. Each change puts new objects into the store and sends the webhooks
Shopify would.

An order moves its customer's totals (customers/update and customers/purchasing_summary) and its products'
stock (products/update), so these are changed and announced with it.
"""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

import time
from typing import Any, TypeVar

from msgspec.structs import replace

from sandbox import money, rest, sales
from sandbox.arithmetic import settle
from sandbox.context import JSON
from sandbox.draw import Draw, sorted_tags
from sandbox.generate import counted
from sandbox.model import Customer, Order, Product
from sandbox.people import make_customer
from sandbox.shelves import make_product, make_variant, option_values
from sandbox.site import Site
from sandbox.store import Changed

T = TypeVar("T")
_ORDER_FIELDS = ("note", "email", "phone", "tags", "test", "source_name")
_CUSTOMER_FIELDS = (
    "first_name",
    "last_name",
    "email",
    "phone",
    "note",
    "state",
    "verified_email",
    "tax_exempt",
    "tags",
)
_PRODUCT_FIELDS = ("title", "description_html", "vendor", "product_type", "status", "tags", "handle")
_VARIANT_FIELDS = ("sku", "barcode", "inventory_quantity", "taxable", "inventory_policy")


class MissingError(Exception):
    """There is no such object in this store."""


class ImpossibleError(Exception):
    """This cannot be done to that object."""


def _found(of: dict[int, T], id_: int, kind: str) -> T:
    if id_ not in of:
        raise MissingError(f"no {kind} {id_}")
    return of[id_]


def _put(site: Site, kind: str, table: dict[int, Any], id_: int, new: Any) -> None:  # any stored kind
    """Replaces (None: removes) an object; searches still see the old one while the index lags."""
    store = site.store
    if store.index_lag:
        store.recent[kind, id_] = Changed(time.monotonic(), table.get(id_))
    if new is None:
        table.pop(id_, None)
    else:
        table[id_] = new
    store.version += 1


def _given(body: JSON, names: tuple[str, ...]) -> JSON:
    found = {name: body[name] for name in names if name in body}
    if "tags" in found:
        found["tags"] = sorted_tags(found["tags"])
    return found


# --- orders
def create_order(site: Site, body: JSON, draw: Draw) -> int:
    """A random order, or one of {"lines": [{"variant_id", "quantity"}], "customer_id", "paid": true, ...}."""
    store, now = site.store, site.store.now()
    number = max((order.number for order in store.orders.values()), default=1000) + 1
    given = body.get("customer_id", "any")
    people = list(store.customers.values())
    customer = draw.pick(people) if given == "any" and people and draw.random() > 0.12 else None
    if isinstance(given, int):
        customer = _found(store.customers, given, "customer")
    if "lines" in body:
        lines = [
            sales.make_line(
                store,
                draw,
                _found(store.variants, row["variant_id"], "variant") if row.get("variant_id") else None,
                int(row.get("quantity", 1)),
                0.08,
                None,
            )
            for row in body["lines"]
        ]
        fated = 1.0 if body.get("paid", True) else 0.05
        order = sales.dress(
            store,
            draw,
            number,
            now,
            now,
            customer,
            sales.priced(lines, 0, included=False),
            None,
            None,
            fated,
            included=False,
            fresh=True,
        )
    else:
        order = sales.make_order(
            store, draw, number, now, now, customer, list(store.variants.values()), fresh=True
        )
    order = replace(order, **_given(body, _ORDER_FIELDS))
    _save_order(site, order, "ORDERS_CREATE")
    _sell(site, order)
    return order.id


def update_order(site: Site, id_: int, body: JSON) -> int:
    order = _found(site.store.orders, id_, "order")
    changed = replace(order, **_given(body, _ORDER_FIELDS))
    if body.get("paid") and not changed.payment:
        changed = sales.pay(site.store, changed, site.store.now())
    if body.get("fulfilled"):
        lines = tuple([replace(line, fulfilled_quantity=line.current_quantity) for line in changed.lines])
        changed = replace(changed, lines=lines)
    if body.get("closed"):
        changed = replace(changed, closed_at=site.store.now())
    _save_order(site, changed, "ORDERS_UPDATED")
    return id_


def cancel_order(site: Site, id_: int, body: JSON) -> int:
    order = _found(site.store.orders, id_, "order")
    if order.cancelled_at is not None:
        raise ImpossibleError(f"order {id_} is cancelled already")
    cancelled = sales.cancel(site.store, order, site.store.now(), str(body.get("reason", "CUSTOMER")).upper())
    _save_order(site, cancelled, "ORDERS_CANCELLED", "ORDERS_UPDATED", refund=True)
    return id_


def refund_order(site: Site, id_: int, body: JSON) -> int:
    """All, or {"lines": [{"line_item_id", "quantity"}], "shipping", "amount", "note", "restock_type"}."""
    store, order = site.store, _found(site.store.orders, id_, "order")
    if order.received <= order.refunded:
        raise ImpossibleError(f"order {id_} has nothing left to refund")
    wanted = {line.id: line.current_quantity for line in order.lines}
    if "lines" in body:
        wanted = {int(row["line_item_id"]): int(row.get("quantity", 1)) for row in body["lines"]}
    amount = money.parse(str(body["amount"]), store.places) if "amount" in body else None
    if amount is not None and "lines" not in body:
        wanted = {}
    changed = sales.refund(
        store,
        order,
        wanted,
        store.now(),
        str(body.get("restock_type", "NO_RESTOCK")).upper(),
        shipping=bool(body.get("shipping", "lines" not in body and amount is None)),
        note=body.get("note"),
        amount=amount,
    )
    _save_order(site, changed, "ORDERS_UPDATED", refund=True)
    return id_


def edit_order(site: Site, id_: int, body: JSON) -> int:
    """{"line_item_id", "quantity"}: items removed; or {"add": {"variant_id", "quantity"}}: a line added."""
    store, order = site.store, _found(site.store.orders, id_, "order")
    if "add" in body:
        row = body["add"]
        variant = _found(store.variants, row["variant_id"], "variant") if row.get("variant_id") else None
        line = sales.make_line(
            store, Draw((store.seed, order.id)), variant, int(row.get("quantity", 1)), 0.0, order.fx
        )
        changed = replace(order, lines=(*order.lines, line), edited=True)
    else:
        line_id = int(body.get("line_item_id", order.lines[0].id))
        if line_id not in {line.id for line in order.lines}:
            raise MissingError(f"no line item {line_id} in order {id_}")
        changed = sales.edit(order, line_id, int(body.get("quantity", 0)), store.now())
    _save_order(site, changed, "ORDERS_EDITED", "ORDERS_UPDATED")
    return id_


def delete_order(site: Site, id_: int, _body: JSON) -> int:
    order = _found(site.store.orders, id_, "order")
    _put(site, "orders", site.store.orders, id_, None)
    site.webhooks.emit("ORDERS_DELETE", {"id": id_})
    _retally(site, order.customer_id, order, None)
    return id_


def _save_order(site: Site, order: Order, *topics: str, refund: bool = False) -> None:
    store = site.store
    before = store.orders.get(order.id)
    order = settle(replace(order, updated_at=max(order.updated_at, store.now())))
    _put(site, "orders", store.orders, order.id, order)
    _retally(site, order.customer_id, before, order)
    payload = rest.order(store, order)
    for topic in topics:
        edited = {
            "order_edit": {
                "id": order.id + 1,
                "order_id": order.id,
                "line_items": {"additions": [], "removals": []},
            }
        }
        site.webhooks.emit(topic, edited if topic == "ORDERS_EDITED" else payload)
    if refund:
        site.webhooks.emit("REFUNDS_CREATE", rest.refund(store, order.refunds[-1], order))


def _retally(site: Site, customer_id: int | None, before: Order | None, after: Order | None) -> None:
    """The customer's totals after a change of one order."""
    store = site.store
    customer = store.customers.get(customer_id or 0)
    if customer is None:
        return
    number, spent, last = customer.number_of_orders, customer.amount_spent, customer.last_order_id
    for order, sign in ((before, -1), (after, 1)):
        if order and counted(order):
            number += sign
            spent += sign * (order.received - order.refunded)
    if after is None or before is None:
        mine = [o for o in store.orders.values() if o.customer_id == customer.id and counted(o)]
        last = max(mine, key=lambda o: (o.created_at, o.id)).id if mine else None
    if (number, spent, last) == (customer.number_of_orders, customer.amount_spent, customer.last_order_id):
        return
    changed = replace(
        customer,
        number_of_orders=number,
        amount_spent=spent,
        last_order_id=last,
        updated_at=max(customer.updated_at, store.now()),
    )
    _put(site, "customers", store.customers, customer.id, changed)
    site.webhooks.emit("CUSTOMERS_UPDATE", rest.customer(store, changed))
    site.webhooks.emit("CUSTOMERS_PURCHASING_SUMMARY", rest.purchasing_summary(store, changed))


def _sell(site: Site, order: Order) -> None:
    """Stock goes down, and the products say so."""
    store, now = site.store, site.store.now()
    touched: set[int] = set()
    for line in order.lines:
        variant = store.variants.get(line.variant_id or 0)
        if variant is None:
            continue
        store.sold.add(variant.product_id)
        left = variant.inventory_quantity - line.quantity
        _put(
            site,
            "variants",
            store.variants,
            variant.id,
            replace(variant, inventory_quantity=left, updated_at=now),
        )
        touched.add(variant.product_id)
    for id_ in sorted(touched):
        _save_product(site, store.products[id_], "PRODUCTS_UPDATE")


# --- products
def create_product(site: Site, body: JSON, draw: Draw) -> int:
    store, now = site.store, site.store.now()
    product = make_product(
        store, draw, now, len(store.products) + 1, now, title=body.get("title"), count=body.get("variants")
    )
    _save_product(site, replace(product, **_given(body, _PRODUCT_FIELDS)), "PRODUCTS_CREATE")
    return product.id


def update_product(site: Site, id_: int, body: JSON) -> int:
    """Fields, and {"variant": {"id", "price", ...}} for one of its variants."""
    store, product = site.store, _found(site.store.products, id_, "product")
    if "variant" in body:
        row = body["variant"]
        variant = _found(store.variants, int(row.get("id", product.variant_ids[0])), "variant")
        cash = {
            n: row[n] and money.parse(str(row[n]), store.places)
            for n in ("price", "compare_at_price")
            if n in row
        }
        _put(
            site,
            "variants",
            store.variants,
            variant.id,
            replace(variant, **_given(row, _VARIANT_FIELDS), **cash, updated_at=store.now()),
        )
    _save_product(site, replace(product, **_given(body, _PRODUCT_FIELDS)), "PRODUCTS_UPDATE")
    return id_


def change_variants(site: Site, id_: int, body: JSON, draw: Draw) -> int:
    """{"add": how many} and {"remove": [variant ids]}; one variant always stays."""
    store, product = site.store, _found(site.store.products, id_, "product")
    gone = {int(each) for each in body.get("remove", ())}
    kept = [each for each in product.variant_ids if each not in gone]
    if not kept:
        raise ImpossibleError("a product keeps at least one variant")
    now, names = store.now(), product.option_names
    for index in range(int(body.get("add", 0))):
        at = len(kept) + index
        options = option_values(2, at % 10)[:1] + (("One size",) if len(names) > 1 else ())
        variant = make_variant(store, draw, id_, options, at + 1, now, now)
        store.variants[variant.id] = variant
        kept.append(variant.id)
    for variant_id in gone & set(product.variant_ids):
        _put(site, "variants", store.variants, variant_id, None)
    for position, variant_id in enumerate(kept, 1):
        if store.variants[variant_id].position != position:
            moved = replace(store.variants[variant_id], position=position, updated_at=now)
            _put(site, "variants", store.variants, variant_id, moved)
    _save_product(site, replace(product, variant_ids=tuple(kept)), "PRODUCTS_UPDATE")
    return id_


def delete_product(site: Site, id_: int, _body: JSON) -> int:
    product = _found(site.store.products, id_, "product")
    for variant_id in product.variant_ids:
        _put(site, "variants", site.store.variants, variant_id, None)
    _put(site, "products", site.store.products, id_, None)
    site.webhooks.emit("PRODUCTS_DELETE", {"id": id_})
    return id_


def _save_product(site: Site, product: Product, topic: str) -> None:
    store = site.store
    variants = [store.variants[id_] for id_ in product.variant_ids]
    stock = sum(each.inventory_quantity for each in variants if each.tracked)
    changed = replace(product, total_inventory=stock, updated_at=max(product.updated_at, store.now()))
    _put(site, "products", store.products, product.id, changed)
    site.webhooks.emit(topic, rest.product(store, changed))


# --- customers
def create_customer(site: Site, body: JSON, draw: Draw) -> int:
    now = site.store.now()
    customer = replace(make_customer(site.store, draw, now, now), **_given(body, _CUSTOMER_FIELDS))
    _save_customer(site, customer, "CUSTOMERS_CREATE", set())
    return customer.id


def update_customer(site: Site, id_: int, body: JSON) -> int:
    customer = _found(site.store.customers, id_, "customer")
    _save_customer(
        site, replace(customer, **_given(body, _CUSTOMER_FIELDS)), "CUSTOMERS_UPDATE", set(customer.tags)
    )
    return id_


def delete_customer(site: Site, id_: int, _body: JSON) -> int:
    customer = _found(site.store.customers, id_, "customer")
    if customer.number_of_orders or any(order.customer_id == id_ for order in site.store.orders.values()):
        raise ImpossibleError(f"customer {id_} has orders and cannot be deleted")
    _put(site, "customers", site.store.customers, id_, None)
    gid = f"gid://shopify/Customer/{id_}"
    site.webhooks.emit("CUSTOMERS_DELETE", {"id": id_, "tax_exemptions": [], "admin_graphql_api_id": gid})
    return id_


def _save_customer(site: Site, customer: Customer, topic: str, old_tags: set[str]) -> None:
    store, tags = site.store, set(customer.tags)
    customer = replace(customer, updated_at=max(customer.updated_at, store.now()))
    _put(site, "customers", store.customers, customer.id, customer)
    site.webhooks.emit(topic, rest.customer(store, customer))
    if added := tags - old_tags:
        site.webhooks.emit("CUSTOMER_TAGS_ADDED", rest.customer_tags(customer, sorted(added)))
    if removed := old_tags - tags:
        site.webhooks.emit("CUSTOMER_TAGS_REMOVED", rest.customer_tags(customer, sorted(removed)))
