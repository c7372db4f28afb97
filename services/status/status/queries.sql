-- settle_events: those that nobody counted yet; what is no longer in the outbox was counted long ago
insert into control.inbox (event_id, service)
select o.event_id, 'status' from control.outbox o where o.event_id = any($1::uuid[]) order by o.event_id
on conflict do nothing
returning event_id;

-- begin_progress: the rows of connections that had none
insert into control.progress (connection_id, brand_id, epoch, version, document)
select c.id, c.brand_id, $2, 0, '{}' from control.connections c where c.id = any($1::bigint[]) order by c.id
on conflict do nothing;

-- lock_progress: in one order, so that two who take several never wait for each other
select
    p.connection_id, p.brand_id, p.epoch, p.version, p.state::text as state, c.shop, c.scopes,
    coalesce((p.document ->> 'percent')::float8, 0) as shown_percent
from control.progress p
join control.connections c on c.id = p.connection_id
where p.connection_id = any($1::bigint[])
order by p.connection_id
for update of p;

-- write_progress: what is known now, and the document that says so
update control.progress p
set epoch = n.epoch, version = n.version, state = n.state::jsonb, document = n.document::jsonb, updated_at = now()
from unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[])
    as n (connection_id, epoch, version, state, document)
where p.connection_id = n.connection_id;

-- announce: every process that shows these connections looks again
select pg_notify('backstock_progress', c::text) from unnest($1::bigint[]) as c;

-- history: the events of a connection that were counted; one that was put aside will be when it is sent again
select o.event_type, o.payload
from control.outbox o
join control.inbox i on i.event_id = o.event_id and i.service = 'status'
where o.connection_id = $1 and 'status' = any(o.consumers) and not exists (
    select from control.dead_letters d
    where d.event_id = o.event_id and d.service = 'status' and d.replayed_at is null
)
order by o.id;

-- begin_baselines: the rows of connections that had none
insert into control.progress_baseline (connection_id)
select c.id from control.connections c where c.id = any($1::bigint[]) order by c.id
on conflict do nothing;

-- lock_baseline: nobody deletes events of this connection meanwhile
select connection_id, state::text as state, events from control.progress_baseline
where connection_id = $1
for update;

-- lock_baselines: in one order, so that two who take several never wait for each other
select connection_id, state::text as state, events from control.progress_baseline
where connection_id = any($1::bigint[])
order by connection_id
for update;

-- write_baseline: with the events that are being deleted
update control.progress_baseline set state = $2::text::jsonb, events = $3, updated_at = now()
where connection_id = $1;

-- old_events: handled by all, so many seconds ago, and by none put aside, unless it was dropped for good;
-- what status itself had put aside was never counted
select
    o.id, o.event_type, o.payload,
    'status' = any(o.consumers) and not exists (
        select from control.dead_letters d
        where d.event_id = o.event_id and d.service = 'status' and d.replayed_at is null
    ) as counted
from control.outbox o
where o.settled_at < now() - $1::float8 * interval '1 second' and not exists (
    select from control.dead_letters d
    where d.event_id = o.event_id and d.replayed_at is null and d.dropped_at is null
)
order by o.settled_at
limit $2
for update of o skip locked;

-- delete_events: their sum is in the baselines
delete from control.outbox where id = any($1::bigint[]);

-- connections: whose progress can be rebuilt; all, or one brand's
select id from control.connections where $1::text is null or brand_id = $1 order by id;

-- snapshots: what is known of some brands; a store that was connected just now has no progress yet
select c.id, c.brand_id, c.shop, c.created_at, p.epoch, p.version, p.state::text as state
from control.connections c
left join control.progress p on p.connection_id = c.id
where c.brand_id = any($1::text[]);

-- list_brands: a page of brands, in a stable order
select brand_id from control.connections where brand_id > $1 order by brand_id limit $2;

-- counts: what a dashboard can count beside orders
select
    (select count(*) from shopify.customers where connection_id = $1 and deleted_at is null) as customers,
    (select count(*) from shopify.products where connection_id = $1 and deleted_at is null) as products;

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

-- orders_per_day: all orders by days of UTC; test orders are left out
select
    (created_at at time zone 'UTC')::date as start,
    count(*) as orders,
    coalesce(sum(total_price), 0) as value,
    max(currency) as currency,
    min(created_at) as first_at
from shopify.orders
where connection_id = $1 and created_at is not null and deleted_at is null and test is not true
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

-- operations: a page of connections, what waits to be promoted and what came in the last seconds; $4 batches
-- hold more than those seconds, and are found by their key
with page as (
    select id, brand_id, shop, removed_at from control.connections
    where brand_id > $1 order by brand_id limit $2
),
waiting as (
    select connection_id, min(staged_at) as since from control.batches
    where promoted_at is null group by connection_id
),
newest as (
    select connection_id, promoted_at, rows from control.batches order by id desc limit $4
),
promoted as (
    select b.connection_id, sum(n.value::bigint) as rows
    from newest b cross join lateral jsonb_each_text(b.rows) n
    where b.promoted_at > now() - make_interval(secs => $3)
    group by b.connection_id
),
heard as (
    select connection_id, max(received_at) as last_at,
        count(*) filter (where received_at > now() - interval '1 minute') as webhooks
    from control.webhook_deliveries where received_at > now() - interval '1 hour' group by connection_id
),
dead as (
    select connection_id, count(*) as letters from control.dead_letters
    where replayed_at is null and dropped_at is null group by connection_id
)
select
    p.brand_id, p.shop, p.removed_at,
    s.updated_at as last_event_at,
    w.since as waiting_since,
    h.last_at as last_webhook_at,
    coalesce(h.webhooks, 0) as webhooks,
    coalesce(d.letters, 0) as dead_letters,
    coalesce(r.rows, 0) as rows
from page p
left join control.progress s on s.connection_id = p.id
left join waiting w on w.connection_id = p.id
left join promoted r on r.connection_id = p.id
left join heard h on h.connection_id = p.id
left join dead d on d.connection_id = p.id
order by p.brand_id;
