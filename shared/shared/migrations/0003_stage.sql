-- The landing zone: whatever arrives is staged here in batches, then promoted by stage.promote(batch).
-- Nobody reads these tables. `ordinal` ties children to the copy of the parent they came with: within a
-- batch for whole copies, null for children of a bulk operation (they may arrive far behind their parent)
-- and for refunds that came alone.

create schema if not exists stage;
comment on schema stage is 'Rows on their way to schema shopify. Nobody reads here.';
create table stage.orders (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
    id bigint not null,
    name text,
    created_at timestamptz,
    updated_at timestamptz not null,
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
    taxes_included boolean
);
create index on stage.orders (batch_id);
create table stage.order_line_items (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
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
    is_gift_card boolean
);
create index on stage.order_line_items (batch_id);
create table stage.refunds (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
    id bigint not null,
    order_id bigint,
    created_at timestamptz,
    total_refunded numeric,
    note text
);
create index on stage.refunds (batch_id);
create table stage.refund_line_items (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
    id bigint not null,
    refund_id bigint,
    order_id bigint,
    line_item_id bigint,
    quantity integer,
    subtotal numeric,
    total_tax numeric,
    restock_type text
);
create index on stage.refund_line_items (batch_id);
create table stage.customers (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
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
    updated_at timestamptz not null
);
create index on stage.customers (batch_id);
create table stage.products (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
    id bigint not null,
    title text,
    handle text,
    vendor text,
    product_type text,
    status text,
    tags text[],
    published_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz not null,
    total_inventory bigint
);
create index on stage.products (batch_id);
create table stage.product_variants (
    batch_id bigint not null,
    ordinal integer,
    sent_at timestamptz not null,
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
    updated_at timestamptz
);
create index on stage.product_variants (batch_id);
create table stage.deletions (
    batch_id bigint not null,
    sent_at timestamptz not null,
    resource text not null check (resource in ('orders', 'customers', 'products')),
    id bigint not null
);
create index on stage.deletions (batch_id);

create table stage.customer_summaries (
    batch_id bigint not null,
    sent_at timestamptz not null,
    id bigint not null,
    number_of_orders bigint not null,
    amount_spent numeric not null,
    currency text not null
);
create index on stage.customer_summaries (batch_id);

create table stage.customer_tags (
    batch_id bigint not null,
    sent_at timestamptz not null,
    id bigint not null,
    added text[] not null,
    removed text[] not null
);
create index on stage.customer_tags (batch_id);

-- Refunds whose lines came with them, all of them.
create table stage.refund_reads (
    batch_id bigint not null,
    sent_at timestamptz not null,
    id bigint not null
);
create index on stage.refund_reads (batch_id);

create table stage.redactions (
    batch_id bigint not null,
    sent_at timestamptz not null,
    customer_id bigint,
    order_ids bigint[] not null,
    whole_shop boolean not null
);
create index on stage.redactions (batch_id);

-- What an audit read from Shopify: just enough to compare. Emptied when the audit has compared.
create table stage.audited (
    job_id bigint not null,
    operation_id bigint not null,
    table_name text not null,
    id bigint not null,
    parent_id bigint,
    updated_at timestamptz,
    amount numeric
);
create index on stage.audited (job_id, table_name, id);
-- `lateral (... limit 1)`: a parent is looked up by its key for each staged row, whatever the planner makes of
-- a table that was empty a minute ago; a plain join once became a loop over the whole store for every batch.
-- `(select b.connection_id)`: the planner does not see which store it is. Beside one huge store its statistics
-- say that a new one has no rows; any index that begins with connection_id then looks as good as the right one,
-- and each look-up reads the whole store: a page of 50 orders once took seconds.

-- Orders with their lines and refunds. A copy replaces ours only if it is at least as new; its children
-- replace ours as a set, and whatever is not in that set is marked deleted.
create function stage.promote_orders(b control.batches) returns jsonb
language plpgsql as $$
declare
    n bigint;
    written jsonb := '{}';
