-- The tables that dashboards read. Rows are never removed here: what Shopify no longer has keeps its row
-- with deleted_at set, so that a late message cannot bring it back.

create schema if not exists shopify;
comment on schema shopify is 'Shopify stores as plain tables; written by Backstock only.';

create table shopify.orders (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    name text,
    created_at timestamptz,
    updated_at timestamptz,
    processed_at timestamptz,
    cancelled_at timestamptz,
    closed_at timestamptz,
    cancel_reason text,
    financial_status text,
    fulfillment_status text,
    currency text,
    presentment_currency text,
    total_price numeric,
    subtotal_price numeric,
    total_tax numeric,
    total_discounts numeric,
    total_shipping numeric,
    total_refunded numeric,
    current_total_price numeric,
    current_subtotal_price numeric,
    current_total_tax numeric,
    current_total_discounts numeric,
    customer_id bigint,
    email text,
    phone text,
    note text,
    source_name text,
    tags text[],
    test boolean,
    taxes_included boolean,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    redacted_at timestamptz,
    primary key (connection_id, id)
);
comment on table shopify.orders is 'Orders, cancelled and test ones included; money is shop money.';
comment on column shopify.orders.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.orders.id is 'Shopify''s numeric id.';
comment on column shopify.orders.name is 'The name the merchant sees, such as #1001.';
comment on column shopify.orders.created_at is 'When the order was made.';
comment on column shopify.orders.updated_at is 'Shopify''s last change; decides which copy of the order is newer.';
comment on column shopify.orders.processed_at is 'When it counts as sold; imported orders keep their original time.';
comment on column shopify.orders.cancelled_at is 'When it was cancelled, if it was.';
comment on column shopify.orders.closed_at is 'When it was archived, if it was.';
comment on column shopify.orders.cancel_reason is 'CUSTOMER, DECLINED, FRAUD, INVENTORY, OTHER or STAFF.';
comment on column shopify.orders.financial_status is 'AUTHORIZED, EXPIRED, PAID, PARTIALLY_PAID, PARTIALLY_REFUNDED, PENDING, REFUNDED or VOIDED.';
comment on column shopify.orders.fulfillment_status is 'UNFULFILLED, PARTIALLY_FULFILLED, FULFILLED, RESTOCKED and Shopify''s others.';
comment on column shopify.orders.currency is 'The shop''s currency, in which every amount of the row is.';
comment on column shopify.orders.presentment_currency is 'The currency the customer saw.';
comment on column shopify.orders.total_price is 'What the order cost: lines, shipping and tax, less discounts; refunds do not lower it.';
comment on column shopify.orders.subtotal_price is 'Lines less discounts, before shipping and tax.';
comment on column shopify.orders.total_tax is 'Tax of the original order.';
comment on column shopify.orders.total_discounts is 'All discounts of the original order.';
comment on column shopify.orders.total_shipping is 'Shipping of the original order.';
comment on column shopify.orders.total_refunded is 'Money given back so far.';
comment on column shopify.orders.current_total_price is 'total_price after edits, returns and refunds.';
comment on column shopify.orders.current_subtotal_price is 'subtotal_price after edits, returns and refunds.';
comment on column shopify.orders.current_total_tax is 'total_tax after edits, returns and refunds.';
comment on column shopify.orders.current_total_discounts is 'total_discounts after edits, returns and refunds.';
comment on column shopify.orders.customer_id is 'The customer; null for a guest.';
comment on column shopify.orders.email is 'The customer''s e-mail address on the order.';
comment on column shopify.orders.phone is 'The customer''s phone number on the order.';
comment on column shopify.orders.note is 'The note on the order.';
comment on column shopify.orders.source_name is 'Where it was sold: web, pos, an app.';
comment on column shopify.orders.tags is 'Tags, sorted by name.';
comment on column shopify.orders.test is 'Whether it is a test order; leave it out of figures.';
comment on column shopify.orders.taxes_included is 'Whether the prices include the tax.';
comment on column shopify.orders.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.orders.synced_at is 'When this row was last written here.';
comment on column shopify.orders.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.orders.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.orders.revision is 'Which staged copy this is; children carry that of their parent''s copy.';
comment on column shopify.orders.redacted_at is 'When personal data was erased on request; older copies cannot bring it back.';

