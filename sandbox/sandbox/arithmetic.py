"""How an order's money adds up: one function writes every total, so nothing can disagree.

    subtotal = lines at ordered quantity - discounts;  total = subtotal + shipping + tax (unless prices
    include it) current_* = the same at current quantities, less refunded shipping
    total, subtotal and tax stay when items are removed or refunded, current_* follow (Shopify captures)

A part of a line takes floor(amount * part / quantity), so the parts of a line always sum to it.
"""

from msgspec.structs import replace

from sandbox.model import LineItem, Order


def share(amount: int, part: int, quantity: int) -> int:
    return amount * part // quantity if quantity else 0


def line_total(line: LineItem) -> int:
    return line.price * line.quantity - line.line_discount - line.order_discount


def settle(order: Order) -> Order:
    """The order with all its totals and both statuses made true."""
    subtotal = tax = discounts = current_subtotal = current_tax = current_discounts = 0
    for line in order.lines:
        net, cut = line_total(line), line.line_discount + line.order_discount
        subtotal += net
        tax += line.tax
        discounts += cut
        now, ordered = line.current_quantity, line.quantity
        if now == ordered:
            current_subtotal += net
            current_tax += line.tax
            current_discounts += cut
        elif now:
            current_subtotal += share(net, now, ordered)
            current_tax += share(line.tax, now, ordered)
            current_discounts += share(cut, now, ordered)
    shipping = sum([line.price for line in order.shipping_lines])
    refunded = sum([refund.total for refund in order.refunds])
    refunded_shipping = sum([refund.shipping for refund in order.refunds])
    total = subtotal + shipping + (0 if order.taxes_included else tax)
    current_shipping = shipping - refunded_shipping
    return replace(
        order,
        subtotal=subtotal,
        tax=tax,
        discounts=discounts,
        shipping=shipping,
        total=total,
        original_total=total if order.original_total is None else order.original_total,
        current_subtotal=current_subtotal,
        current_tax=current_tax,
        current_discounts=current_discounts,
        current_shipping=current_shipping,
        current_total=current_subtotal + current_shipping + (0 if order.taxes_included else current_tax),
        refunded=refunded,
        refunded_shipping=refunded_shipping,
        financial_status=financial_status(order, refunded),
        fulfillment_status=fulfillment_status(order),
    )


def financial_status(order: Order, refunded: int) -> str:
    if order.received <= 0:
        if order.cancelled_at is not None:
            return "VOIDED"
        return "AUTHORIZED" if order.authorized else "PENDING"
    if refunded >= order.received:
        return "REFUNDED"
    return "PARTIALLY_REFUNDED" if refunded else "PAID"


def fulfillment_status(order: Order) -> str:
    sent = sum([line.fulfilled_quantity for line in order.lines])
    if not sent:
        return "UNFULFILLED"
    wanted = sum([max(line.current_quantity, line.fulfilled_quantity) for line in order.lines])
    return "FULFILLED" if sent >= wanted else "PARTIALLY_FULFILLED"
