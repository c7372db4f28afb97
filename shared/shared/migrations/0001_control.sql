-- What the services know and owe: connections, jobs, bulk operations, batches, and the two ends of the
-- event transport. Dashboards do not read here.

create schema if not exists control;
comment on schema control is 'Backstock''s own state. Dashboards read schema shopify instead.';

create table control.connections (
    id bigint generated always as identity primary key,
    brand_id text not null unique,
    shop text not null,
    sync_status text not null default 'connecting' check (
        sync_status in
        ('connecting', 'recent', 'backfilling', 'catching_up', 'auditing', 'live', 'attention', 'removed')
    ),
    access_token bytea,
    scopes text[] not null default '{}',
    scopes_at timestamptz not null default '-infinity',
    currency text,
    metadata jsonb not null default '{"v2_architecture": true}',
    problem jsonb,
    webhooks_checked_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    removed_at timestamptz
);
comment on table control.connections is 'One store of one brand. access_token is encrypted; null once removed.';
comment on column control.connections.scopes_at is 'When Shopify last said what is granted, by its own clock.';
create unique index connections_shop on control.connections (shop) where removed_at is null;

create table control.jobs (
    id bigint generated always as identity primary key,
    connection_id bigint not null references control.connections (id),
    kind text not null check (
        kind in ('recent_sync', 'bulk_orders', 'bulk_customers', 'bulk_products', 'catch_up', 'audit')
    ),
    state text not null default 'queued' check (
        state in ('queued', 'running', 'staged', 'completed', 'failed', 'canceled')
    ),
    round integer not null default 1,
    since timestamptz,
    owes timestamptz,
    before timestamptz,
    lacking text[] not null default '{}',
    position jsonb not null default '{}',
    problem jsonb,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz
);
comment on column control.jobs.since is 'catch_up and recent_sync: read what changed from here on.';
comment on column control.jobs.owes is 'catch_up: asked for while it was under way; the next one reads from here on.';
comment on column control.jobs.before is 'bulk_orders: only orders created before; what read_all_orders opened later.';
comment on column control.jobs.lacking is 'Scopes that were not granted then, or were lost since; what they open is read when they are granted.';
comment on column control.jobs.position is 'Where paged reading goes on after a crash: a place per resource.';
comment on column control.jobs.round is 'Which try of catch_up and audit after the bulk load this is.';
create unique index jobs_one_active on control.jobs (connection_id, kind)
where state in ('queued', 'running', 'staged');

-- Batches and bulk operations number their revisions from here: an object's row and its children carry the
-- revision of the copy they came with.
create sequence control.revisions;

create table control.bulk_operations (
    id bigint generated always as identity primary key,
    connection_id bigint not null references control.connections (id),
    job_id bigint not null references control.jobs (id),
    resource text not null check (resource in ('orders', 'customers', 'products')),
    window_start timestamptz,
    window_end timestamptz,
    state text not null default 'planned' check (
        state in ('planned', 'running', 'ready', 'staged', 'split', 'failed', 'canceled')
    ),
    attempt integer not null default 1,
    due_at timestamptz not null default now(),
    polls integer not null default 0,
    waits integer not null default 0,
    marker uuid not null default gen_random_uuid(),
    gid text,
    revision bigint not null default nextval('control.revisions'),
    shopify_status text,
    shopify_created_at timestamptz,
    object_count bigint not null default 0,
    root_object_count bigint not null default 0,
    file_size bigint,
    moved_at timestamptz,
    cancel_requested boolean not null default false,
    bytes_done bigint not null default 0,
    lines_done bigint not null default 0,
    roots_done bigint not null default 0,
    aside_done bigint not null default 0,
    batches_done integer not null default 0,
    problem jsonb,
    created_at timestamptz not null default now(),
    unique (connection_id, gid)
);
comment on column control.bulk_operations.due_at is 'planned: when to start it; running: when to poll it next.';
comment on column control.bulk_operations.window_start is 'Orders created from here on; null: from the first.';
comment on column control.bulk_operations.window_end is 'Orders created before; null: up to now.';
comment on column control.bulk_operations.moved_at is 'When Shopify''s counters last moved; frozen ones mean it is stuck.';
comment on column control.bulk_operations.marker is 'Stands in the query as a comment: how we know our own.';
comment on column control.bulk_operations.aside_done is 'Lines that could not be read: roots, or not.';
comment on column control.bulk_operations.bytes_done is 'How much of the file is staged; a download goes on here.';
create index bulk_operations_due on control.bulk_operations (due_at) where state in ('planned', 'running');
create index bulk_operations_job on control.bulk_operations (job_id);