begin
    -- An object may come twice in a batch: only its newest copy counts.
    delete from stage.orders
    where ctid = any (array(
        select ctid
        from (
            select
                ctid,
                row_number() over (partition by id order by updated_at desc, sent_at desc, ordinal desc) as nth
            from stage.orders
            where batch_id = b.id
        ) copies
        where nth > 1
    ));

    insert into shopify.orders as t (
        connection_id, id, name, created_at, updated_at, processed_at, cancelled_at, closed_at,
        cancel_reason, financial_status, fulfillment_status, currency, presentment_currency,
        total_price, subtotal_price, total_tax, total_discounts, total_shipping, total_refunded,
        current_total_price, current_subtotal_price, current_total_tax, current_total_discounts,
        customer_id, email, phone, note, source_name, tags, test, taxes_included, source, sent_at,
        revision
    )
    select
        b.connection_id, s.id, s.name, s.created_at, s.updated_at, s.processed_at, s.cancelled_at,
        s.closed_at, s.cancel_reason, s.financial_status, s.fulfillment_status, s.currency,
        s.presentment_currency, s.total_price, s.subtotal_price, s.total_tax, s.total_discounts,
        s.total_shipping, s.total_refunded, s.current_total_price, s.current_subtotal_price,
        s.current_total_tax, s.current_total_discounts, s.customer_id, s.email, s.phone, s.note,
        s.source_name, s.tags, s.test, s.taxes_included, b.source, s.sent_at, b.revision
    from stage.orders s
    where s.batch_id = b.id
    order by s.id
    on conflict (connection_id, id) do update
    set
        name = excluded.name,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at,
        processed_at = excluded.processed_at,
        cancelled_at = excluded.cancelled_at,
        closed_at = excluded.closed_at,
        cancel_reason = excluded.cancel_reason,
        financial_status = excluded.financial_status,
        fulfillment_status = excluded.fulfillment_status,
        currency = excluded.currency,
        presentment_currency = excluded.presentment_currency,
        total_price = excluded.total_price,
        subtotal_price = excluded.subtotal_price,
        total_tax = excluded.total_tax,
        total_discounts = excluded.total_discounts,
        total_shipping = excluded.total_shipping,
        total_refunded = excluded.total_refunded,
        current_total_price = excluded.current_total_price,
        current_subtotal_price = excluded.current_subtotal_price,
        current_total_tax = excluded.current_total_tax,
        current_total_discounts = excluded.current_total_discounts,
        customer_id = excluded.customer_id,
        email = case when t.redacted_at >= excluded.sent_at then null else excluded.email end,
        phone = case when t.redacted_at >= excluded.sent_at then null else excluded.phone end,
        note = case when t.redacted_at >= excluded.sent_at then null else excluded.note end,
        source_name = excluded.source_name,
        tags = excluded.tags,
        test = excluded.test,
        taxes_included = excluded.taxes_included,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision
    where (t.updated_at is null or (t.updated_at, t.sent_at) <= (excluded.updated_at, excluded.sent_at))
      and (t.deleted_at is null or t.deleted_at < excluded.updated_at);
    get diagnostics n = row_count;
    written := written || jsonb_build_object('orders', n);

    insert into shopify.order_line_items as t (
        connection_id, id, order_id, product_id, variant_id, title, variant_title, sku, vendor,
        quantity, current_quantity, original_unit_price, discounted_unit_price, original_total,
        discounted_total, requires_shipping, taxable, is_gift_card, source, sent_at, revision
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.order_id, s.product_id, s.variant_id, s.title, s.variant_title,
        s.sku, s.vendor, s.quantity, s.current_quantity, s.original_unit_price,
        s.discounted_unit_price, s.original_total, s.discounted_total, s.requires_shipping,
        s.taxable, s.is_gift_card, b.source, s.sent_at, b.revision
    from stage.order_line_items s
    cross join lateral (
        select 1 from shopify.orders p
        where p.connection_id = (select b.connection_id) and p.id = s.order_id and p.revision = b.revision
        limit 1
    ) parent
    where s.batch_id = b.id
      and case
        when b.operation_id is not null then true
        else exists (
            select from stage.orders c where c.batch_id = b.id and c.id = s.order_id and c.ordinal = s.ordinal
        )
      end
    order by s.id
    on conflict (connection_id, id) do update
    set
        order_id = excluded.order_id,
        product_id = excluded.product_id,
        variant_id = excluded.variant_id,
        title = excluded.title,
        variant_title = excluded.variant_title,
        sku = excluded.sku,
        vendor = excluded.vendor,
        quantity = excluded.quantity,
        current_quantity = excluded.current_quantity,
        original_unit_price = excluded.original_unit_price,
        discounted_unit_price = excluded.discounted_unit_price,
        original_total = excluded.original_total,
        discounted_total = excluded.discounted_total,
        requires_shipping = excluded.requires_shipping,
        taxable = excluded.taxable,
        is_gift_card = excluded.is_gift_card,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision;
    get diagnostics n = row_count;
    written := written || jsonb_build_object('order_line_items', n);

    insert into shopify.refunds as t (
        connection_id, id, order_id, created_at, total_refunded, note, source, sent_at, revision
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.order_id, s.created_at, s.total_refunded,
        case when parent.redacted_at >= s.sent_at then null else s.note end, b.source, s.sent_at, b.revision
    from stage.refunds s
    cross join lateral (
        select p.redacted_at from shopify.orders p
        where p.connection_id = (select b.connection_id) and p.id = s.order_id and p.revision = b.revision
        limit 1
    ) parent
    where s.batch_id = b.id
      and case
        when b.operation_id is not null then true
        else exists (
            select from stage.orders c where c.batch_id = b.id and c.id = s.order_id and c.ordinal = s.ordinal
        )
      end
    order by s.id
    on conflict (connection_id, id) do update
    set
        order_id = excluded.order_id,
        created_at = excluded.created_at,
        total_refunded = excluded.total_refunded,
        note = excluded.note,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision;
    get diagnostics n = row_count;
    written := written || jsonb_build_object('refunds', n);
    if b.operation_id is null then
        update shopify.order_line_items t
        set deleted_at = p.sent_at, synced_at = now()
        from stage.orders s
        cross join lateral (
            select p.id, p.sent_at, p.updated_at from shopify.orders p
            where p.connection_id = (select b.connection_id) and p.id = s.id and p.revision = b.revision
            limit 1
        ) p
        where s.batch_id = b.id
          and t.connection_id = (select b.connection_id) and t.order_id = p.id
          and t.revision <> b.revision and t.deleted_at is null;

        update shopify.refunds t
        set deleted_at = p.sent_at, synced_at = now()
        from stage.orders s
        cross join lateral (
            select p.id, p.sent_at, p.updated_at from shopify.orders p
            where p.connection_id = (select b.connection_id) and p.id = s.id and p.revision = b.revision
            limit 1
        ) p
        where s.batch_id = b.id
          and t.connection_id = (select b.connection_id) and t.order_id = p.id
          and t.revision <> b.revision and (t.revision <> 0 or t.created_at < p.updated_at) and t.deleted_at is null;
    end if;
    return written;
end $$;
-- Refunds that came alone (`refunds/create`): revision 0 says so. A copy of the order from before such a
-- refund does not list it, and must not remove it.
create function stage.promote_lone_refunds(b control.batches) returns bigint
language plpgsql as $$
declare
    n bigint;
begin
    insert into shopify.refunds as t (
        connection_id, id, order_id, created_at, total_refunded, note, deleted_at, source, sent_at, revision
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.order_id, s.created_at, s.total_refunded,
        case when p.redacted_at >= s.sent_at then null else s.note end, p.deleted_at, b.source, s.sent_at, 0
    from stage.refunds s
    left join shopify.orders p on p.connection_id = (select b.connection_id) and p.id = s.order_id
    where s.batch_id = b.id and s.ordinal is null
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set
        created_at = excluded.created_at,
        total_refunded = excluded.total_refunded,
        note = excluded.note,
        deleted_at = excluded.deleted_at,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision
    where t.sent_at <= excluded.sent_at;
    get diagnostics n = row_count;
    return n;
end $$;

-- Lines of refunds. A refund never changes: whichever copy of its order brings them, they are the same.
create function stage.promote_refund_lines(b control.batches) returns bigint
language plpgsql as $$
declare
    n bigint;
begin
    insert into shopify.refund_line_items as t (
        connection_id, id, refund_id, order_id, line_item_id, quantity, subtotal, total_tax, restock_type,
        deleted_at, source, sent_at, revision
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.refund_id, s.order_id, s.line_item_id, s.quantity, s.subtotal, s.total_tax,
        s.restock_type, p.deleted_at, b.source, s.sent_at, 0
    from stage.refund_line_items s
    left join shopify.orders p on p.connection_id = (select b.connection_id) and p.id = s.order_id
    where s.batch_id = b.id
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set
        quantity = excluded.quantity,
        subtotal = excluded.subtotal,
        total_tax = excluded.total_tax,
        restock_type = excluded.restock_type,
        deleted_at = excluded.deleted_at,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision
    where t.sent_at <= excluded.sent_at;
    get diagnostics n = row_count;
    update shopify.refunds r
    set lines_at = s.sent_at
    from stage.refund_reads s
    where s.batch_id = b.id and r.connection_id = (select b.connection_id) and r.id = s.id;
    return n;
end $$;

-- What webhooks said last of each tag: {"vip": {"at": "2026-11-01T00:00:00Z", "added": true}}. They come in any
-- order, and what is older than what is known of a tag says nothing new of it.
create function stage.note_tags(known jsonb, said_at timestamptz, added text[], removed text[]) returns jsonb
language sql stable as $$
    select known || coalesce(jsonb_object_agg(tag, jsonb_build_object('at', said_at, 'added', was_added)), '{}')
    from (
        select unnest(added) as tag, true as was_added
        union all
        select unnest(removed), false
    ) said
    where said_at >= coalesce((known -> tag ->> 'at')::timestamptz, '-infinity');
$$;

-- What was said since a moment: a copy of then has all that was said before.
create function stage.tags_since(known jsonb, moment timestamptz) returns jsonb
language sql stable as $$
    select coalesce(jsonb_object_agg(key, value), '{}')
    from jsonb_each(known)
    where (value ->> 'at')::timestamptz >= moment;
$$;

-- The tags of a copy with what was said of tags since, in Shopify's order.
create function stage.with_tags(tags text[], said jsonb) returns text[]
language sql immutable as $$
    select coalesce(array_agg(tag order by lower(tag), tag), '{}')
    from (
        select unnest(tags) as tag
        union
        select key from jsonb_each(said)
    ) t
    where coalesce((said -> tag ->> 'added')::boolean, true);
$$;

-- Customers. Webhooks leave out tags and totals (API 2025-01 and later): what they leave out stays as it is.
create function stage.promote_customers(b control.batches) returns jsonb
language plpgsql as $$
declare
    n bigint;
    change stage.customer_tags;
    written jsonb := '{}';
begin
    insert into shopify.customers as t (
        connection_id, id, first_name, last_name, email, phone, state, note, tags, number_of_orders,
        amount_spent, currency, verified_email, tax_exempt, created_at, updated_at, source, sent_at,
        revision, summary_at, tags_at
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.first_name, s.last_name, s.email, s.phone, s.state, s.note,
        coalesce(s.tags, '{}'), s.number_of_orders, s.amount_spent, s.currency, s.verified_email,
        s.tax_exempt, s.created_at, s.updated_at, b.source, s.sent_at, b.revision, case when
        s.number_of_orders is not null then s.sent_at end, case when s.tags is not null then
        s.sent_at end
    from stage.customers s
    where s.batch_id = b.id
    order by s.id, s.updated_at desc, s.sent_at desc, s.ordinal desc
    on conflict (connection_id, id) do update
    set
        first_name = case when t.redacted_at >= excluded.sent_at then null else excluded.first_name end,
        last_name = case when t.redacted_at >= excluded.sent_at then null else excluded.last_name end,
        email = case when t.redacted_at >= excluded.sent_at then null else excluded.email end,
        phone = case when t.redacted_at >= excluded.sent_at then null else excluded.phone end,
        state = excluded.state,
        note = case when t.redacted_at >= excluded.sent_at then null else excluded.note end,
        verified_email = excluded.verified_email,
        tax_exempt = excluded.tax_exempt,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision
    where (t.updated_at is null or (t.updated_at, t.sent_at) <= (excluded.updated_at, excluded.sent_at))
      and (t.deleted_at is null or t.deleted_at < excluded.updated_at);
    get diagnostics n = row_count;
    written := written || jsonb_build_object('customers', n);

    -- Totals and tags have ages of their own: a webhook's copy, which lacks them, may be the newer one of the
    -- rest.
    update shopify.customers t
    set
        number_of_orders = s.number_of_orders,
        amount_spent = s.amount_spent,
        currency = s.currency,
        summary_at = s.sent_at
    from (
        select distinct on (id) * from stage.customers
        where batch_id = b.id and number_of_orders is not null
        order by id, sent_at desc
    ) s
    where t.connection_id = (select b.connection_id) and t.id = s.id
      and coalesce(t.summary_at, '-infinity') < s.sent_at;

    update shopify.customers t
    set
        tags = stage.with_tags(s.tags, stage.tags_since(t.tag_changes, s.sent_at)),
        tags_at = s.sent_at,
        tag_changes = stage.tags_since(t.tag_changes, s.sent_at)
    from (
        select distinct on (id) * from stage.customers
        where batch_id = b.id and tags is not null
        order by id, sent_at desc
    ) s
    where t.connection_id = (select b.connection_id) and t.id = s.id and coalesce(t.tags_at, '-infinity') < s.sent_at;

    -- Totals that came alone (`customers/purchasing_summary`), perhaps before the customer.
    insert into shopify.customers as t (
        connection_id, id, number_of_orders, amount_spent, currency, tags, source, sent_at, revision, summary_at
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.number_of_orders, s.amount_spent, s.currency, '{}'::text[], b.source, s.sent_at,
        b.revision, s.sent_at
    from stage.customer_summaries s
    where s.batch_id = b.id
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set
        number_of_orders = excluded.number_of_orders,
        amount_spent = excluded.amount_spent,
        currency = excluded.currency,
        summary_at = excluded.summary_at,
        synced_at = now()
    where excluded.summary_at >= coalesce(t.summary_at, '-infinity');

    -- Tags that were added or removed. A copy with all tags that is younger has them already.
    for change in select * from stage.customer_tags where batch_id = b.id order by sent_at loop
        insert into shopify.customers as t (
            connection_id, id, tags, tag_changes, tags_changed_at, source, sent_at, revision
        )
        values (
            b.connection_id, change.id, stage.with_tags(change.added, '{}'),
            stage.note_tags('{}', change.sent_at, change.added, change.removed), change.sent_at, b.source, change.sent_at,
            b.revision
        )
        on conflict (connection_id, id) do update
        set
            tags = stage.with_tags(
                t.tags, stage.note_tags(t.tag_changes, change.sent_at, change.added, change.removed)
            ),
            tag_changes = stage.note_tags(t.tag_changes, change.sent_at, change.added, change.removed),
            tags_changed_at = greatest(t.tags_changed_at, change.sent_at),
            synced_at = now()
        where change.sent_at >= coalesce(t.tags_at, '-infinity');
    end loop;
    return written;
end $$;

-- Products with their variants: like orders with their lines.
create function stage.promote_products(b control.batches) returns jsonb
language plpgsql as $$
declare
    n bigint;
    counted bigint[];
    written jsonb := '{}';
begin
    -- An object may come twice in a batch: only its newest copy counts.
    delete from stage.products
    where ctid = any (array(
        select ctid
        from (
            select
                ctid,
                row_number() over (partition by id order by updated_at desc, sent_at desc, ordinal desc) as nth
            from stage.products
            where batch_id = b.id
        ) copies
        where nth > 1
    ));

    insert into shopify.products as t (
        connection_id, id, title, handle, vendor, product_type, status, tags, published_at,
        created_at, updated_at, total_inventory, source, sent_at, revision
    )
    select
        b.connection_id, s.id, s.title, s.handle, s.vendor, s.product_type, s.status, s.tags,
        s.published_at, s.created_at, s.updated_at, s.total_inventory, b.source, s.sent_at,
        b.revision
    from stage.products s
    where s.batch_id = b.id
    order by s.id
    on conflict (connection_id, id) do update
    set
        title = excluded.title,
        handle = excluded.handle,
        vendor = excluded.vendor,
        product_type = excluded.product_type,
        status = excluded.status,
        tags = excluded.tags,
        published_at = excluded.published_at,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at,
        total_inventory = excluded.total_inventory,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision
    where (t.updated_at is null or (t.updated_at, t.sent_at) <= (excluded.updated_at, excluded.sent_at))
      and (t.deleted_at is null or t.deleted_at < excluded.updated_at);
    get diagnostics n = row_count;
    written := written || jsonb_build_object('products', n);

    insert into shopify.product_variants as t (
        connection_id, id, product_id, title, sku, barcode, price, compare_at_price, position,
        inventory_quantity, inventory_item_id, inventory_tracked, taxable, created_at, updated_at,
        source, sent_at, revision
    )
    select distinct on (s.id)
        b.connection_id, s.id, s.product_id, s.title, s.sku, s.barcode, s.price, s.compare_at_price,
        s.position, s.inventory_quantity, s.inventory_item_id, s.inventory_tracked, s.taxable,
        s.created_at, s.updated_at, b.source, s.sent_at, b.revision
    from stage.product_variants s
    cross join lateral (
        select 1 from shopify.products p
        where p.connection_id = (select b.connection_id) and p.id = s.product_id and p.revision = b.revision
        limit 1
    ) parent
    where s.batch_id = b.id
      and case
        when b.operation_id is not null then true
        else exists (
            select from stage.products c where c.batch_id = b.id and c.id = s.product_id and c.ordinal = s.ordinal
        )
      end
    order by s.id
    on conflict (connection_id, id) do update
    set
        product_id = excluded.product_id,
        title = excluded.title,
        sku = excluded.sku,
        barcode = excluded.barcode,
        price = excluded.price,
        compare_at_price = excluded.compare_at_price,
        position = excluded.position,
        inventory_quantity = excluded.inventory_quantity,
        inventory_item_id = excluded.inventory_item_id,
        inventory_tracked = coalesce(excluded.inventory_tracked, t.inventory_tracked),
        taxable = excluded.taxable,
        created_at = excluded.created_at,
        updated_at = excluded.updated_at,
        deleted_at = null,
        synced_at = now(),
        source = excluded.source,
        sent_at = excluded.sent_at,
        revision = excluded.revision;
    get diagnostics n = row_count;
    written := written || jsonb_build_object('product_variants', n);

    if b.operation_id is null then
        update shopify.product_variants t
        set deleted_at = p.sent_at, synced_at = now()
        from stage.products s
        cross join lateral (
            select p.id, p.sent_at, p.updated_at from shopify.products p
            where p.connection_id = (select b.connection_id) and p.id = s.id and p.revision = b.revision
            limit 1
        ) p
        where s.batch_id = b.id
          and t.connection_id = (select b.connection_id) and t.product_id = p.id
          and t.revision <> b.revision and t.deleted_at is null;
    end if;

    -- Webhooks do not say how much there is of a product, nor which variants count. The latter any whole copy
    -- says, one that lost to a webhook, too: else the stock would be wrong until the next catch_up.
    if b.source = 'webhook' then
        counted := array(select s.id from stage.products s where s.batch_id = b.id);
    else
        with told as (
            update shopify.product_variants t
            set inventory_tracked = s.inventory_tracked
            from stage.product_variants s
            where s.batch_id = b.id and s.inventory_tracked is not null
              and t.connection_id = (select b.connection_id) and t.id = s.id and t.inventory_tracked is null
            returning t.product_id
        )
        select array_agg(distinct product_id) into counted from told;
    end if;
    update shopify.products p
    set total_inventory = (
        select coalesce(sum(v.inventory_quantity) filter (where coalesce(v.inventory_tracked, true)), 0)
        from shopify.product_variants v
        where v.connection_id = (select b.connection_id) and v.product_id = p.id and v.deleted_at is null
    )
    where p.connection_id = (select b.connection_id) and p.id = any(counted) and p.source = 'webhook';
    return written;
end $$;

-- Deletions: they leave a tombstone, even of what never arrived, that only a newer copy can lift. Its revision
-- is the deletion's: children of a bulk copy that come later no longer find their parent. An older tombstone
-- gives way: a privacy request leaves one of the year 1970, which any copy would lift.
create function stage.promote_deletions(b control.batches) returns void
language plpgsql as $$
begin
    insert into shopify.orders as t (connection_id, id, deleted_at, source, sent_at, revision)
    select distinct on (s.id) b.connection_id, s.id, s.sent_at, b.source, s.sent_at, b.revision
    from stage.deletions s
    where s.batch_id = b.id and s.resource = 'orders'
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set deleted_at = excluded.deleted_at, synced_at = now(), source = excluded.source, revision = excluded.revision
    where coalesce(t.deleted_at, '-infinity') < excluded.deleted_at
      and (t.updated_at is null or t.updated_at <= excluded.deleted_at);
    update shopify.order_line_items t
    set deleted_at = p.deleted_at, synced_at = now()
    from stage.deletions s
    join shopify.orders p on p.connection_id = (select b.connection_id) and p.id = s.id and p.deleted_at is not null
    where s.batch_id = b.id and s.resource = 'orders'
      and t.connection_id = (select b.connection_id) and t.order_id = s.id and t.deleted_at is null;
    update shopify.refunds t
    set deleted_at = p.deleted_at, synced_at = now()
    from stage.deletions s
    join shopify.orders p on p.connection_id = (select b.connection_id) and p.id = s.id and p.deleted_at is not null
    where s.batch_id = b.id and s.resource = 'orders'
      and t.connection_id = (select b.connection_id) and t.order_id = s.id and t.deleted_at is null;
    update shopify.refund_line_items t
    set deleted_at = p.deleted_at, synced_at = now()
    from stage.deletions s
    join shopify.orders p on p.connection_id = (select b.connection_id) and p.id = s.id and p.deleted_at is not null
    where s.batch_id = b.id and s.resource = 'orders'
      and t.connection_id = (select b.connection_id) and t.order_id = s.id and t.deleted_at is null;
    insert into shopify.customers as t (connection_id, id, deleted_at, source, sent_at, revision)
    select distinct on (s.id) b.connection_id, s.id, s.sent_at, b.source, s.sent_at, b.revision
    from stage.deletions s
    where s.batch_id = b.id and s.resource = 'customers'
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set deleted_at = excluded.deleted_at, synced_at = now(), source = excluded.source, revision = excluded.revision
    where coalesce(t.deleted_at, '-infinity') < excluded.deleted_at
      and (t.updated_at is null or t.updated_at <= excluded.deleted_at);
    insert into shopify.products as t (connection_id, id, deleted_at, source, sent_at, revision)
    select distinct on (s.id) b.connection_id, s.id, s.sent_at, b.source, s.sent_at, b.revision
    from stage.deletions s
    where s.batch_id = b.id and s.resource = 'products'
    order by s.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set deleted_at = excluded.deleted_at, synced_at = now(), source = excluded.source, revision = excluded.revision
    where coalesce(t.deleted_at, '-infinity') < excluded.deleted_at
      and (t.updated_at is null or t.updated_at <= excluded.deleted_at);
    update shopify.product_variants t
    set deleted_at = p.deleted_at, synced_at = now()
    from stage.deletions s
    join shopify.products p on p.connection_id = (select b.connection_id) and p.id = s.id and p.deleted_at is not null
    where s.batch_id = b.id and s.resource = 'products'
      and t.connection_id = (select b.connection_id) and t.product_id = s.id and t.deleted_at is null;
end $$;

-- Privacy requests: personal data goes, and copies from before the request bring the rest without it. What has
-- not come yet gets a row that nobody sees (deleted long ago), which remembers the request.
create function stage.promote_redactions(b control.batches) returns void
language plpgsql as $$
declare
    staged text;
begin
    insert into shopify.customers as t (connection_id, id, redacted_at, deleted_at, source, sent_at, revision)
    select distinct on (s.customer_id)
        b.connection_id, s.customer_id, s.sent_at, 'epoch', b.source, s.sent_at, b.revision
    from stage.redactions s
    where s.batch_id = b.id and s.customer_id is not null
    order by s.customer_id, s.sent_at desc
    on conflict (connection_id, id) do update
    set
        first_name = null,
        last_name = null,
        email = null,
        phone = null,
        note = null,
        redacted_at = excluded.redacted_at,
        synced_at = now();

    insert into shopify.orders as t (connection_id, id, redacted_at, deleted_at, source, sent_at, revision)
    select distinct on (o.id) b.connection_id, o.id, s.sent_at, 'epoch', b.source, s.sent_at, b.revision
    from stage.redactions s
    cross join unnest(s.order_ids) as o (id)
    where s.batch_id = b.id
    order by o.id, s.sent_at desc
    on conflict (connection_id, id) do update
    set email = null, phone = null, note = null, redacted_at = excluded.redacted_at, synced_at = now();

    update shopify.refunds t set note = null, synced_at = now()
    from stage.redactions s
    where s.batch_id = b.id and t.connection_id = (select b.connection_id) and t.order_id = any(s.order_ids)
      and t.note is not null;

    if exists (select from stage.redactions s where s.batch_id = b.id and s.whole_shop) then
        -- First what waits to be promoted: else it would bring rows back.
        foreach staged in array array[
            'orders', 'order_line_items', 'refunds', 'refund_line_items', 'customers', 'products',
            'product_variants', 'customer_summaries', 'customer_tags'
        ] loop
            execute format(
                'delete from stage.%I s using control.batches o, stage.redactions r '
                'where r.batch_id = $1 and r.whole_shop and o.connection_id = $2 and o.promoted_at is null '
                'and s.batch_id = o.id and s.sent_at <= r.sent_at', staged
            )
            using b.id, b.connection_id;
        end loop;
        delete from shopify.product_variants where connection_id = b.connection_id;
        delete from shopify.products where connection_id = b.connection_id;
        delete from shopify.customers where connection_id = b.connection_id;
        delete from shopify.refund_line_items where connection_id = b.connection_id;
        delete from shopify.refunds where connection_id = b.connection_id;
        delete from shopify.order_line_items where connection_id = b.connection_id;
        delete from shopify.orders where connection_id = b.connection_id;
    end if;
end $$;

-- The last batch of a bulk operation: what the parents it brought no longer have is marked deleted.
create function stage.close_operation(b control.batches) returns void
language plpgsql as $$
begin
    update shopify.order_line_items t
    set deleted_at = p.sent_at, synced_at = now()
    from shopify.orders p
    where p.connection_id = (select b.connection_id) and p.revision = b.revision
      and t.connection_id = (select b.connection_id) and t.order_id = p.id
      and t.revision <> b.revision and t.deleted_at is null;

    update shopify.refunds t
    set deleted_at = p.sent_at, synced_at = now()
    from shopify.orders p
    where p.connection_id = (select b.connection_id) and p.revision = b.revision
      and t.connection_id = (select b.connection_id) and t.order_id = p.id
      and t.revision <> b.revision and (t.revision <> 0 or t.created_at < p.updated_at) and t.deleted_at is null;

    update shopify.product_variants t
    set deleted_at = p.sent_at, synced_at = now()
    from shopify.products p
    where p.connection_id = (select b.connection_id) and p.revision = b.revision
      and t.connection_id = (select b.connection_id) and t.product_id = p.id
      and t.revision <> b.revision and t.deleted_at is null;
end $$;

-- The rows of a batch: stage.* -> shopify.*; returns how many of each table were new or newer.
create function stage.promote_rows(b control.batches) returns jsonb
language plpgsql as $$
declare
    alone bigint;
    counts jsonb := '{}';
begin
    if b.rows ? 'orders' or b.rows ? 'order_line_items' or (b.rows ? 'refunds' and b.operation_id is not null) then
        counts := counts || stage.promote_orders(b);
    end if;
    if b.rows ? 'refunds' and b.operation_id is null then
        alone := stage.promote_lone_refunds(b);
        counts := counts || jsonb_build_object('refunds', coalesce((counts ->> 'refunds')::bigint, 0) + alone);
    end if;
    if b.rows ?| array['refund_line_items', 'refund_reads'] then
        counts := counts || jsonb_build_object('refund_line_items', stage.promote_refund_lines(b));
    end if;
    if b.rows ?| array['customers', 'customer_summaries', 'customer_tags'] then
        counts := counts || stage.promote_customers(b);
    end if;
    if b.rows ? 'products' or b.rows ? 'product_variants' then
        counts := counts || stage.promote_products(b);
    end if;
    if b.rows ? 'deletions' then
        perform stage.promote_deletions(b);
    end if;
    if b.rows ? 'redactions' then
        perform stage.promote_redactions(b);
    end if;
    return counts;
end $$;

-- The rows of a batch leave the landing zone.
create function stage.clear(batch bigint) returns void
language plpgsql as $$
begin
    delete from stage.orders where batch_id = batch;
    delete from stage.order_line_items where batch_id = batch;
    delete from stage.refunds where batch_id = batch;
    delete from stage.refund_line_items where batch_id = batch;
    delete from stage.customers where batch_id = batch;
    delete from stage.products where batch_id = batch;
    delete from stage.product_variants where batch_id = batch;
    delete from stage.deletions where batch_id = batch;
    delete from stage.customer_summaries where batch_id = batch;
    delete from stage.customer_tags where batch_id = batch;
    delete from stage.refund_reads where batch_id = batch;
    delete from stage.redactions where batch_id = batch;
end $$;

-- What the parts of a batch have written, added up.
create function stage.add_counts(one jsonb, other jsonb) returns jsonb
language sql immutable as $$
    select jsonb_object_agg(key, written)
    from (
        select key, sum(value::bigint) as written
        from (select * from jsonb_each_text(one) union all select * from jsonb_each_text(other)) counts
        group by key
    ) sums
$$;

-- Promote a batch: all that is left of it; returns how many rows of each table were new or newer.
-- The caller holds the connection's advisory lock, so that no other batch of the store is under way.
create function stage.promote(batch bigint) returns jsonb
language plpgsql as $$
declare
    b control.batches;
    counts jsonb;
begin
    select * into strict b from control.batches where id = batch;
    counts := stage.promote_rows(b);
    if b.closes_operation then
        perform stage.close_operation(b);
    end if;
    if b.written is not null then
        counts := coalesce(stage.add_counts(b.written, counts), '{}');
    end if;
    update control.batches set promoted_at = now(), written = counts where id = batch;
    perform stage.clear(batch);
    return counts;
end $$;
