-- Dead letters as something to work with: what they failed, how to read them again, how they ended; and what
-- housekeeping needs to find what is old.

alter table control.dead_letters
add column job_id bigint,
add column job_state text,
add column sealed bytea,
add column context jsonb,
add column mentions bigint[] not null default '{}',
add column dropped_at timestamptz;
comment on column control.dead_letters.job_id is 'The job that it belongs to.';
comment on column control.dead_letters.job_state is 'Where that job stood when this letter failed it; a replay takes it there again.';
comment on column control.dead_letters.sealed is 'Shopify''s own text, encrypted like tokens; payload is empty then.';
comment on column control.dead_letters.context is 'What is needed, beside the text, to read it again.';
comment on column control.dead_letters.mentions is 'Ids in Shopify''s text: a privacy request finds what it must erase.';
create index dead_letters_open on control.dead_letters (connection_id)
where replayed_at is null and dropped_at is null;
create index dead_letters_mentions on control.dead_letters using gin (mentions) where sealed is not null;

-- Whether a text with these ids may not be kept: its store is gone, or a privacy request, promoted or still
-- staged, is about somebody or something that it mentions.
create function control.must_be_erased(connection bigint, ids bigint[]) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select
        exists (select from control.connections where id = connection and removed_at is not null)
        or exists (
            select from shopify.customers
            where connection_id = connection and id = any(ids) and redacted_at is not null
        )
        or exists (
            select from shopify.orders
            where connection_id = connection and id = any(ids) and redacted_at is not null
        )
        or exists (
            select from stage.redactions r
            join control.batches b on b.id = r.batch_id
            where b.connection_id = connection and (r.customer_id = any(ids) or r.order_ids && ids)
        )
$$;
revoke execute on function control.must_be_erased(bigint, bigint[]) from public;

alter table control.connections add column trouble jsonb;
comment on column control.connections.trouble is 'What its open dead letters amount to; null while there are none.';

create index batches_promoted_at on control.batches (promoted_at);
create index bulk_operations_ended on control.bulk_operations (created_at)
where state in ('staged', 'split', 'failed', 'canceled');
create index jobs_ended_at on control.jobs (ended_at);
create index audits_connection on control.audits (connection_id, id);
create index audits_job on control.audits (job_id);
