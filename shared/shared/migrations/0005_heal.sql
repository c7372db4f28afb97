-- What an audit found wrong, object by object, so that it can be made right; and how an audit judges a row.

alter table stage.audited add column tags text[];

-- The objects whose rows (or whose children's rows) an audit found missing, different or too many. The next
-- catch_up asks Shopify for each by its id. Emptied when the next audit has compared.
create table stage.differences (
    connection_id bigint not null,
    resource text not null check (resource in ('orders', 'customers', 'products')),
    id bigint not null,
    unseen boolean not null,
    created_at timestamptz,
    taken_at timestamptz not null,
    primary key (connection_id, resource, id)
);
comment on column stage.differences.unseen is 'The audit did not find the object itself at Shopify: it may be gone.';
comment on column stage.differences.taken_at is 'When the audit began to read: what is newer here is left alone.';

-- Shopify's rows beside ours. What is newer here than in the snapshot counts with Shopify's figure; what came or
-- went since the snapshot does not count at all.
create function stage.judge_audit(audit_job bigint, store bigint)
returns table (
    table_name text, root_table text, root_id bigint, root_created_at timestamptz, taken_at timestamptz,
    at_shopify boolean, root_at_shopify boolean, here boolean, newer_here boolean, their_amount numeric, our_amount numeric,
    missing boolean, different boolean, extra boolean
)
language sql stable as $$
with theirs as (
    select distinct on (a.table_name, a.id)
        a.table_name,
        case a.table_name
            when 'order_line_items' then 'orders'
            when 'refunds' then 'orders'
            when 'product_variants' then 'products'
            else a.table_name
        end as root_table,
        a.id,
        coalesce(a.parent_id, a.id) as root_id,
        a.updated_at,
        a.amount,
        a.tags
    from stage.audited a
    where a.job_id = audit_job
    order by a.table_name, a.id, a.updated_at desc nulls last
),
roots as (
    select table_name, id, updated_at from theirs where table_name = root_table
),
snapshot as (
    select
        o.resource,
        min(o.shopify_created_at) as taken_at,
        -- without read_all_orders Shopify shows 60 days; what is older is out of sight, not gone
        case when o.resource = 'orders' and 'read_all_orders' <> all (c.scopes)
            then min(o.shopify_created_at) - interval '59 days' end as seen_since
    from control.bulk_operations o
    join control.connections c on c.id = o.connection_id
    where o.job_id = audit_job and o.state = 'staged'
    group by o.resource, c.scopes
),
ours as (
    select
        'orders' as table_name, 'orders' as root_table, id, id as root_id, updated_at as root_updated_at,
        total_price as amount, deleted_at, sent_at, null::text[] as tags, created_at as root_created_at
    from shopify.orders
    where connection_id = store
    union all
    select
        'customers', 'customers', id, id, updated_at, amount_spent, deleted_at,
        greatest(sent_at, summary_at, tags_changed_at), tags, null
    from shopify.customers
    where connection_id = store
    union all
    select 'products', 'products', id, id, updated_at, null, deleted_at, sent_at, null, null
    from shopify.products
    where connection_id = store
    union all
    select
        'order_line_items', 'orders', c.id, p.id, p.updated_at, c.original_total, c.deleted_at, c.sent_at, null,
        p.created_at
    from shopify.order_line_items c
    join shopify.orders p on p.connection_id = c.connection_id and p.id = c.order_id
    where c.connection_id = store
    union all
    select 'refunds', 'orders', c.id, c.order_id, p.updated_at, c.total_refunded, c.deleted_at, c.sent_at, null,
        p.created_at
    from shopify.refunds c
    left join shopify.orders p on p.connection_id = c.connection_id and p.id = c.order_id
    where c.connection_id = store
    union all
    select 'product_variants', 'products', c.id, p.id, p.updated_at, c.price, c.deleted_at, c.sent_at, null,
        null
    from shopify.product_variants c
    join shopify.products p on p.connection_id = c.connection_id and p.id = c.product_id
    where c.connection_id = store
),
pairs as (
    select
        coalesce(t.table_name, o.table_name) as table_name,
        coalesce(t.root_table, o.root_table) as root_table,
        coalesce(t.root_id, o.root_id) as root_id,
        o.root_created_at,
        s.taken_at,
        t.id is not null as at_shopify,
        r.id is not null as root_at_shopify,
        o.id is not null and o.deleted_at is null as here,
        t.amount as their_amount,
        o.amount as our_amount,
        coalesce(r.updated_at > o.root_updated_at, false)
        or coalesce(not (t.tags @> o.tags and t.tags <@ o.tags), false) as stale,
        coalesce(o.root_updated_at > r.updated_at, false)
        or (coalesce(t.table_name, o.table_name) = 'customers' and coalesce(o.sent_at > s.taken_at, false))
            as newer_here,
        coalesce(o.deleted_at > s.taken_at, false) as gone_since,
        r.id is null and coalesce(o.sent_at > s.taken_at, false) as come_since,
        -- of a refund whose order never came nobody knows how old that is
        coalesce(coalesce(o.root_created_at, '-infinity') < s.seen_since, false) as out_of_sight
    from theirs t
    full join ours o on o.table_name = t.table_name and o.id = t.id
    join snapshot s on s.resource = coalesce(t.root_table, o.root_table)
    left join roots r
        on r.table_name = coalesce(t.root_table, o.root_table) and r.id = coalesce(t.root_id, o.root_id)
    where t.id is not null or o.deleted_at is null
),
judged as (
    select
        *,
        at_shopify and not here and not gone_since and not newer_here as missing,
        at_shopify and here and not newer_here
        and (stale or their_amount is distinct from our_amount) as different,
        here and not at_shopify and not newer_here and not come_since and not out_of_sight as extra
    from pairs
)
select
    table_name, root_table, root_id, root_created_at, taken_at, at_shopify, root_at_shopify, here, newer_here,
    their_amount, our_amount, missing, different, extra
from judged
$$;

-- An audit asked Shopify for these objects by their ids, and they live. A tombstone from before that may be
-- lifted by any copy now; it stays until one is. And a copy of ours that was sent just before (within the seconds
-- that `sent_at` is put back for clocks that differ) is not the newer one, if it has the same age.
create function stage.trust_audit(batch bigint) returns void
language plpgsql as $$
begin
    update shopify.orders t set deleted_at = 'epoch'
    from stage.orders s
    join control.batches b on b.id = s.batch_id
    where s.batch_id = batch and t.connection_id = b.connection_id and t.id = s.id and t.deleted_at < s.sent_at;
    update stage.orders s set sent_at = t.sent_at
    from shopify.orders t
    join control.batches b on b.connection_id = t.connection_id and b.id = batch
    where s.batch_id = batch and t.id = s.id and t.updated_at = s.updated_at
      and t.sent_at > s.sent_at and t.sent_at <= s.sent_at + interval '7 seconds';

    update shopify.customers t set deleted_at = 'epoch'
    from stage.customers s
    join control.batches b on b.id = s.batch_id
    where s.batch_id = batch and t.connection_id = b.connection_id and t.id = s.id and t.deleted_at < s.sent_at;
    update stage.customers s
    set sent_at = greatest(t.sent_at, t.summary_at, t.tags_at, t.tags_changed_at) + interval '1 microsecond'
    from shopify.customers t
    join control.batches b on b.connection_id = t.connection_id and b.id = batch
    where s.batch_id = batch and t.id = s.id and t.updated_at = s.updated_at
      and greatest(t.sent_at, t.summary_at, t.tags_at, t.tags_changed_at)
          between s.sent_at and s.sent_at + interval '7 seconds';

    update shopify.products t set deleted_at = 'epoch'
    from stage.products s
    join control.batches b on b.id = s.batch_id
    where s.batch_id = batch and t.connection_id = b.connection_id and t.id = s.id and t.deleted_at < s.sent_at;
    update stage.products s set sent_at = t.sent_at
    from shopify.products t
    join control.batches b on b.connection_id = t.connection_id and b.id = batch
    where s.batch_id = batch and t.id = s.id and t.updated_at = s.updated_at
      and t.sent_at > s.sent_at and t.sent_at <= s.sent_at + interval '7 seconds';
end $$;
