-- emit: an event, in the transaction of the work that caused it
insert into control.outbox (event_id, event_type, payload, consumers) values ($1, $2, $3, $4);

-- take_unpublished: the oldest events that no relay has sent, locked against the other relays
select id, event_type, payload
from control.outbox
where published_at is null
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

-- take_unhandled: sent $2 seconds ago (twice as long each time, up to 32 times) and still not handled
select id, event_type, payload
from control.outbox
where settled_at is null
  and published_at < now() - $2::float8 * power(2, least(times_published, 6) - 1) * interval '1 second'
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

-- bury: a message that nobody could handle; it counts as handled until it is replayed
insert into control.dead_letters (event_id, event_type, service, connection_id, payload, error, deliveries)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (event_id, service) do update
set error = excluded.error, deliveries = excluded.deliveries, died_at = now(), replayed_at = null;

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
