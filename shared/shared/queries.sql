-- emit: an event, in the transaction of the work that caused it
insert into control.outbox (event_id, event_type, payload, consumers) values ($1, $2, $3, $4);

-- take_unpublished: the oldest events of types $2 that no relay has sent, locked against the other relays
select id, event_type, payload
from control.outbox
where published_at is null
  and event_type = any ($2::text[])
order by id
limit $1
for update skip locked;

-- mark_published: they are in the streams now
update control.outbox set published_at = now(), times_published = times_published + 1 where id = any($1);

-- settle_outbox: every service that consumes the event has it in its inbox
update control.outbox o
set settled_at = now()
where settled_at is null
  and published_at is not null
  and not exists (
    select from unnest(o.consumers) as c (service)
    where not exists (
        select from control.inbox i where i.event_id = o.event_id and i.service = c.service
    )
);

-- unknown_types: what waits for a version that knows it
select distinct event_type from control.outbox where settled_at is null and event_type <> all ($1::text[]);

-- take_unhandled: of types $3, sent $2 seconds ago (twice as long each time, up to 32 times), still not handled
select id, event_type, payload
from control.outbox
where settled_at is null
  and published_at < now() - $2::float8 * power(2, least(times_published, 6) - 1) * interval '1 second'
  and event_type = any ($3::text[])
order by id
limit $1
for update skip locked;

-- publish_again: Redis lost the streams of these types: send at once what this service has not handled
with again as (
    update control.outbox o
    set published_at = null
    where settled_at is null
      and published_at is not null
      and event_type = any($1::text[])
      and $2::text = any(consumers)
      and not exists (select from control.inbox i where i.event_id = o.event_id and i.service = $2)
    returning 1
)
select count(*) from again;

-- backlog: events that somebody has yet to handle and open dead letters, both counted up to $1
select
    (select count(*) from (select from control.outbox where settled_at is null limit $1) o) as unsettled,
    (
        select count(*)
        from (select from control.dead_letters where replayed_at is null and dropped_at is null limit $1) d
    ) as dead_letters;

-- take_lease: free, run out, or mine already: the epoch grows, and older holders are fenced off
insert into control.leases as l (key, owner, expires_at)
values ($1, $2, now() + $3::float8 * interval '1 second')
on conflict (key) do update
set owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
where l.expires_at < now()
returning epoch;

-- hold_lease: still ours? It must touch exactly one row, in the transaction that it guards
update control.leases
set expires_at = now() + $3::float8 * interval '1 second'
where key = $1 and epoch = $2 and expires_at > '-infinity';

-- release_lease: the next one need not wait
update control.leases set expires_at = '-infinity' where key = $1 and epoch = $2;

-- gives_way: whether a store has loaded much ($2 lines) while one that has not is in its first sync, and moves
with loading as (
    select j.connection_id, sum(o.lines_done) as lines
    from control.jobs j
    join control.bulk_operations o on o.job_id = j.id
    where j.state in ('queued', 'running', 'staged')
    group by j.connection_id
)
select exists (
    select from control.connections c
    left join loading l on l.connection_id = c.id
    where c.sync_status in ('connecting', 'recent', 'backfilling', 'catching_up', 'auditing')
      and coalesce(l.lines, 0) < $2
      and exists (
        select from (
            select e.event_type, e.created_at from control.outbox e
            where e.connection_id = c.id order by e.id desc limit 20
        ) lately
        where lately.created_at > now() - $3::float8 * interval '1 second' and lately.event_type = any($4::text[])
      )
) and exists (select from loading where connection_id = $1 and lines >= $2);

