-- connection: what is granted, and where the sync stands
select id, brand_id, shop, sync_status, scopes from control.connections where id = $1;

-- connection_of_shop: who is told that reading it pauses
select id, brand_id from control.connections where shop = $1 and removed_at is null;

-- lock_connection: decisions about what comes next are taken one at a time
select sync_status from control.connections where id = $1 for no key update;

-- set_sync_status: where the sync stands; a removed connection stays removed
update control.connections
set sync_status = $2, problem = $3, updated_at = now()
where id = $1 and removed_at is null;

-- note_problem: shown with the connection; the sync goes on
update control.connections set problem = $2, updated_at = now() where id = $1;

-- queue_job: one of each kind at a time. One that is under way takes its place; a catch_up may have passed by
-- what is to be read, and owes it. `xmax` is 0 in a row that is new
insert into control.jobs as j (connection_id, kind, since, round, before, lacking)
values ($1, $2, $3, $4, $5, $6)
on conflict (connection_id, kind) where state in ('queued', 'running', 'staged') do update
set
    round = greatest(j.round, excluded.round),
    owes = case when j.kind = 'catch_up' then least(j.owes, excluded.since) else j.owes end
returning id, xmax = 0 as is_new;

-- start_job: None if it is over or canceled
update control.jobs set state = 'running', started_at = coalesce(started_at, now())
where id = $1 and state in ('queued', 'running')
returning kind, since, before, round, position, created_at;

-- save_position: where paged reading goes on
update control.jobs set position = $2 where id = $1 and state = 'running';

-- job_is_staged: all of it waits for the promoter
update control.jobs set state = 'staged' where id = $1 and state = 'running';

-- lock_job: the operations of a job end one at a time
select state, kind, round from control.jobs where id = $1 for no key update;

-- complete_job: everything that it staged has been promoted
update control.jobs j
set state = 'completed', ended_at = now()
where j.id = $1 and j.state = 'staged'
  and not exists (select from control.batches b where b.job_id = j.id and b.promoted_at is null)
returning kind;

-- open_jobs: what is still under way for a connection
select kind from control.jobs
where connection_id = $1 and state in ('queued', 'running', 'staged');

-- loaded_history: the bulk jobs that were completed, the latest of each kind
select distinct on (kind) kind, lacking
from control.jobs
where connection_id = $1 and state = 'completed' and kind like 'bulk_%'
order by kind, id desc;

-- due_catch_ups: live stores whose changes nobody has read for a while: a webhook may have been missed
insert into control.jobs (connection_id, kind, since)
select c.id, 'catch_up', (
    select max(j.created_at) from control.jobs j
    where j.connection_id = c.id and j.kind = 'catch_up' and j.state = 'completed'
)
from control.connections c
where (c.sync_status = 'live'
    or (c.sync_status = 'attention' and c.problem ->> 'code' in ('set_aside', 'audit_differs')))
  and not exists (
    select from control.jobs j
    where j.connection_id = c.id and j.kind = 'catch_up'
      and j.created_at > now() - $1::float8 * interval '1 second'
)
order by c.id
limit $2
on conflict (connection_id, kind) where state in ('queued', 'running', 'staged') do nothing
returning id, connection_id;

-- due_audits: stores that nobody compared with Shopify for a while: a lost deletion shows nowhere else. Their
-- times drift apart by a fifth of the interval; what an audit once stopped is looked at as well
insert into control.jobs (connection_id, kind)
select c.id, 'audit'
from control.connections c
where (c.sync_status = 'live' or (c.sync_status = 'attention' and c.problem ->> 'code' = 'audit_differs'))
  and not exists (
    select from control.jobs j
    where j.connection_id = c.id and j.kind in ('audit', 'catch_up')
      and (j.state in ('queued', 'running', 'staged') or j.kind = 'audit' and j.created_at > now()
          - $1::float8 * (0.9 + 0.2 * (hashint8(j.id) & 1023) / 1023.0) * interval '1 second')
)
order by c.id
limit $2
on conflict (connection_id, kind) where state in ('queued', 'running', 'staged') do nothing
returning id, connection_id;

-- history_began: when the first job of the latest bulk load began to read, by operations or by pages. A resource
-- that was not loaded anew has been caught up since: its changes are read from the last catch_up on
select min(greatest(b.began, (
    select max(c.created_at) from control.jobs c
    where c.connection_id = $1 and c.kind = 'catch_up' and c.state = 'completed'
)))
from (
    select min(least(j.started_at, o.shopify_created_at)) as began
    from control.jobs j
    left join control.bulk_operations o on o.job_id = j.id
    where j.id in (
        select max(id) from control.jobs
        where connection_id = $1 and kind like 'bulk_%' and state = 'completed'
        group by kind
    )
    group by j.id
) b;

-- caught_up_at: when the latest catch_up that was completed began
select max(created_at) from control.jobs where connection_id = $1 and kind = 'catch_up' and state = 'completed';

