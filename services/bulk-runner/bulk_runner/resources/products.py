"""Products with their variants: what Shopify answers -> rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from bulk_runner.documents import document
from bulk_runner.resources.nodes import (
    LineKind,
    Nodes,
    Page,
    ReadNode,
    Ref,
    as_asked,
    numeric_id,
    parent_id,
    read_nodes,
    reference,
)
from shared.events import Resource
from shared.rows import AuditedRow, ProductRow, Row, VariantRow
from shared.texts import Amount, Time

if TYPE_CHECKING:  # a page is read through a shop; what it says is parsed without one
    from shared.shopify import Shop

PATH = "resources/products.graphql"
PAGE_SIZE = 50  # with 20 variants each about 100 points


class ProductNode(msgspec.Struct, rename="camel", gc=False):
    """A product without its variants. What only an audit leaves out has a default."""

    id: str
    title: str | None = None
    handle: str | None = None
    vendor: str | None = None
    product_type: str | None = None
    status: str | None = None
    tags: list[str] = []
    published_at: Time | None = None
    created_at: Time | None = None
    updated_at: Time | None = None
    total_inventory: int | None = None


class InventoryItem(Ref, gc=False):
    """What stands behind a variant in the stock."""

    tracked: bool | None = None


class VariantNode(msgspec.Struct, rename="camel", gc=False):
    """A variant; in a bulk file it names its product."""

    id: str
    parent: str | None = msgspec.field(name="__parentId", default=None)
    title: str | None = None
    sku: str | None = None
    barcode: str | None = None
    price: Amount | None = None
    compare_at_price: Amount | None = None
    position: int | None = None
    inventory_quantity: int | None = None
    inventory_item: InventoryItem | None = None
    taxable: bool | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class PagedProduct(ProductNode, rename="camel", kw_only=True):
    """A product with the first page of its variants."""

    variants: Nodes[VariantNode]


NODE = msgspec.json.Decoder(PagedProduct)


class ProductsPage(msgspec.Struct):
    """The answer of ProductsPage."""

    products: Nodes[msgspec.Raw]


class ProductsById(msgspec.Struct):
    """The answer of ProductsById; None for a product that is gone."""

    nodes: list[msgspec.Raw]


class _Variants(msgspec.Struct):
    variants: Nodes[VariantNode]


class MoreVariants(msgspec.Struct):
    """The answer of MoreVariants; None if the product is gone by now."""

    product: _Variants | None


async def page(
    shop: Shop, search: str, after: str | None, sent_at: str, _: Collection[Resource] = ()
) -> Page[Row]:
    """A page of products, each with all its variants."""
    variables = {"first": PAGE_SIZE, "after": after, "search": search}
    products = (await shop.query(ProductsPage, document(PATH, "ProductsPage"), variables)).products
    return Page(await _read(shop, products.nodes, sent_at), products.page_info.next)


async def by_ids(
    shop: Shop, ids: Sequence[int], sent_at: str, _: Collection[Resource] = ()
) -> list[ReadNode[Row]]:
    """Those of the products that there are, each with all its variants."""
    gids = [f"gid://shopify/Product/{id_}" for id_ in ids]
    answer = await shop.query(ProductsById, document(PATH, "ProductsById"), {"ids": gids})
    return await _read(shop, as_asked(gids, answer.nodes), sent_at)


async def _read(shop: Shop, texts: Sequence[msgspec.Raw], sent_at: str) -> list[ReadNode[Row]]:
    async def rows(text: bytes, ordinal: int) -> list[Row]:
        node = NODE.decode(text)
        product = product_row(node, sent_at, ordinal)
        variants = await _all_variants(shop, node)
        return [product, *(variant_row(variant, product.id, sent_at, ordinal) for variant in variants)]

    return await read_nodes(texts, rows)


async def _all_variants(shop: Shop, node: PagedProduct) -> list[VariantNode]:
    variants, after = list(node.variants.nodes), node.variants.page_info.next
    while after:
        more = await shop.query(MoreVariants, document(PATH, "MoreVariants"), {"id": node.id, "after": after})
        if more.product is None:
            break
        variants += more.product.variants.nodes
        after = more.product.variants.page_info.next
    return variants


def product_row(node: ProductNode, sent_at: str, ordinal: int | None = None) -> ProductRow:
    """A product."""
    return ProductRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=numeric_id(node.id),
        title=node.title,
        handle=node.handle,
        vendor=node.vendor,
        product_type=node.product_type,
        status=node.status,
        tags=node.tags,
        published_at=node.published_at,
        created_at=node.created_at,
        updated_at=node.updated_at or sent_at,
        total_inventory=node.total_inventory,
    )


def variant_row(node: VariantNode, product_id: int, sent_at: str, ordinal: int | None = None) -> VariantRow:
    """A variant of a product."""
    return VariantRow(
        ordinal=ordinal,
        sent_at=sent_at,
        id=numeric_id(node.id),
        product_id=product_id,
        title=node.title,
        sku=node.sku,
        barcode=node.barcode,
        price=node.price,
        compare_at_price=node.compare_at_price,
        position=node.position,
        inventory_quantity=node.inventory_quantity,
        inventory_item_id=reference(node.inventory_item),
        inventory_tracked=node.inventory_item.tracked if node.inventory_item else None,
        taxable=node.taxable,
        created_at=node.created_at,
        updated_at=node.updated_at,
    )


def _audited_product(node: ProductNode) -> list[AuditedRow]:
    return [AuditedRow("products", numeric_id(node.id), None, node.updated_at, None)]


def _audited_variant(node: VariantNode, product: str | None = None) -> list[AuditedRow]:
    product_id = parent_id(product or node.parent, "Product")
    return [AuditedRow("product_variants", numeric_id(node.id), product_id, None, node.price)]


async def audit_page(shop: Shop, after: str | None) -> Page[AuditedRow]:
    """A page of what an audit compares."""

    async def rows(text: bytes, _: int) -> list[AuditedRow]:
        node = NODE.decode(text)
        variants = await _all_variants(shop, node)
        return [*_audited_product(node), *(row for v in variants for row in _audited_variant(v, node.id))]

    page_ = (await shop.query(ProductsPage, document(PATH, "AuditProductsPage"), {"after": after})).products
    return Page(await read_nodes(page_.nodes, rows), page_.page_info.next)


LINES = {
    "Product": LineKind(
        msgspec.json.Decoder(ProductNode),
        lambda node, sent_at: [product_row(node, sent_at)],
        _audited_product,
        is_root=True,
    ),
    "ProductVariant": LineKind(
        msgspec.json.Decoder(VariantNode),
        lambda node, sent_at: [variant_row(node, parent_id(node.parent, "Product"), sent_at)],
        _audited_variant,
    ),
}
