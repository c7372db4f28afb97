-- A batch of which Postgres refuses a row is promoted object by object (or many together), so that one bad row
-- does not sink it. An object is an order, a customer or a product with all rows of the batch that belong to it:
-- it is promoted as a whole or not at all. Some are put apart under the batch's negative number meanwhile.

-- The objects of a batch. Privacy requests and marks of refunds that were read belong to none.
create function stage.objects(batch bigint) returns table (resource text, id bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select 'orders', id from stage.orders where batch_id = batch
    union
    select 'orders', order_id from stage.order_line_items where batch_id = batch and order_id is not null
    union
    select 'orders', order_id from stage.refunds where batch_id = batch and order_id is not null
    union
    select 'orders', order_id from stage.refund_line_items where batch_id = batch and order_id is not null
    union
    select 'customers', id from stage.customers where batch_id = batch
    union
    select 'customers', id from stage.customer_summaries where batch_id = batch
    union
    select 'customers', id from stage.customer_tags where batch_id = batch
    union
    select 'products', id from stage.products where batch_id = batch
    union
    select 'products', product_id from stage.product_variants where batch_id = batch and product_id is not null
    union
    select resource, id from stage.deletions where batch_id = batch
    order by 1, 2
$$;

-- Put the rows of these objects apart: `resources` and `ids` side by side, as stage.objects gives them.
create function stage.put_apart(batch bigint, resources text[], ids bigint[]) returns void
language plpgsql as $$
declare
    apart bigint := -batch;
    order_ids bigint[] := array(select o.id from unnest(resources, ids) as o (resource, id) where o.resource = 'orders');
    customer_ids bigint[] := array(
        select o.id from unnest(resources, ids) as o (resource, id) where o.resource = 'customers'
    );
    product_ids bigint[] := array(
        select o.id from unnest(resources, ids) as o (resource, id) where o.resource = 'products'
    );
begin
    update stage.orders set batch_id = apart where batch_id = batch and id = any(order_ids);
    update stage.order_line_items set batch_id = apart where batch_id = batch and order_id = any(order_ids);
    update stage.refunds set batch_id = apart where batch_id = batch and order_id = any(order_ids);
    update stage.refund_line_items set batch_id = apart where batch_id = batch and order_id = any(order_ids);
    update stage.refund_reads set batch_id = apart
    where batch_id = batch
      and id in (
        select id from stage.refunds where batch_id = apart
        union
        select refund_id from stage.refund_line_items where batch_id = apart
    );
    update stage.customers set batch_id = apart where batch_id = batch and id = any(customer_ids);
    update stage.customer_summaries set batch_id = apart where batch_id = batch and id = any(customer_ids);
    update stage.customer_tags set batch_id = apart where batch_id = batch and id = any(customer_ids);
    update stage.products set batch_id = apart where batch_id = batch and id = any(product_ids);
    update stage.product_variants set batch_id = apart where batch_id = batch and product_id = any(product_ids);
    update stage.deletions d set batch_id = apart
    where batch_id = batch
      and (d.resource, d.id) in (select o.resource, o.id from unnest(resources, ids) as o (resource, id));
end $$;

-- Promote these objects of a batch; stage.promote then does what is left.
create function stage.promote_objects(batch bigint, resources text[], ids bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    b control.batches;
    counts jsonb;
begin
    perform stage.put_apart(batch, resources, ids);
    select * into strict b from control.batches where id = batch;
    b.id := -batch;
    counts := stage.add_counts(coalesce(b.written, '{}'), stage.promote_rows(b));
    update control.batches set written = counts where id = batch;
    perform stage.clear(-batch);
end $$;

-- Take an object out of its batch; returns its staged rows by table, without what is null.
create function stage.take_object(batch bigint, resource text, id bigint) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    staged text;
    found jsonb;
    taken jsonb := '{}';
begin
    perform stage.put_apart(batch, array[resource], array[id]);
    foreach staged in array array[
        'orders', 'order_line_items', 'refunds', 'refund_line_items', 'refund_reads', 'customers',
        'customer_summaries', 'customer_tags', 'products', 'product_variants', 'deletions'
    ] loop
        execute format('select jsonb_agg(to_jsonb(s) - %L) from stage.%I s where s.batch_id = $1', 'batch_id', staged)
        into found using -batch;
        if found is not null then
            taken := taken || jsonb_build_object(staged, jsonb_strip_nulls(found));
        end if;
    end loop;
    perform stage.clear(-batch);
    return taken;
end $$;

do $$
declare
    routine regprocedure;
begin
    for routine in
        select oid from pg_proc
        where pronamespace = 'stage'::regnamespace
          and proname in ('objects', 'put_apart', 'promote_objects', 'take_object')
    loop
        execute format('revoke execute on function %s from public', routine);
        if routine::text not like 'stage.put_apart(%'
            and exists (select from pg_roles where rolname = 'backstock_promoter') then
            execute format('grant execute on function %s to backstock_promoter', routine);
        end if;
    end loop;
end $$;