-- catch_up_done: its round, and what it owes; whether that lies before everything that it has read; whether the
-- load that it follows has no audit yet
select
    c.round,
    c.owes,
    c.owes < coalesce(c.since, c.created_at) as owes_older,
    exists (select from control.jobs b where b.connection_id = c.connection_id and b.kind like 'bulk_%')
    and not exists (
        select from control.jobs l
        where l.connection_id = c.connection_id
          and ((l.kind like 'bulk_%' and l.state <> 'completed' and l.state <> 'canceled')
            or (l.kind = 'audit' and l.state <> 'canceled' and l.id > (
                select max(b.id) from control.jobs b
                where b.connection_id = c.connection_id and b.kind like 'bulk_%'
            )))
    ) as is_unproven
from control.jobs c
where c.id = $1;

-- round_of_job: which try of catch_up and audit this is
select round from control.jobs where id = $1;

-- plan_operation: one bulk operation of a job
insert into control.bulk_operations (connection_id, job_id, resource, window_start, window_end, attempt)
values ($1, $2, $3, $4, $5, $6);

-- note_pages: a resource that an audit read by pages, as if it were an operation that is staged
insert into control.bulk_operations (connection_id, job_id, resource, state, shopify_created_at)
values ($1, $2, $3, 'staged', $4)
returning id;

-- planned_resources: what of a job is planned or read already, if the event comes twice
select distinct resource from control.bulk_operations where job_id = $1;

-- take_due: operations to start or to poll now; taking one keeps the others off it for a while. No more are
-- started than the shop has slots, the oldest plan (the newest window) first; of one store this process has
-- only so many under way, and those of all stores come in turns
with busy as (
    select connection_id, count(*) as running from control.bulk_operations where state = 'running' group by 1
),
startable as (
    select o.id, row_number() over (partition by o.connection_id order by o.id) + coalesce(b.running, 0) as slot
    from control.bulk_operations o
    left join busy b on b.connection_id = o.connection_id
    where o.state = 'planned' and o.due_at <= now()
),
under_way as (
    select connection_id, count(*) as steps from control.bulk_operations where id = any($4::bigint[]) group by 1
),
turns as (
    select
        o.id,
        row_number() over (partition by o.connection_id order by o.state desc, o.id) + coalesce(u.steps, 0) as turn
    from control.bulk_operations o
    left join under_way u on u.connection_id = o.connection_id
    where o.due_at <= now() and o.id <> all($4::bigint[])
      and (o.state = 'running' or o.id in (select s.id from startable s where s.slot <= $3))
)
update control.bulk_operations
set due_at = now() + $2::float8 * interval '1 second'
where id in (
    select o.id
    from control.bulk_operations o
    join turns t on t.id = o.id
    where o.due_at <= now() and t.turn <= $5
    order by t.turn, o.state desc, o.id
    limit $1
    for update of o skip locked
)
returning id;

-- slot_is_free: one operation less runs; whoever waits for a slot need not wait longer
update control.bulk_operations set due_at = now()
where connection_id = $1 and state = 'planned' and waits > 0;

-- operation: all that is known of it
select
    o.id, o.connection_id, o.job_id, o.resource, o.window_start, o.window_end, o.state, o.attempt, o.polls, o.waits, o.marker,
    o.gid, o.revision, o.shopify_status, o.shopify_created_at, o.object_count, o.root_object_count,
    o.file_size, o.bytes_done, o.lines_done, o.roots_done, o.aside_done, o.batches_done, o.cancel_requested, j.kind, c.brand_id,
    extract(epoch from now() - o.moved_at)::float8 as frozen_for
from control.bulk_operations o
join control.jobs j on j.id = o.job_id
join control.connections c on c.id = o.connection_id
where o.id = $1;

-- operation_started: Shopify accepted it, or had accepted it before we fell
update control.bulk_operations
set
    state = 'running',
    gid = $2,
    shopify_created_at = $3,
    shopify_status = 'CREATED',
    polls = 0,
    moved_at = now(),
    due_at = now() + $4::float8 * interval '1 second'
where id = $1 and state = 'planned';

-- operation_waits: no slot is free at the shop; try again later
update control.bulk_operations
set waits = waits + 1, due_at = now() + $2::float8 * interval '1 second'
where id = $1 and state = 'planned';

-- operation_polled: still at work; look again later
update control.bulk_operations
set
    polls = polls + 1,
    moved_at = case when (object_count, shopify_status) = ($3, $2) then moved_at else now() end,
    shopify_status = $2,
    object_count = $3,
    root_object_count = $4,
    due_at = now() + $5::float8 * interval '1 second'
where id = $1 and state = 'running';

-- operation_ready: its file can be downloaded
update control.bulk_operations
set
    state = 'ready',
    shopify_status = 'COMPLETED',
    object_count = $2,
    root_object_count = $3,
    file_size = $4
where id = $1 and state = 'running';

-- restart_operation: once more from the start, under a new marker; what it staged was true and stays
update control.bulk_operations
set
    state = 'planned',
    attempt = attempt + 1,
    marker = gen_random_uuid(),
    revision = nextval('control.revisions'),
    gid = null,
    shopify_status = null,
    bytes_done = 0,
    lines_done = 0,
    roots_done = 0,
    aside_done = 0,
    object_count = 0,
    root_object_count = 0,
    waits = 0,
    cancel_requested = false,
    due_at = now() + $2::float8 * interval '1 second'
