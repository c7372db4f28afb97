"""Customers and their addresses."""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

from sandbox import texts
from sandbox.draw import Draw
from sandbox.model import Address, Customer
from sandbox.store import Store

_STATES = ("DISABLED",) * 14 + ("ENABLED",) * 4 + ("INVITED", "DECLINED")
_MARKETING = ("SUBSCRIBED", "NOT_SUBSCRIBED", "NOT_SUBSCRIBED", "UNSUBSCRIBED", "PENDING")


def make_address(store: Store, draw: Draw, first: str | None, last: str | None) -> Address:
    city, province, code, country, country_code, postcode = draw.pick(texts.PLACES)
    number = draw.between(1, 999)
    return Address(
        store.next_id("MailingAddress"),
        first,
        last,
        "Backyard Goods" if number % 17 == 0 else None,
        draw.text(f"{number} {draw.pick(texts.STREETS)}"),
        "Apt 4" if number % 5 == 0 else None,
        city,
        province,
        code,
        country,
        country_code,
        postcode,
        None if number % 3 else f"+1555{number:07d}",
    )


def make_customer(store: Store, draw: Draw, at: int, end: int) -> Customer:
    id_ = store.next_id("Customer")
    chance = draw.random()
    first = None if chance < 0.03 else draw.text(draw.pick(texts.FIRST), 0.01)
    last = None if chance < 0.02 else draw.text(draw.pick(texts.LAST), 0.01)
    number = id_ % 1_000_000
    addresses = tuple(make_address(store, draw, first, last) for _ in range(int(draw.random() * 2.4)))
    customer = Customer(
        id_,
        first,
        last,
        None if chance > 0.97 else f"customer+{number}@example.com",
        f"+1613{number:07d}" if chance > 0.7 else None,
        draw.pick(_STATES),
        draw.text(draw.pick(texts.NOTES)) if chance > 0.9 else None,
        draw.tags(),
        "fr-CA" if chance > 0.95 else "en",
        chance < 0.9,
        chance > 0.98,
        at,
        min(end, at + int(draw.random() * 5000)),
        draw.pick(_MARKETING),
        addresses,
    )
    store.customers[id_] = customer
    return customer
