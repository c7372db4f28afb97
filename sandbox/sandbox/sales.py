"""Orders as buyers and staff make them: lines, discounts, tax, payment, and what happened to them since."""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

from collections.abc import Sequence

from msgspec.structs import replace

from sandbox import texts
from sandbox.arithmetic import line_total, settle, share
from sandbox.draw import Draw
from sandbox.model import (
    Address,
    Customer,
    LineItem,
    Order,
    Presentment,
    Refund,
    RefundLine,
    ShippingLine,
    Transaction,
    Variant,
)
from sandbox.people import make_address
from sandbox.store import Store

_LINE_COUNTS = (1,) * 45 + (2,) * 23 + (3,) * 13 + (4,) * 7 + (5,) * 5 + (6,) * 3 + (7,) * 2 + (8,) * 2
LONG_ORDERS = 0.001
_QUANTITIES = (1,) * 14 + (2,) * 4 + (3, 7)
_REASONS = ("CUSTOMER", "INVENTORY", "FRAUD", "DECLINED", "OTHER", "STAFF")
_PRESENTMENT = tuple(Presentment(currency, rate) for currency, rate in texts.PRESENTMENT)
_TAX_RATES = (0.0, 0.08, 0.13, 0.2)


def make_line(
    store: Store, draw: Draw, variant: Variant | None, quantity: int, rate: float, fx: Presentment | None
) -> LineItem:
    chance = draw.random()
    if variant is None:  # a custom item: staff typed it in
        title, price, taxable = (
            draw.text(f"Custom {draw.pick(texts.THINGS)}", 0.2) or "Custom",
            draw.between(100, 9999),
            True,
        )
        variant_title = sku = vendor = product_id = variant_id = None
    else:
        product = store.products[variant.product_id]
        title, price, taxable, sku, vendor = (
            product.title,
            variant.price,
            variant.taxable,
            variant.sku,
            product.vendor,
        )
        variant_title = None if variant.title == "Default Title" else variant.title
        product_id, variant_id = product.id, variant.id
    cut = price * quantity // 10 if chance < 0.12 else 0
    return LineItem(
        store.next_id("LineItem"),
        title,
        variant_title,
        sku,
        vendor,
        product_id,
        variant_id,
        price,
        quantity,
        quantity,
        cut,
        0,
        0,
        rate if taxable else 0.0,
        taxable,
        chance > 0.05,
        False,
        0,
        0,
        fx,
    )


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """An order-level discount over its lines: the cents sum exactly, the last line takes what is left."""
    whole, left, parts = sum(weights), amount, []
    for weight in weights[:-1]:
        part = amount * weight // whole if whole else 0
        parts.append(part)
        left -= part
    return [*parts, left]


def priced(lines: list[LineItem], discount: int, *, included: bool) -> tuple[LineItem, ...]:
    """The lines with their share of the order's discount and their tax."""
    nets = [line.price * line.quantity - line.line_discount for line in lines]
    parts = spread(discount, nets) if discount else [0] * len(lines)
    return tuple(
        [
            replace(line, order_discount=part, tax=tax_on(net - part, line.tax_rate, included=included))
            if part or line.tax_rate
            else line
            for line, net, part in zip(lines, nets, parts, strict=True)
        ]
    )


def tax_on(net: int, rate: float, *, included: bool) -> int:
    return round(net * rate / (1 + rate)) if included else round(net * rate)


def make_order(
    store: Store,
    draw: Draw,
    number: int,
    at: int,
    end: int,
    customer: Customer | None,
    variants: Sequence[Variant],
    *,
    fresh: bool = False,
) -> Order:
    random = draw.random
    chance = random()
    fx = draw.pick(_PRESENTMENT) if random() < 0.04 else None
    if fx and fx.currency == store.currency:
        fx = None
    included, rate = random() < 0.1, draw.pick(_TAX_RATES)
    count = draw.between(51, 70) if random() < LONG_ORDERS else draw.pick(_LINE_COUNTS)
    lines = [
        make_line(
            store,
            draw,
            draw.pick(variants) if variants and random() > 0.02 else None,
            draw.pick(_QUANTITIES),
            rate,
            fx,
        )
        for _ in range(count)
    ]
    discount, code = 0, None
    if random() < 0.15:
        code = "WELCOME15"
        discount = min(
            15 * 10**store.places, sum(line.price * line.quantity - line.line_discount for line in lines) // 2
        )
    return dress(
        store,
        draw,
        number,
        at,
        end,
        customer,
        priced(lines, discount, included=included),
        code,
        fx,
        chance,
        included=included,
        fresh=fresh,
    )