create table control.batches (
    id bigint generated always as identity primary key,
    connection_id bigint not null references control.connections (id),
    job_id bigint references control.jobs (id),
    operation_id bigint references control.bulk_operations (id),
    seq integer not null default 0,
    source text not null check (source in ('recent', 'bulk', 'webhook', 'catch_up', 'audit')),
    revision bigint not null default nextval('control.revisions'),
    rows jsonb not null,
    written jsonb,
    closes_operation boolean not null default false,
    staged_at timestamptz not null default now(),
    promoted_at timestamptz
);
create unique index batches_seq on control.batches (operation_id, seq) where operation_id is not null;
create index batches_waiting on control.batches (job_id) where promoted_at is null;

create table control.inbox (
    event_id uuid not null,
    service text not null,
    handled_at timestamptz not null default now(),
    primary key (event_id, service)
);
create index inbox_handled_at on control.inbox (handled_at);

create table control.outbox (
    id bigint generated always as identity primary key,
    event_id uuid not null unique,
    event_type text not null,
    payload text not null,
    consumers text[] not null,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    times_published integer not null default 0,
    settled_at timestamptz
);
create index outbox_unpublished on control.outbox (id) where published_at is null;
create index outbox_unsettled on control.outbox (published_at) where settled_at is null;

create table control.dead_letters (
    id bigint generated always as identity primary key,
    event_id uuid not null,
    event_type text not null,
    service text not null,
    connection_id bigint,
    payload text not null,
    error text not null,
    deliveries integer not null,
    died_at timestamptz not null default now(),
    replayed_at timestamptz,
    unique (event_id, service)
);

create table control.leases (
    key text primary key,
    owner text not null,
    epoch bigint not null default 1,
    expires_at timestamptz not null
);

create table control.progress (
    connection_id bigint primary key references control.connections (id),
    brand_id text not null unique,
    epoch text not null,
    version bigint not null,
    document jsonb not null,
    state jsonb not null default '{}',
    updated_at timestamptz not null default now()
);

create table control.webhook_subscriptions (
    connection_id bigint not null references control.connections (id),
    topic text not null,
    gid text not null,
    uri text not null,
    checked_at timestamptz not null default now(),
    primary key (connection_id, topic)
);

create table control.webhook_deliveries (
    connection_id bigint not null references control.connections (id),
    webhook_id text not null,
    topic text not null,
    triggered_at timestamptz,
    received_at timestamptz not null default now(),
    primary key (connection_id, webhook_id)
);
create index webhook_deliveries_received_at on control.webhook_deliveries (received_at);

create table control.compliance_requests (
    id bigint generated always as identity primary key,
    connection_id bigint references control.connections (id),
    shop text not null,
    webhook_id text not null,
    topic text not null,
    subject jsonb not null,
    received_at timestamptz not null default now(),
    unique (shop, webhook_id)
);
comment on column control.compliance_requests.subject is 'Shopify''s ids of who and what is meant; no personal data.';

create table control.audits (
    id bigint generated always as identity primary key,
    connection_id bigint not null references control.connections (id),
    job_id bigint not null references control.jobs (id),
    equal boolean not null,
    tables jsonb not null,
    audited_at timestamptz not null default now()
);
