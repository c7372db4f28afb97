"""How customers, addresses, products, variants and their stock items are read."""

from collections.abc import Callable

from sandbox.context import JSON, Context
from sandbox.model import Address, Customer, Product, Variant
from sandbox.resolve import (
    Maker,
    Read,
    Table,
    always,
    attr,
    gid,
    key,
    many,
    moment,
    number,
    plain_money,
    read,
    scalar_money,
)


def display_name(customer: Customer) -> str:
    name = " ".join(part for part in (customer.first_name, customer.last_name) if part)
    return name or customer.email or customer.phone or ""


def full_name(address: Address) -> str | None:
    return " ".join(part for part in (address.first_name, address.last_name) if part) or None


def _formatted(args: JSON, _context: Context) -> Read:
    def lines(address: Address) -> list[str]:
        company = address.company if args.get("withCompany") else None
        name = full_name(address) if args.get("withName") else None
        place = " ".join(part for part in (address.city, address.province_code, address.zip) if part)
        return [
            part
            for part in (name, company, address.address1, address.address2, place, address.country)
            if part
        ]

    return lines


def _area(address: Address) -> str:
    return ", ".join(part for part in (address.city, address.province_code, address.country) if part)


def _email(customer: Customer) -> Customer | None:
    return customer if customer.email else None


def _last_order(_args: JSON, context: Context) -> Read:
    orders = context.view.orders

    def last(customer: Customer) -> object:
        order = orders.get(customer.last_order_id or 0)
        return order if order and order.created_at >= context.oldest_order else None

    return last


def _orders_of(_args: JSON, context: Context) -> Read:
    orders, oldest = context.view.orders, context.oldest_order
    return lambda customer: [
        order for order in orders.values() if order.customer_id == customer.id and order.created_at >= oldest
    ]


def _variants_of(args: JSON, context: Context) -> Read:
    variants = context.view.variants
    by_id = args.get("sortKey") == "ID"

    def listed(product: Product) -> list[Variant]:
        ids = sorted(product.variant_ids) if by_id else product.variant_ids
        return [variants[id_] for id_ in ids]

    return listed


def _product_of(_args: JSON, context: Context) -> Read:
    products = context.view.products
    return lambda variant: products[variant.product_id]


def _options(_args: JSON, context: Context) -> Read:
    variants = context.view.variants

    def options(product: Product) -> list[JSON]:
        rows = [variants[id_].options for id_ in product.variant_ids]
        return [
            {
                "id": f"gid://shopify/ProductOption/{product.id + index + 1}",
                "name": name,
                "position": index + 1,
                "values": list(dict.fromkeys(row[index] for row in rows)),
            }
            for index, name in enumerate(product.option_names)
        ]

    return options


def _selected(_args: JSON, context: Context) -> Read:
    products = context.view.products

    def selected(variant: Variant) -> list[JSON]:
        names = products[variant.product_id].option_names
        return [{"name": name, "value": value} for name, value in zip(names, variant.options, strict=True)]

    return selected


def _variant_name(_args: JSON, context: Context) -> Read:
    products = context.view.products
    return lambda variant: f"{products[variant.product_id].title} - {variant.title}"


def _range(pick: Callable[[list[int]], int]) -> Maker:
    def make(_args: JSON, context: Context) -> Read:
        view = context.view

        def price(product: Product) -> tuple[int, str]:
            return pick([view.variants[id_].price for id_ in product.variant_ids]), view.currency

        return price

    return make


CUSTOMER: Table = {
    "addresses": lambda args, _context: lambda customer: list(customer.addresses)[: args.get("first")],
    "addressesV2": many("addresses"),
    "amountSpent": plain_money(lambda customer: customer.amount_spent),
    "createdAt": moment("created_at"),
    "defaultAddress": read(lambda customer: customer.addresses[0] if customer.addresses else None),
    "defaultEmailAddress": read(_email),
    "defaultPhoneNumber": read(lambda customer: customer if customer.phone else None),
    "displayName": read(display_name),
    "email": attr("email"),
    "firstName": attr("first_name"),
    "id": gid("Customer"),
    "lastName": attr("last_name"),
    "lastOrder": _last_order,
    "legacyResourceId": number("id"),
    "locale": attr("locale"),
    "note": attr("note"),
    "numberOfOrders": number("number_of_orders"),
    "orders": _orders_of,
    "phone": attr("phone"),
    "state": attr("state"),
    "tags": many("tags"),
    "taxExempt": attr("tax_exempt"),
    "updatedAt": moment("updated_at"),
    "validEmailAddress": read(lambda customer: bool(customer.email)),
    "verifiedEmail": attr("verified_email"),
}