create table shopify.order_line_items (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    order_id bigint,
    product_id bigint,
    variant_id bigint,
    title text,
    variant_title text,
    sku text,
    vendor text,
    quantity integer,
    current_quantity integer,
    original_unit_price numeric,
    discounted_unit_price numeric,
    original_total numeric,
    discounted_total numeric,
    requires_shipping boolean,
    taxable boolean,
    is_gift_card boolean,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    primary key (connection_id, id)
);
comment on table shopify.order_line_items is 'What was ordered, a row a line.';
comment on column shopify.order_line_items.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.order_line_items.id is 'Shopify''s numeric id.';
comment on column shopify.order_line_items.order_id is 'The order it belongs to.';
comment on column shopify.order_line_items.product_id is 'The product; null if it was deleted or never was one.';
comment on column shopify.order_line_items.variant_id is 'The variant; null like product_id.';
comment on column shopify.order_line_items.title is 'The product''s title when it was sold.';
comment on column shopify.order_line_items.variant_title is 'The variant''s title when it was sold.';
comment on column shopify.order_line_items.sku is 'The stock keeping unit when it was sold.';
comment on column shopify.order_line_items.vendor is 'The vendor when it was sold.';
comment on column shopify.order_line_items.quantity is 'Ordered, including what was refunded or removed later.';
comment on column shopify.order_line_items.current_quantity is 'Ordered less what was refunded or removed.';
comment on column shopify.order_line_items.original_unit_price is 'Price of one, before discounts.';
comment on column shopify.order_line_items.discounted_unit_price is 'Price of one after the line''s own discounts.';
comment on column shopify.order_line_items.original_total is 'original_unit_price times quantity.';
comment on column shopify.order_line_items.discounted_total is 'original_total less the line''s own discounts, without the order''s.';
comment on column shopify.order_line_items.requires_shipping is 'Whether it is sent.';
comment on column shopify.order_line_items.taxable is 'Whether it is taxed.';
comment on column shopify.order_line_items.is_gift_card is 'Whether it is a gift card.';
comment on column shopify.order_line_items.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.order_line_items.synced_at is 'When this row was last written here.';
comment on column shopify.order_line_items.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.order_line_items.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.order_line_items.revision is 'Which staged copy this is; children carry that of their parent''s copy.';

create table shopify.refunds (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    order_id bigint,
    created_at timestamptz,
    total_refunded numeric,
    note text,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    lines_at timestamptz,
    primary key (connection_id, id)
);
comment on table shopify.refunds is 'Refunds, a row each.';
comment on column shopify.refunds.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.refunds.id is 'Shopify''s numeric id.';
comment on column shopify.refunds.order_id is 'The order it belongs to.';
comment on column shopify.refunds.created_at is 'When it was made.';
comment on column shopify.refunds.total_refunded is 'Money given back by it.';
comment on column shopify.refunds.note is 'The reason, in the merchant''s words.';
comment on column shopify.refunds.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.refunds.synced_at is 'When this row was last written here.';
comment on column shopify.refunds.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.refunds.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.refunds.revision is 'Which staged copy this is; children carry that of their parent''s copy.';
comment on column shopify.refunds.lines_at is 'When its refund_line_items were read; null: not yet, bulk operations cannot give them.';

create table shopify.refund_line_items (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    refund_id bigint,
    order_id bigint,
    line_item_id bigint,
    quantity integer,
    subtotal numeric,
    total_tax numeric,
    restock_type text,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    primary key (connection_id, id)
);
comment on table shopify.refund_line_items is 'What was given back, a row a line of a refund.';
comment on column shopify.refund_line_items.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.refund_line_items.id is 'Shopify''s numeric id.';
comment on column shopify.refund_line_items.refund_id is 'The refund it belongs to.';
comment on column shopify.refund_line_items.order_id is 'The order of that refund.';
comment on column shopify.refund_line_items.line_item_id is 'The line of the order.';
comment on column shopify.refund_line_items.quantity is 'How many were given back.';
comment on column shopify.refund_line_items.subtotal is 'Their price, without tax.';
comment on column shopify.refund_line_items.total_tax is 'Their tax.';
comment on column shopify.refund_line_items.restock_type is 'CANCEL, LEGACY_RESTOCK, NO_RESTOCK or RETURN.';
comment on column shopify.refund_line_items.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.refund_line_items.synced_at is 'When this row was last written here.';
comment on column shopify.refund_line_items.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.refund_line_items.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.refund_line_items.revision is 'Which staged copy this is; children carry that of their parent''s copy.';

create table shopify.customers (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    first_name text,
    last_name text,
    email text,
    phone text,
    state text,
    note text,
    tags text[],
    number_of_orders bigint,
    amount_spent numeric,
    currency text,
    verified_email boolean,
    tax_exempt boolean,
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    redacted_at timestamptz,
    summary_at timestamptz,
    tags_at timestamptz,
    tags_changed_at timestamptz,
    tag_changes jsonb not null default '{}',
    primary key (connection_id, id)
);
comment on table shopify.customers is 'Customers.';
comment on column shopify.customers.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.customers.id is 'Shopify''s numeric id.';
comment on column shopify.customers.first_name is 'First name.';
comment on column shopify.customers.last_name is 'Last name.';
comment on column shopify.customers.email is 'E-mail address.';
comment on column shopify.customers.phone is 'Phone number.';
comment on column shopify.customers.state is 'DECLINED, DISABLED, ENABLED or INVITED.';
comment on column shopify.customers.note is 'The note on the customer.';
comment on column shopify.customers.tags is 'Tags, sorted by name.';
comment on column shopify.customers.number_of_orders is 'Orders so far, as Shopify counts them.';
comment on column shopify.customers.amount_spent is 'Money spent so far, as Shopify counts it.';
comment on column shopify.customers.currency is 'Currency of amount_spent.';
comment on column shopify.customers.verified_email is 'Whether the e-mail address was verified.';
comment on column shopify.customers.tax_exempt is 'Whether no tax is taken.';
comment on column shopify.customers.created_at is 'When the customer was added.';
comment on column shopify.customers.updated_at is 'Shopify''s last change; decides which copy is newer.';
comment on column shopify.customers.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.customers.synced_at is 'When this row was last written here.';
comment on column shopify.customers.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.customers.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.customers.revision is 'Which staged copy this is; children carry that of their parent''s copy.';
comment on column shopify.customers.redacted_at is 'When personal data was erased on request; older copies cannot bring it back.';
comment on column shopify.customers.summary_at is 'When number_of_orders and amount_spent were true.';
comment on column shopify.customers.tags_at is 'When a copy with all tags was sent.';
comment on column shopify.customers.tags_changed_at is 'When a tag was last added or removed by webhook.';
comment on column shopify.customers.tag_changes is 'What webhooks said of each tag since that copy: when, and whether it was added.';