where id = $1 and state in ('running', 'ready');

-- split_operation: two halves take its place
update control.bulk_operations set state = 'split' where id = $1 and state in ('running', 'ready');

-- request_cancel: it is stuck, and we have said so to Shopify
update control.bulk_operations set cancel_requested = true, due_at = now() + $2::float8 * interval '1 second'
where id = $1 and state = 'running';

-- job_before: only orders created before this are to be read
select before from control.jobs where id = $1;

-- oldest_order: where the history of a job begins
select (position ->> 'oldest')::timestamptz from control.jobs where id = $1;

-- fail_operation: it was tried often enough
update control.bulk_operations set state = 'failed', problem = $2 where id = $1;

-- operation_finished: Shopify's webhook says so; poll it now
update control.bulk_operations set due_at = now()
where connection_id = $1 and gid = $2 and state = 'running';

-- next_batch: its rows are copied first, then it is written down
select nextval('control.batches_id_seq');

-- add_operation_batch: the next rows of a file
insert into control.batches (id, connection_id, job_id, operation_id, seq, source, revision, rows, closes_operation)
overriding system value values ($1, $2, $3, $4, $5, 'bulk', $6, $7, $8);

-- add_batch: a page
insert into control.batches (id, connection_id, job_id, source, rows)
overriding system value values ($1, $2, $3, $4, $5);

-- checkpoint: how far the file is staged; it must still be ours to download
update control.bulk_operations
set bytes_done = $2, lines_done = $3, roots_done = $4, batches_done = $5, aside_done = $6
where id = $1 and state = 'ready';

-- operation_is_staged: the whole file, proven complete
update control.bulk_operations set state = 'staged' where id = $1 and state = 'ready';

-- all_operations_staged: nothing of the job is left to download
select not exists (select from control.bulk_operations where job_id = $1 and state not in ('staged', 'split'));

-- needs_proof: all history is in and nothing is under way, but no audit has said that all is equal
with newest as (
    select distinct on (kind) kind, state
    from control.jobs
    where connection_id = $1 and kind like 'bulk_%' and state <> 'canceled'
    order by kind, id desc
)
select c.sync_status <> 'live'
    and exists (select from newest)
    and not exists (select from newest where state <> 'completed')
    and not exists (
        select from control.jobs where connection_id = $1 and state in ('queued', 'running', 'staged')
    )
from control.connections c
where c.id = $1 and c.removed_at is null;

-- compare_tables: Shopify's rows beside ours, summed up by table (stage.judge_audit says how a row is judged).
-- What was read and is empty on both sides is a line, too, so that an empty store is proven like any other
with read as (
    select t.table_name
    from (
        values ('orders', 'orders'), ('orders', 'order_line_items'), ('orders', 'refunds'),
            ('customers', 'customers'), ('products', 'products'), ('products', 'product_variants')
    ) as t (resource, table_name)
    where t.resource in (select resource from control.bulk_operations where job_id = $1 and state = 'staged')
)
select
    table_name,
    count(*) filter (where at_shopify and (here or missing)) as shopify_count,
    count(*) filter (where here and (at_shopify or extra)) as our_count,
    sum(their_amount) filter (where at_shopify and (here or missing)) as shopify_sum,
    sum(case when newer_here then their_amount else our_amount end)
        filter (where here and (at_shopify or extra)) as our_sum,
    count(*) filter (where missing) as missing,
    count(*) filter (where different) as different,
    count(*) filter (where extra) as extra
from read
full join stage.judge_audit($1, $2) using (table_name)
group by table_name
order by table_name;

-- forget_differences: what an earlier audit found; the new one has looked again
delete from stage.differences where connection_id = $1;

-- note_differences: the objects to be read again, the newest first if there are too many
insert into stage.differences (connection_id, resource, id, unseen, created_at, taken_at)
select $2, root_table, root_id, bool_or(extra and not root_at_shopify), min(root_created_at), min(taken_at)
from stage.judge_audit($1, $2)
where missing or different or extra
group by root_table, root_id
order by root_id desc
limit $3;

-- differing_resources: what the last audit found wrong rows of
select distinct resource from stage.differences where connection_id = $1;

-- differences: the next objects to be read again
select id, unseen, created_at, taken_at
from stage.differences
where connection_id = $1 and resource = $2 and id > $3
order by id
limit $4;

-- forget_audited_of: an audit operation starts over, or another way
delete from stage.audited where job_id = $1 and operation_id = $2;

-- keep_audit: what an audit found
insert into control.audits (connection_id, job_id, equal, tables) values ($1, $2, $3, $4);

-- forget_audited: compared, no longer needed
delete from stage.audited where job_id = $1;

-- audit_is_done: nothing to promote
update control.jobs set state = 'completed', ended_at = now() where id = $1 and state = 'running';

-- refunds_without_lines: bulk operations brought the refund, but cannot bring its lines
select id, order_id
from shopify.refunds
where connection_id = $1 and id > $2 and lines_at is null and deleted_at is null
order by id
limit $3;

-- wake_scheduler: something is due
notify backstock_due;