-- bury: a message that nobody could handle; it counts as handled until it is replayed
insert into control.dead_letters (
    event_id, event_type, service, connection_id, payload, error, deliveries, sealed, context, mentions
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (event_id, service) do update
set
    payload = excluded.payload,
    sealed = excluded.sealed,
    context = excluded.context,
    mentions = excluded.mentions,
    error = excluded.error,
    deliveries = excluded.deliveries,
    died_at = now(),
    replayed_at = null,
    dropped_at = null;

-- keep_while_not_erased: letters that are written and privacy requests wait for each other: either the request
-- finds the letter, or the letter finds the request
select pg_advisory_xact_lock_shared(1398292817, $1::int);

-- erase_while_none_is_kept: the other side
select pg_advisory_xact_lock(1398292817, $1::int);

-- erase_at_once: a text that comes after the privacy request about somebody whom it mentions
update control.dead_letters
set dropped_at = now(), sealed = null, payload = '', mentions = '{}'
where event_id = $1 and service = $2 and control.must_be_erased(connection_id, mentions);

-- mark_handled: for the sweeper; a replay takes it out again
insert into control.inbox (event_id, service) values ($1, $2) on conflict do nothing;

-- letter_of_job: which job it belongs to, and where that stood if the letter has failed it ($4)
update control.dead_letters set job_id = $3, job_state = coalesce($4, job_state)
where event_id = $1 and service = $2;

-- texts_aside: how many texts of a connection wait to be read again
select count(*) from control.dead_letters
where connection_id = $1 and sealed is not null and replayed_at is null and dropped_at is null;

-- letters: what matches; every filter that is null matches all. State: open, or null for all
select
    d.id, d.event_id, d.event_type, d.service, c.brand_id, d.job_id, d.context, d.error, d.deliveries, d.died_at,
    d.replayed_at, d.dropped_at
from control.dead_letters d
left join control.connections c on c.id = d.connection_id
where ($1::bigint[] is null or d.id = any($1))
  and ($2::text is null or c.brand_id = $2)
  and ($3::text is null or d.event_type = $3 or starts_with(d.event_type, $3 || ' '))
  and ($4::text is null or d.service = $4)
  and ($5::timestamptz is null or d.died_at >= $5)
  and ($6::timestamptz is null or d.died_at < $6)
  and ($7::boolean or (d.replayed_at is null and d.dropped_at is null))
order by d.id
limit $8;

-- letter_text: what a letter holds
select payload, sealed from control.dead_letters where id = $1;

-- lock_letter: one that is still to be replayed or dropped
select id, event_id, event_type, service, connection_id, job_id, job_state, payload, sealed is not null as is_sealed
from control.dead_letters
where id = $1 and replayed_at is null and dropped_at is null
for update;

-- letter_to_read_again: one that was replayed, for a service that reads anew what these had set aside
select id, event_id, event_type, connection_id, sealed, context, job_id
from control.dead_letters
where id = $1 and service = any($2::text[]) and replayed_at is not null and sealed is not null
for update;

-- letter_died_again: visible again, with what is wrong now
update control.dead_letters
set error = $2, died_at = now(), deliveries = deliveries + 1, replayed_at = null
where id = $1;

-- replay_letter: it is on its way again
update control.dead_letters set replayed_at = now() where id = $1;

-- drop_letter: nobody will replay it; Shopify's text goes at once
update control.dead_letters set dropped_at = now(), sealed = null, payload = '', mentions = '{}' where id = $1;

-- drop_letters_of: a store that is disconnected, or begins anew, is read from the start
update control.dead_letters set dropped_at = now(), sealed = null, payload = '', mentions = '{}'
where connection_id = $1 and dropped_at is null;

-- erase_letters: texts that mention who or what a privacy request is about
update control.dead_letters
set dropped_at = coalesce(dropped_at, now()), sealed = null, payload = '', mentions = '{}'
where connection_id = $1 and sealed is not null and mentions && $2::bigint[];

-- forget_handled: the service takes the event again
delete from control.inbox where event_id = $1 and service = $2;

-- others_handled: who had it before must not take it again, though what the inbox knew of it may be pruned
insert into control.inbox (event_id, service)
select $1, other
from unnest($2::text[]) as other
where not exists (select from control.outbox where event_id = $1 and settled_at is null)
on conflict do nothing;

-- send_again: the event goes out anew
insert into control.outbox (event_id, event_type, payload, consumers) values ($1, $2, $3, $4)
on conflict (event_id) do update set published_at = null, settled_at = null, times_published = 0;

-- revive_job: back to where it stood, unless another of its kind is at work
update control.jobs j
set state = $2, problem = null, ended_at = null
where j.id = $1 and j.state = 'failed'
  and not exists (
    select from control.jobs n
    where n.connection_id = j.connection_id and n.kind = j.kind and n.id <> j.id
      and (n.id > j.id or n.state in ('queued', 'running', 'staged'))
)
returning connection_id, kind;

-- connection_for_trouble: locked, so that two judgements of it follow each other; rows may refer to it meanwhile
select brand_id, sync_status, problem, trouble from control.connections
where id = $1 and removed_at is null
for no key update;

-- open_letters: kinds of letters that a connection waits for. A letter whose job has failed is that failure;
-- one whose job was run again since is settled by that
select distinct d.event_type, d.event_type like '% %' as aside
from control.dead_letters d
left join control.jobs j on j.id = d.job_id
where d.connection_id = $1 and d.replayed_at is null and d.dropped_at is null and d.service <> 'status'
  and (
    j.id is null
    or (
        j.state not in ('failed', 'canceled')
        and not exists (
            select from control.jobs n
            where n.connection_id = j.connection_id and n.kind = j.kind and n.id > j.id
        )
    )
  )
order by aside, d.event_type
limit 4;

-- keep_trouble: what its letters amount to
update control.connections set trouble = $2, updated_at = now() where id = $1;

-- show_trouble: the sync does not go on, or is done but for that
update control.connections set sync_status = $2, problem = $3, updated_at = now() where id = $1;

-- at_rest: the sync came to its end: nothing that somebody asked for since is a step of one
select newest.state in ('completed', 'failed') and (
    newest.kind = 'audit'
    or (newest.kind = 'catch_up' and newest.round = 1 and (
        select j.kind = 'audit' and j.state in ('completed', 'failed')
        from control.jobs j
        where j.connection_id = $1 and j.state <> 'canceled' and j.kind <> 'catch_up'
        order by j.id desc
        limit 1
    ))
)
from control.jobs newest
where newest.connection_id = $1 and newest.state <> 'canceled'
order by newest.id desc
limit 1;

-- failed_job: the newest of a kind that has failed and was not run again
select j.problem
from control.jobs j
where j.connection_id = $1 and j.state = 'failed'
  and not exists (
    select from control.jobs n where n.connection_id = j.connection_id and n.kind = j.kind and n.id > j.id
)
order by j.id desc
limit 1;

-- sync_step: where the sync stands, by its jobs and its last audit
with newest as (
    select distinct on (kind) kind, id, state
    from control.jobs
    where connection_id = $1 and state <> 'canceled'
    order by kind, id desc
)
select case
    when (select a.equal from control.audits a where a.connection_id = $1 order by a.id desc limit 1)
        and not exists (select from newest where kind like 'bulk_%' and state <> 'completed')
        and not exists (
            select from newest b
            where b.kind like 'bulk_%'
              and b.id > (select a.job_id from control.audits a where a.connection_id = $1 order by a.id desc limit 1)
        )
        then 'live'
    when exists (select from newest where kind = 'audit' and state in ('queued', 'running')) then 'auditing'
    when exists (select from newest where kind like 'bulk_%' and state in ('queued', 'running', 'staged'))
        then 'backfilling'
    when exists (select from newest where kind = 'catch_up' and state in ('queued', 'running', 'staged'))
        then 'catching_up'
    when exists (select from newest where kind like 'bulk_%') then 'backfilling'
    when exists (select from newest where kind = 'recent_sync') then 'recent'
    else 'connecting'
end;

-- stored_token: a connection's grant; its tokens are encrypted
select shop, token_kind, access_token, access_token_expires_at, refresh_token
from control.connections
where id = $1;

-- replace_token: the next pair, unless the connection was changed since the last one ($2) was read
update control.connections
set
    access_token = $3,
    access_token_expires_at = $4,
    refresh_token = $5,
    refresh_token_expires_at = $6,
    updated_at = now()
where id = $1 and access_token = $2;

-- sealed_tokens: what may have to be encrypted again, a batch at a time
select id, access_token, refresh_token
from control.connections
where id > $1 and access_token is not null
order by id
limit $2;

-- reseal_token: the same tokens under the newest key, unless they were replaced meanwhile
update control.connections
set access_token = coalesce($3, access_token), refresh_token = coalesce($4, refresh_token)
where id = $1 and access_token = $2;
