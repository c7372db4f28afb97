-- connection: the store that an event is about
select shop, scopes from control.connections where id = $1;

-- begin_progress: the row of a connection that had none
insert into control.progress (connection_id, brand_id, epoch, version, document)
values ($1, $2, $3, 0, '{}') on conflict do nothing;

-- lock_progress: one event of a connection at a time
select epoch, version, state::text as state from control.progress where connection_id = $1 for update;

-- write_progress: what is known now, and the document that says so
update control.progress
set epoch = $2, version = $3, state = $4::text::jsonb, document = $5::text::jsonb, updated_at = now()
where connection_id = $1;

-- announce: every process that shows this connection looks again
select pg_notify('backstock_progress', $1::text);

-- snapshots: what is known of some brands; a store that was connected just now has no progress yet
select c.id, c.brand_id, c.shop, c.created_at, p.epoch, p.version, p.state::text as state
from control.connections c
left join control.progress p on p.connection_id = c.id
where c.brand_id = any($1::text[]);

-- list_brands: a page of brands, in a stable order
select brand_id from control.connections where brand_id > $1 order by brand_id limit $2;

-- totals: what a dashboard can count; test orders are left out
select
    (select count(*) from shopify.customers where connection_id = $1 and deleted_at is null) as customers,
    (select count(*) from shopify.products where connection_id = $1 and deleted_at is null) as products,
    count(*) as orders,
    coalesce(sum(total_price), 0) as order_value,
    min(created_at) as oldest_order_at,
    max(currency) as currency
from shopify.orders
where connection_id = $1 and deleted_at is null and test is not true;

-- newest_orders: the last few, without anything personal
select
    o.id, o.name, o.created_at, o.total_price, o.currency, o.financial_status, o.fulfillment_status,
    (
        select coalesce(sum(l.quantity), 0) from shopify.order_line_items l
        where l.connection_id = o.connection_id and l.order_id = o.id and l.deleted_at is null
    ) as items
from shopify.orders o
where o.connection_id = $1 and o.deleted_at is null and o.test is not true and o.created_at is not null
order by o.created_at desc, o.id desc
limit $2;

-- orders_per_day: from the given time on, by days of UTC
select (created_at at time zone 'UTC')::date as start, count(*) as orders, coalesce(sum(total_price), 0) as value
from shopify.orders
where connection_id = $1 and created_at >= $2 and deleted_at is null and test is not true
group by 1 order by 1;

-- orders_per_month: from the given time on, by months of UTC
select
    date_trunc('month', created_at at time zone 'UTC')::date as start,
    count(*) as orders,
    coalesce(sum(total_price), 0) as value
from shopify.orders
where connection_id = $1 and created_at >= $2 and deleted_at is null and test is not true
group by 1 order by 1;

-- top_products: what sold best since the given time
select l.product_id, max(l.title) as title, sum(l.quantity) as quantity, coalesce(sum(l.discounted_total), 0) as value
from shopify.orders o
join shopify.order_line_items l on l.connection_id = o.connection_id and l.order_id = o.id
where
    o.connection_id = $1 and o.created_at >= $2 and o.deleted_at is null and o.test is not true
    and l.deleted_at is null and l.product_id is not null
group by l.product_id
order by value desc, l.product_id
limit $3;