PRODUCT: Table = {
    "bodyHtml": attr("description_html"),
    "createdAt": moment("created_at"),
    "descriptionHtml": attr("description_html"),
    "handle": attr("handle"),
    "hasOnlyDefaultVariant": read(lambda product: product.option_names == ("Title",)),
    "id": gid("Product"),
    "isGiftCard": always(False),
    "legacyResourceId": number("id"),
    "options": lambda args, context: lambda product: _options({}, context)(product)[: args.get("first")],
    "priceRangeV2": read(lambda product: product),
    "productType": attr("product_type"),
    "publishedAt": moment("published_at"),
    "status": attr("status"),
    "tags": many("tags"),
    "title": attr("title"),
    "totalInventory": attr("total_inventory"),
    "totalVariants": read(lambda product: len(product.variant_ids)),
    "updatedAt": moment("updated_at"),
    "variants": _variants_of,
    "variantsCount": read(lambda product: (len(product.variant_ids), "EXACT")),
    "vendor": attr("vendor"),
}

VARIANT: Table = {
    "availableForSale": read(
        lambda variant: variant.inventory_quantity > 0 or variant.inventory_policy == "CONTINUE"
    ),
    "barcode": attr("barcode"),
    "compareAtPrice": scalar_money(lambda variant: variant.compare_at_price),
    "createdAt": moment("created_at"),
    "displayName": _variant_name,
    "id": gid("ProductVariant"),
    "inventoryItem": read(lambda variant: variant),
    "inventoryPolicy": attr("inventory_policy"),
    "inventoryQuantity": attr("inventory_quantity"),
    "legacyResourceId": number("id"),
    "position": attr("position"),
    "price": scalar_money(lambda variant: variant.price),
    "product": _product_of,
    "selectedOptions": _selected,
    "sku": attr("sku"),
    "taxable": attr("taxable"),
    "title": attr("title"),
    "updatedAt": moment("updated_at"),
}

CATALOG: dict[str, Table] = {
    "Customer": CUSTOMER,
    "CustomerEmailAddress": {
        "emailAddress": attr("email"),
        "marketingOptInLevel": read(lambda x: "SINGLE_OPT_IN" if x.marketing_state == "SUBSCRIBED" else None),
        "marketingState": attr("marketing_state"),
        "marketingUpdatedAt": moment("created_at"),
        "validFormat": always(True),
    },
    "CustomerPhoneNumber": {
        "phoneNumber": attr("phone"),
        "smsMarketingConsent": read(lambda customer: customer),
    },
    "CustomerSmsMarketingConsent": {
        "optInLevel": always(None),
        "state": always("NOT_SUBSCRIBED"),
        "updatedAt": always(None),
    },
    "InventoryItem": {
        "createdAt": moment("created_at"),
        "id": gid("InventoryItem", "inventory_item_id"),
        "legacyResourceId": number("inventory_item_id"),
        "requiresShipping": always(True),
        "sku": attr("sku"),
        "tracked": attr("tracked"),
        "unitCost": plain_money(lambda variant: variant.cost),
        "updatedAt": moment("updated_at"),
        "variant": read(lambda variant: variant),
    },
    "MailingAddress": {
        "address1": attr("address1"),
        "address2": attr("address2"),
        "city": attr("city"),
        "company": attr("company"),
        "country": attr("country"),
        "countryCode": attr("country_code"),
        "countryCodeV2": attr("country_code"),
        "firstName": attr("first_name"),
        "formatted": _formatted,
        "formattedArea": read(_area),
        "id": read(lambda address: f"gid://shopify/MailingAddress/{address.id}?model_name=CustomerAddress"),
        "lastName": attr("last_name"),
        "name": read(full_name),
        "phone": attr("phone"),
        "province": attr("province"),
        "provinceCode": attr("province_code"),
        "zip": attr("zip"),
    },
    "Product": PRODUCT,
    "ProductOption": {
        "id": key("id"),
        "name": key("name"),
        "position": key("position"),
        "values": key("values"),
    },
    "ProductPriceRangeV2": {"maxVariantPrice": _range(max), "minVariantPrice": _range(min)},
    "ProductVariant": VARIANT,
    "SelectedOption": {"name": key("name"), "value": key("value")},
}
