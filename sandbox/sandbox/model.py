"""The shop's objects: frozen, so that a copied dict of them *is* a snapshot.

A change makes a new object and puts it in the old one's place; whoever took a snapshot keeps what it saw.
Money is in minor units of the shop's currency, moments are epoch seconds. Totals stand on the order itself:
`arithmetic.settle` writes them.
"""

from msgspec import Struct


class Presentment(Struct, frozen=True, gc=False):
    """What the buyer saw, when not the shop's currency."""

    currency: str
    rate: float


class Address(Struct, frozen=True, gc=False):
    id: int
    first_name: str | None
    last_name: str | None
    company: str | None
    address1: str | None
    address2: str | None
    city: str | None
    province: str | None
    province_code: str | None
    country: str
    country_code: str
    zip: str | None
    phone: str | None


class Customer(Struct, frozen=True, gc=False):
    id: int
    first_name: str | None
    last_name: str | None
    email: str | None
    phone: str | None
    state: str
    note: str | None
    tags: tuple[str, ...]
    locale: str
    verified_email: bool
    tax_exempt: bool
    created_at: int
    updated_at: int
    marketing_state: str
    addresses: tuple[Address, ...]
    number_of_orders: int = 0
    amount_spent: int = 0
    last_order_id: int | None = None


class Variant(Struct, frozen=True, gc=False):
    id: int
    product_id: int
    inventory_item_id: int
    title: str
    sku: str | None
    barcode: str | None
    price: int
    compare_at_price: int | None
    cost: int | None
    position: int
    inventory_quantity: int
    inventory_policy: str
    tracked: bool
    taxable: bool
    options: tuple[str, ...]
    created_at: int
    updated_at: int


class Product(Struct, frozen=True, gc=False):
    id: int
    title: str
    handle: str
    description_html: str
    vendor: str
    product_type: str
    status: str
    tags: tuple[str, ...]
    created_at: int
    updated_at: int
    published_at: int | None
    option_names: tuple[str, ...]
    variant_ids: tuple[int, ...]
    total_inventory: int


class LineItem(Struct, frozen=True, gc=False):
    id: int
    title: str
    variant_title: str | None
    sku: str | None
    vendor: str | None
    product_id: int | None
    variant_id: int | None
    price: int
    quantity: int
    current_quantity: int
    line_discount: int  # for the whole ordered quantity
    order_discount: int  # this line's share of an order-level discount
    tax: int
    tax_rate: float
    taxable: bool
    requires_shipping: bool
    gift_card: bool
    refunded_quantity: int
    fulfilled_quantity: int
    fx: Presentment | None


class RefundLine(Struct, frozen=True, gc=False):
    id: int
    line_item_id: int
    quantity: int
    subtotal: int
    tax: int
    restock_type: str
    fx: Presentment | None


class Refund(Struct, frozen=True, gc=False):
    id: int
    order_id: int
    created_at: int
    note: str | None
    total: int
    shipping: int
    transaction_id: int
    lines: tuple[RefundLine, ...]
    fx: Presentment | None


class ShippingLine(Struct, frozen=True, gc=False):
    id: int
    title: str
    code: str | None
    price: int
    fx: Presentment | None


class Transaction(Struct, frozen=True, gc=False):
    id: int
    kind: str
    gateway: str
    amount: int
    created_at: int
    fx: Presentment | None


class Order(Struct, frozen=True, gc=False):
    id: int
    number: int
    name: str
    created_at: int
    updated_at: int
    processed_at: int
    cancelled_at: int | None
    cancel_reason: str | None
    closed_at: int | None
    test: bool
    confirmed: bool
    edited: bool
    taxes_included: bool
    source_name: str | None
    tags: tuple[str, ...]
    note: str | None
    email: str | None
    phone: str | None
    customer_id: int | None
    customer_locale: str | None
    shipping_address: Address | None
    billing_address: Address | None
    discount_code: str | None
    fx: Presentment | None
    lines: tuple[LineItem, ...]
    shipping_lines: tuple[ShippingLine, ...]
    refunds: tuple[Refund, ...]
    payment: Transaction | None
    authorized: bool
    received: int
    financial_status: str = "PENDING"
    fulfillment_status: str = "UNFULFILLED"
    subtotal: int = 0
    tax: int = 0
    discounts: int = 0
    shipping: int = 0
    total: int = 0
    original_total: int | None = None
    current_subtotal: int = 0
    current_tax: int = 0
    current_discounts: int = 0
    current_shipping: int = 0
    current_total: int = 0
    refunded: int = 0
    refunded_shipping: int = 0


class BulkOperation(Struct):
    """The one thing that changes in place: its counters move while it runs."""

    id: int
    query: str
    created_at: int
    status: str = "CREATED"
    completed_at: int | None = None
    error_code: str | None = None
    object_count: int = 0
    root_count: int = 0
    file_size: int | None = None
    url: str | None = None
    partial_url: str | None = None


class Subscription(Struct, frozen=True):
    id: int
    topic: str
    uri: str
    format: str
    filter: str | None
    name: str | None
    include_fields: tuple[str, ...]
    metafield_namespaces: tuple[str, ...]
    created_at: int
    updated_at: int
    api_version: str
