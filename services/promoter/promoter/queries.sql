-- lock_connection: one batch of a store at a time. Nobody waits here: that would cost other stores a transaction
select pg_try_advisory_xact_lock(1398292816, $1::int);

-- waiting_batches: this batch, and those before it of the same bulk operation: children come after parents
select b.id, b.job_id, b.source, b.rows, o.resource, j.kind
from control.batches this
join control.batches b
    on b.id = this.id or (b.operation_id = this.operation_id and b.seq < this.seq)
left join control.bulk_operations o on o.id = b.operation_id
left join control.jobs j on j.id = b.job_id
where this.id = $1 and b.promoted_at is null
order by b.seq, b.id
limit $2;

-- plan_anew: plans made for a new store's empty tables would read whole tables for every row of its history
select set_config('plan_cache_mode', 'force_custom_plan', true);

-- promote: schema stage -> schema shopify; how many rows of each table were new or newer
select stage.promote($1);

-- objects: whose rows a batch holds
select resource, id from stage.objects($1);

-- promote_objects: some of a batch's objects; `promote` then does what is left
select stage.promote_objects($1, $2, $3);

-- take_object: one that Postgres refuses leaves its batch; its rows as text, so that no digit is lost
select stage.take_object($1, $2, $3)::text;

-- trust_audit: an audit has asked for each of these by its id, and they live
select stage.trust_audit($1);

-- forget_inbox: the event is settled and pruned from the outbox; while it is there, the inbox is read with it
delete from control.inbox where ctid = any(array(
    select i.ctid from control.inbox i
    where i.handled_at < now() - $1::float8 * interval '1 day'
      and not exists (select from control.outbox o where o.event_id = i.event_id)
      and not exists (
        select from control.dead_letters d
        where d.event_id = i.event_id and d.replayed_at is null and d.dropped_at is null
      )
    order by i.handled_at
    limit $2
));

-- forget_deliveries: Shopify repeats a webhook for hours, not for days
delete from control.webhook_deliveries where ctid = any(array(
    select ctid from control.webhook_deliveries
    where received_at < now() - $1::float8 * interval '1 day' order by received_at limit $2
));

-- forget_letters: replayed or dropped long ago; open ones stay, and those of events that may be counted anew
delete from control.dead_letters where id = any(array(
    select d.id from control.dead_letters d
    where greatest(d.replayed_at, d.dropped_at) < now() - $1::float8 * interval '1 day'
      and not exists (select from control.outbox o where o.event_id = d.event_id)
    order by d.id limit $2
));

-- forget_batches: promoted long ago; what is not promoted stays
delete from control.batches where id = any(array(
    select id from control.batches
    where promoted_at < now() - $1::float8 * interval '1 day' order by promoted_at limit $2
));

-- forget_audits: what was compared long ago; each store's newest stays
delete from control.audits where id = any(array(
    select a.id from control.audits a
    where a.audited_at < now() - $1::float8 * interval '1 day'
      and exists (select from control.audits newer where newer.connection_id = a.connection_id and newer.id > a.id)
    order by a.id limit $2
));

-- forget_operations: of jobs that ended long ago, once their batches are gone
delete from control.bulk_operations where id = any(array(
    select o.id
    from control.bulk_operations o
    join control.jobs j on j.id = o.job_id
    where o.state in ('staged', 'split', 'failed', 'canceled')
      and j.ended_at < now() - $1::float8 * interval '1 day'
      and exists (
        select from control.jobs newer
        where newer.connection_id = j.connection_id and newer.kind = j.kind and newer.id > j.id
      )
      and not exists (select from control.batches b where b.operation_id = o.id)
    order by o.id limit $2
));

-- forget_jobs: ended long ago and nothing hangs on them; a store's newest of each kind says what was done last
delete from control.jobs where id = any(array(
    select j.id from control.jobs j
    where j.ended_at < now() - $1::float8 * interval '1 day'
      and exists (
        select from control.jobs newer
        where newer.connection_id = j.connection_id and newer.kind = j.kind and newer.id > j.id
      )
      and not exists (select from control.bulk_operations o where o.job_id = j.id)
      and not exists (select from control.batches b where b.job_id = j.id)
      and not exists (select from control.audits a where a.job_id = j.id)
      and not exists (
        select from control.dead_letters d
        where d.job_id = j.id and d.replayed_at is null and d.dropped_at is null
      )
    order by j.ended_at limit $2
));

-- forget_leases: of jobs and operations that are gone; an epoch may begin anew only for what begins anew
delete from control.leases where key = any(array(
    select l.key
    from control.leases l
    where l.expires_at < now() - $1::float8 * interval '1 day'
      and (
        (l.key like 'operation:%' and not exists (
            select from control.bulk_operations o where o.id = substr(l.key, 11)::bigint
        ))
        or (l.key like 'job:%' and not exists (select from control.jobs j where j.id = substr(l.key, 5)::bigint))
    )
    limit $2
));