def dress(
    store: Store,
    draw: Draw,
    number: int,
    at: int,
    end: int,
    customer: Customer | None,
    lines: tuple[LineItem, ...],
    code: str | None,
    fx: Presentment | None,
    chance: float,
    *,
    included: bool,
    fresh: bool = False,
) -> Order:
    """Everything around the lines; then, unless it is fresh, what life did to the order."""
    random = draw.random
    scale = 10 if store.places == 3 else 1
    title, price = draw.pick(texts.SHIPPING)
    shipping = (
        ()
        if random() < 0.1
        else (ShippingLine(store.next_id("ShippingLine"), title, title, price * scale, fx),)
    )
    address = _ship_to(store, draw, customer)
    order = Order(
        store.next_id("Order"),
        number,
        f"#{number}",
        at,
        min(end, at + 1),
        at,
        None,
        None,
        None,
        test=random() < 0.01,
        confirmed=True,
        edited=False,
        taxes_included=included,
        source_name=draw.pick(texts.SOURCES),
        tags=draw.tags(2),
        note=draw.text(draw.pick(texts.NOTES), 0.15) if random() < 0.1 else None,
        email=(customer.email if customer else None if random() < 0.3 else f"guest{number}@example.com"),
        phone=customer.phone if customer else None,
        customer_id=customer.id if customer else None,
        customer_locale="en",
        shipping_address=address,
        billing_address=address,
        discount_code=code,
        fx=fx,
        lines=lines,
        shipping_lines=shipping,
        refunds=(),
        payment=None,
        authorized=chance < 0.03,
        received=0,
    )
    order = settle(order)
    if chance >= 0.06:
        order = settle(pay(store, order, at))
    return order if fresh else _live(store, draw, order, end)


def _ship_to(store: Store, draw: Draw, customer: Customer | None) -> Address | None:
    if customer and customer.addresses:
        return customer.addresses[0]
    return make_address(store, draw, "Guest", None) if draw.random() < 0.6 else None


def pay(store: Store, order: Order, at: int) -> Order:
    payment = Transaction(store.next_id("OrderTransaction"), "SALE", "bogus", order.total, at, order.fx)
    return replace(order, payment=payment, authorized=False, received=order.total)


def _live(store: Store, draw: Draw, order: Order, end: int) -> Order:
    """Sent, edited, refunded or cancelled, each some time after the last and never after `end`."""
    fate = draw.random()
    later = min(end, order.created_at + 60 + int(draw.random() * 9 * 86_400))
    if fate < 0.03:
        return settle(cancel(store, order, later, draw.pick(_REASONS)))
    if fate > 0.25 and order.received:
        lines = tuple([replace(line, fulfilled_quantity=line.quantity) for line in order.lines])
        order = replace(order, lines=lines if fate > 0.3 else lines[:1] + order.lines[1:])
        closed = later if fate > 0.6 else None
        order = replace(order, updated_at=max(order.updated_at, later), closed_at=closed)
    if 0.03 <= fate < 0.05:
        order = edit(order, order.lines[-1].id, max(0, order.lines[-1].quantity - 1), later)
    elif fate > 0.93 and order.received:
        order = settle(order)
        if fate > 0.97:
            wanted = {line.id: line.current_quantity for line in order.lines}
            order = refund(store, order, wanted, later, "NO_RESTOCK", shipping=True)
        else:
            line = order.lines[0]
            order = refund(
                store, order, {line.id: 1}, later, "RETURN", note=draw.text("Things were damaged", 0.3)
            )
    return settle(order)


def edit(order: Order, line_id: int, quantity: int, at: int) -> Order:
    """Staff removed items before sending: quantity stays, currentQuantity falls, nothing is refunded yet."""
    lines = tuple(
        [
            replace(line, current_quantity=min(line.current_quantity, quantity))
            if line.id == line_id
            else line
            for line in order.lines
        ]
    )
    return replace(order, lines=lines, edited=True, updated_at=max(order.updated_at, at))


def refund(
    store: Store,
    order: Order,
    wanted: dict[int, int],
    at: int,
    restock: str,
    *,
    shipping: bool = False,
    note: str | None = None,
    amount: int | None = None,
) -> Order:
    """Gives back lines (and shipping) of a settled order; `amount` instead of what the lines come to."""
    refund_lines, lines = [], []
    for line in order.lines:
        count = min(wanted.get(line.id, 0), line.current_quantity)
        if not count:
            lines.append(line)
            continue
        left = line.current_quantity - count
        net, tax = line_total(line), line.tax
        refund_lines.append(
            RefundLine(
                store.next_id("RefundLineItem"),
                line.id,
                count,
                share(net, line.current_quantity, line.quantity) - share(net, left, line.quantity),
                share(tax, line.current_quantity, line.quantity) - share(tax, left, line.quantity),
                restock,
                order.fx,
            )
        )
        lines.append(replace(line, current_quantity=left, refunded_quantity=line.refunded_quantity + count))
    freight = order.shipping - order.refunded_shipping if shipping else 0
    worth = sum(x.subtotal + (0 if order.taxes_included else x.tax) for x in refund_lines) + freight
    total = min(worth if amount is None else amount, order.received - order.refunded)
    made = Refund(
        store.next_id("Refund"),
        order.id,
        at,
        note,
        max(0, total),
        freight,
        store.next_id("OrderTransaction"),
        tuple(refund_lines),
        order.fx,
    )
    return replace(
        order, lines=tuple(lines), refunds=(*order.refunds, made), updated_at=max(order.updated_at, at)
    )


def cancel(store: Store, order: Order, at: int, reason: str) -> Order:
    """Cancelled and given back in full: closed at the same moment, all quantities gone."""
    wanted = {line.id: line.current_quantity for line in order.lines}
    order = refund(store, order, wanted, at, "CANCEL", shipping=True, amount=order.received - order.refunded)
    return replace(
        order, cancelled_at=at, closed_at=at, cancel_reason=reason, updated_at=max(order.updated_at, at)
    )
