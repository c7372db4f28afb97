"""The small parts field tables are made of. A maker gets a field's arguments and the request, once per
document, and gives the function that reads one object; the executor calls nothing else per row.
"""

from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Any

from sandbox import clock, money
from sandbox.context import JSON, Context
from sandbox.model import Presentment

Read = Callable[[Any], Any]  # Any: which object a reader takes is decided by its type's table
Maker = Callable[[JSON, Context], Read]
Table = dict[str, Maker]
Bag = tuple[int, Presentment | None]


def attr(name: str) -> Maker:
    get = attrgetter(name)
    return lambda _args, _context: get


def key(name: str) -> Maker:
    get = itemgetter(name)
    return lambda _args, _context: get


def read(function: Read) -> Maker:
    return lambda _args, _context: function


def always(value: object) -> Maker:
    return lambda _args, _context: lambda _: value


def gid(kind: str, name: str = "id") -> Maker:
    get, prefix = attrgetter(name), f"gid://shopify/{kind}/"
    return lambda _args, _context: lambda of: prefix + str(get(of))


def number(name: str) -> Maker:
    """UnsignedInt64 travels as a string."""
    get = attrgetter(name)
    return lambda _args, _context: lambda of: str(get(of))


def moment(name: str) -> Maker:
    get = attrgetter(name)
    return lambda _args, _context: lambda of: clock.utc_or_none(get(of))


def many(name: str) -> Maker:
    get = attrgetter(name)
    return lambda _args, _context: lambda of: list(get(of))


def bag(name: str) -> Maker:
    get = attrgetter(name)
    return lambda _args, _context: lambda of: (get(of), of.fx)


def bag_of(function: Callable[[Any], int]) -> Maker:
    return lambda _args, _context: lambda of: (function(of), of.fx)


def scalar_money(function: Callable[[Any], int | None]) -> Maker:
    def make(_args: JSON, context: Context) -> Read:
        places = context.view.places

        def text(of: Any) -> str | None:
            amount = function(of)
            return None if amount is None else money.scalar(amount, places)

        return text

    return make


def plain_money(function: Callable[[Any], int | None]) -> Maker:
    """A MoneyV2 in the shop's currency."""

    def make(_args: JSON, context: Context) -> Read:
        currency = context.view.currency
        return lambda of: None if (amount := function(of)) is None else (amount, currency)

    return make


def _presented(context: Context) -> Read:
    shop = context.view.currency

    def read_one(value: Bag) -> tuple[int, str]:
        amount, fx = value
        return (
            (amount, shop) if fx is None else (money.convert(amount, fx.rate, shop, fx.currency), fx.currency)
        )

    return read_one


MONEY: dict[str, Table] = {
    "MoneyBag": {
        "presentmentMoney": lambda _args, context: _presented(context),
        "shopMoney": lambda _args, context: lambda value: (value[0], context.view.currency),
    },
    "MoneyV2": {
        "amount": read(lambda value: money.trimmed(value[0], money.decimals(value[1]))),
        "currencyCode": read(itemgetter(1)),
    },
}
