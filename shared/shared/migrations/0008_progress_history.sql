-- The history of progress: events by connection, and what is left of those that are deleted from the outbox.

alter table control.outbox
add column connection_id bigint generated always as ((payload::jsonb ->> 'connection_id')::bigint) stored;
create index outbox_connection on control.outbox (connection_id, id);
create index outbox_settled on control.outbox (settled_at) where settled_at is not null;

create table control.progress_baseline (
    connection_id bigint primary key references control.connections (id),
    state jsonb not null default '{}',
    events bigint not null default 0,
    updated_at timestamptz not null default now()
);
comment on table control.progress_baseline is 'What the events that were deleted from the outbox add up to. '
'With the events that are still there it gives control.progress, each event counted once.';

select control.allow('backstock_status', 'select, insert, update', 'control.progress_baseline');
select control.allow('backstock_status', 'delete', 'control.outbox');
