-- connections_of_shops: which connection a shop's webhooks belong to
select id, brand_id, shop, scopes from control.connections where shop = any($1) and removed_at is null;

-- removed_connections: what a shop was connected to before; its rows are still there
select id, brand_id from control.connections where shop = $1 and removed_at is not null order by id;

-- connection_to_apply: a store whose webhook is read again
select id, brand_id, shop, scopes from control.connections where id = $1 and removed_at is null;

-- note_deliveries: what is new of these webhooks; Shopify's id of a delivery is the same when it tries again
insert into control.webhook_deliveries (connection_id, webhook_id, topic, triggered_at)
select $1, webhook_id, topic, triggered_at
from unnest($2::text[], $3::text[], $4::timestamptz[]) as d (webhook_id, topic, triggered_at)
on conflict do nothing
returning webhook_id;

-- add_batch: rows that are staged together
insert into control.batches (connection_id, source, rows) values ($1, 'webhook', $2) returning id;

-- note_compliance_request: kept as evidence, with Shopify's ids only
insert into control.compliance_requests (connection_id, shop, webhook_id, topic, subject)
values ($1, $2, $3, $4, $5)
on conflict do nothing;

-- set_scopes: what the merchant grants as of $3, unless a later word is known. Returns what was granted before
with before as (select id, scopes from control.connections where id = $1 for no key update)
update control.connections c
set scopes = $2, scopes_at = $3, updated_at = now()
from before
where c.id = before.id and c.scopes_at <= $3
returning before.scopes;

-- note_lost_scopes: as if no load had had them. What changes while they are gone is read when they are back
update control.jobs
set lacking = array(select s from unnest(lacking || $2::text[]) s group by s order by s)
where connection_id = $1 and kind like 'bulk_%' and state <> 'canceled';

-- connection_by_brand: locked, so that two requests for a brand follow each other
select id, brand_id, shop, sync_status, metadata, scopes, problem, created_at, updated_at, removed_at
from control.connections
where brand_id = $1
for no key update;

-- connection_by_id: for reading and for removing
select id, brand_id, shop, sync_status, metadata, scopes, problem, created_at, updated_at, removed_at, access_token
from control.connections
where id = $1;

-- list_connections: all of them, the newest first
select id, brand_id, shop, sync_status, metadata, scopes, problem, created_at, updated_at, removed_at
from control.connections
order by id desc
limit $1 offset $2;