create table shopify.products (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    title text,
    handle text,
    vendor text,
    product_type text,
    status text,
    tags text[],
    published_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    total_inventory bigint,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    primary key (connection_id, id)
);
comment on table shopify.products is 'Products.';
comment on column shopify.products.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.products.id is 'Shopify''s numeric id.';
comment on column shopify.products.title is 'Title.';
comment on column shopify.products.handle is 'The name in the product''s address.';
comment on column shopify.products.vendor is 'Vendor.';
comment on column shopify.products.product_type is 'The merchant''s own category.';
comment on column shopify.products.status is 'ACTIVE, ARCHIVED, DRAFT or UNLISTED.';
comment on column shopify.products.tags is 'Tags, sorted by name.';
comment on column shopify.products.published_at is 'When it was published to the online store.';
comment on column shopify.products.created_at is 'When it was made.';
comment on column shopify.products.updated_at is 'Shopify''s last change; decides which copy is newer.';
comment on column shopify.products.total_inventory is 'Pieces in stock over all variants.';
comment on column shopify.products.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.products.synced_at is 'When this row was last written here.';
comment on column shopify.products.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.products.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.products.revision is 'Which staged copy this is; children carry that of their parent''s copy.';

create table shopify.product_variants (
    connection_id bigint not null references control.connections (id),
    id bigint not null,
    product_id bigint,
    title text,
    sku text,
    barcode text,
    price numeric,
    compare_at_price numeric,
    position integer,
    inventory_quantity bigint,
    inventory_item_id bigint,
    inventory_tracked boolean,
    taxable boolean,
    created_at timestamptz,
    updated_at timestamptz,
    deleted_at timestamptz,
    synced_at timestamptz not null default now(),
    source text not null,
    sent_at timestamptz not null,
    revision bigint not null,
    primary key (connection_id, id)
);
comment on table shopify.product_variants is 'Variants of products, a row each.';
comment on column shopify.product_variants.connection_id is 'The connection (one store of one brand) the row belongs to.';
comment on column shopify.product_variants.id is 'Shopify''s numeric id.';
comment on column shopify.product_variants.product_id is 'The product it belongs to.';
comment on column shopify.product_variants.title is 'Title.';
comment on column shopify.product_variants.sku is 'Stock keeping unit.';
comment on column shopify.product_variants.barcode is 'Barcode.';
comment on column shopify.product_variants.price is 'Price, in the shop''s currency.';
comment on column shopify.product_variants.compare_at_price is 'The price it is compared to when on sale.';
comment on column shopify.product_variants.position is 'Place among the variants, from 1.';
comment on column shopify.product_variants.inventory_quantity is 'Pieces in stock.';
comment on column shopify.product_variants.inventory_item_id is 'The inventory item behind it.';
comment on column shopify.product_variants.inventory_tracked is 'Whether Shopify counts its stock; only then it is part of total_inventory.';
comment on column shopify.product_variants.taxable is 'Whether it is taxed.';
comment on column shopify.product_variants.created_at is 'When it was made.';
comment on column shopify.product_variants.updated_at is 'Shopify''s last change to the variant.';
comment on column shopify.product_variants.deleted_at is 'When it ceased to exist at Shopify; null for what exists.';
comment on column shopify.product_variants.synced_at is 'When this row was last written here.';
comment on column shopify.product_variants.source is 'The way it came: recent, bulk, webhook, catch_up or audit.';
comment on column shopify.product_variants.sent_at is 'When Shopify sent this copy; breaks ties of updated_at.';
comment on column shopify.product_variants.revision is 'Which staged copy this is; children carry that of their parent''s copy.';

create index orders_created_at on shopify.orders (connection_id, created_at desc);
create index orders_updated_at on shopify.orders (connection_id, updated_at);
create index orders_customer on shopify.orders (connection_id, customer_id);
create index order_line_items_order on shopify.order_line_items (connection_id, order_id);
create index refunds_order on shopify.refunds (connection_id, order_id);
create index refunds_without_lines on shopify.refunds (connection_id, id) where lines_at is null;
create index refund_line_items_order on shopify.refund_line_items (connection_id, order_id);
create index product_variants_product on shopify.product_variants (connection_id, product_id);
