"""Products and their variants: from one to a hundred, with up to two options."""
# ruff: noqa: PLR2004  the odds of a made-up shop are read best where they are used

from sandbox import texts
from sandbox.draw import Draw
from sandbox.model import Product, Variant
from sandbox.store import Store

# Most products are one thing; a few fill a size chart.
_COUNTS = (1,) * 55 + (2, 3, 3, 4, 4, 5, 6, 8, 10, 12) * 4 + (20, 30, 40) + (60, 100)
_STATUSES = ("ACTIVE",) * 16 + ("DRAFT", "ARCHIVED", "ARCHIVED", "UNLISTED")


def make_price(draw: Draw, places: int) -> int:
    """3.00 to 300.00 or what looks like it in other currencies: 300 yen, 3.000 dinars."""
    tail = (0, 95, 99, 50, 49, 90)[int(draw.random() * 6)]
    base = draw.between(3, 180) * 100 + tail
    return base * 10 + draw.between(0, 9) if places == 3 else base


def option_values(count: int, index: int) -> tuple[str, ...]:
    if count == 1:
        return ("Default Title",)
    if count <= len(texts.COLORS):
        return (texts.COLORS[index],)
    return (texts.COLORS[index // 10], texts.SIZES[index % 10])


def make_variant(
    store: Store, draw: Draw, product_id: int, options: tuple[str, ...], position: int, at: int, updated: int
) -> Variant:
    id_, price, chance = store.next_id("ProductVariant"), make_price(draw, store.places), draw.random()
    return Variant(
        id_,
        product_id,
        store.next_id("InventoryItem"),
        " / ".join(options),
        None if chance < 0.04 else "" if chance < 0.06 else f"SKU-{id_ % 10**7:07d}",
        f"{id_ % 10**13:013d}" if chance > 0.5 else None,
        price,
        price + price // 4 if chance > 0.8 else None,
        price // 2 if chance > 0.3 else None,
        position,
        draw.between(-3, 250),
        "CONTINUE" if chance > 0.9 else "DENY",
        chance > 0.1,
        chance < 0.9,
        options,
        at,
        updated,
    )


def make_product(
    store: Store,
    draw: Draw,
    at: int,
    number: int,
    end: int,
    *,
    title: str | None = None,
    count: int | None = None,
) -> Product:
    id_ = store.next_id("Product")
    count = count or draw.pick(_COUNTS)
    name = (
        title
        or draw.text(f"{draw.pick(texts.KINDS)} {draw.pick(texts.THINGS)} {number}")
        or f"Untitled {number}"
    )
    updated = min(end, at + int(draw.random() * (end - at)))
    made = []
    for index in range(count):
        options = option_values(count, index)
        made.append(make_variant(store, draw, id_, options, index + 1, at, updated))
    status = draw.pick(_STATUSES)
    product = Product(
        id_,
        name,
        f"product-{id_ % 10**9}",
        draw.text(f"<p>A <em>fine</em> thing &amp; more: {number}</p>", 0.05),
        draw.pick(texts.VENDORS),
        draw.pick(texts.TYPES),
        status,
        draw.tags(),
        at,
        updated,
        None if status == "DRAFT" else at,
        ("Title",) if count == 1 else ("Color", "Size")[: len(made[0].options)],
        tuple(variant.id for variant in made),
        sum(variant.inventory_quantity for variant in made if variant.tracked),
    )
    store.products[id_] = product
    store.variants.update((variant.id, variant) for variant in made)
    return product
