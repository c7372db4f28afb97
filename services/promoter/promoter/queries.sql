-- lock_connection: one batch of a store at a time; other stores go on beside it
select pg_advisory_xact_lock(1398292816, $1::int);

-- waiting_batches: this batch, and those before it of the same bulk operation: children come after parents
select b.id, b.job_id, b.source, b.rows, o.resource, j.kind
from control.batches this
join control.batches b
    on b.id = this.id or (b.operation_id = this.operation_id and b.seq < this.seq)
left join control.bulk_operations o on o.id = b.operation_id
left join control.jobs j on j.id = b.job_id
where this.id = $1 and b.promoted_at is null
order by b.seq, b.id;

-- plan_anew: a session keeps its plans; those that were made for a new store's empty tables read whole tables
-- for every row once the history is in. For what is large, planning costs nothing beside the work
set local plan_cache_mode = force_custom_plan;

-- promote: schema stage -> schema shopify; how many rows of each table were new or newer
select stage.promote($1);

-- trust_audit: an audit has asked for each of these by its id, and they live
select stage.trust_audit($1);