-- insert_connection: a brand's first store
insert into control.connections (
    brand_id, shop, scopes, scopes_at, currency, token_kind,
    access_token, access_token_expires_at, refresh_token, refresh_token_expires_at
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
returning id, brand_id, shop, sync_status, metadata, scopes, problem, created_at, updated_at, removed_at;

-- regrant_connection: the same connection with a new grant; a removed one starts over
update control.connections
set
    scopes = $2,
    scopes_at = $3,
    currency = $4,
    token_kind = $5,
    access_token = $6,
    access_token_expires_at = $7,
    refresh_token = $8,
    refresh_token_expires_at = $9,
    sync_status = case when removed_at is null then sync_status else 'connecting' end,
    problem = case when removed_at is null then problem end,
    removed_at = null,
    reconnected_at = now(),
    updated_at = now()
where id = $1
returning id, brand_id, shop, sync_status, metadata, scopes, problem, created_at, updated_at, removed_at;

-- remove_connection: its data stay, its tokens go; nothing happens if it was connected again after $2
update control.connections
set
    sync_status = 'removed',
    access_token = null,
    access_token_expires_at = null,
    refresh_token = null,
    refresh_token_expires_at = null,
    trouble = null,
    removed_at = now(),
    updated_at = now()
where id = $1
  and removed_at is null
  and ($2::timestamptz is null or reconnected_at is null or reconnected_at <= $2)
returning brand_id;

-- cancel_jobs: nothing more is to be done for a removed connection
update control.jobs set state = 'canceled', ended_at = now()
where connection_id = $1 and state in ('queued', 'running', 'staged');

-- last_job: what came up to it belongs to the connection as it was
select coalesce(max(id), 0) from control.jobs where connection_id = $1;

-- cancel_operations: like its jobs
update control.bulk_operations set state = 'canceled'
where connection_id = $1 and state in ('planned', 'running', 'ready');

-- forget_subscriptions: Shopify drops them when the app goes
delete from control.webhook_subscriptions where connection_id = $1;

-- subscriptions: what we asked Shopify to tell us
select topic, gid from control.webhook_subscriptions where connection_id = $1;

-- has_webhooks: whether Shopify was asked to tell us of a brand's store
select exists (
    select from control.webhook_subscriptions s
    join control.connections c on c.id = s.connection_id
    where c.brand_id = $1
);

-- note_subscription: a topic that is registered
insert into control.webhook_subscriptions (connection_id, topic, gid, uri)
values ($1, $2, $3, $4)
on conflict (connection_id, topic) do update set gid = excluded.gid, uri = excluded.uri, checked_at = now();

-- set_problem: shown with the connection until it is over
update control.connections set problem = $2, updated_at = now() where id = $1;

-- queue_job: once at a time of each kind. A catch_up goes on where the last one of this load began; one that is
-- under way may have passed by what is to be read, and owes it. `xmax` is 0 in a row that is new
insert into control.jobs as j (connection_id, kind, lacking, since)
values (
    $1, $2,
    array(
        select s from unnest($4::text[]) s
        where $2 like 'bulk_%' and s <> all(select unnest(c.scopes) from control.connections c where c.id = $1)
    ),
    case when $2 = 'catch_up' then coalesce($3::timestamptz, (
        select max(l.created_at) from control.jobs l
        where l.connection_id = $1 and l.kind = 'catch_up' and l.state = 'completed'
          and l.id > all(select b.id from control.jobs b where b.connection_id = $1 and b.kind like 'bulk_%')
    )) end
)
on conflict (connection_id, kind) where state in ('queued', 'running', 'staged') do update
set owes = case
    when j.kind = 'catch_up' and ($3 is not null or j.state <> 'queued') then least(j.owes, coalesce($3, now()))
    else j.owes
end
returning id, xmax = 0 as is_new;

-- set_sync_status: a sync begins again
update control.connections
set sync_status = $2, problem = null, updated_at = now()
where id = $1;

-- shop_of_brand: which store a brand belongs to, also when that was disconnected
select shop from control.connections where brand_id = $1;

-- begin_oauth: a round trip to Shopify and back
insert into control.oauth_states (state_hash, browser_hash, shop, brand_id, expires_at)
values ($1, $2, $3, $4, now() + $5::float8 * interval '1 second');

-- use_oauth: once, in time, for the same store and by the same browser
update control.oauth_states
set used_at = now()
where state_hash = $1 and browser_hash = $2 and shop = $3 and used_at is null and expires_at > now()
returning brand_id;

-- finish_oauth: the store is connected; the browser may load the page again
update control.oauth_states set finished_at = now() where state_hash = $1;

-- abandon_oauth: the round trip came to nothing, and its state is worth nothing
delete from control.oauth_states where state_hash = $1;

-- used_oauth: what the same browser has used already
select brand_id, finished_at
from control.oauth_states
where state_hash = $1 and browser_hash = $2 and shop = $3 and used_at is not null and expires_at > now();

-- forget_oauth: round trips that never came back, and finished ones
delete from control.oauth_states where expires_at < now();

-- webhooks_to_check: live connections whose subscriptions nobody has looked at for a while
select id, brand_id, scopes, webhooks_checked_at
from control.connections
where removed_at is null
  and (sync_status = 'live'
    or (sync_status = 'attention' and problem ->> 'code' in ('set_aside', 'audit_differs')))
  and webhooks_checked_at < now() - $1::float8 * interval '1 second'
order by webhooks_checked_at
limit 20;

-- webhooks_checked: somebody has looked
update control.connections set webhooks_checked_at = now() where id = $1;

-- subscription_gids: what was registered when it was last looked at
select topic, gid from control.webhook_subscriptions where connection_id = $1;
