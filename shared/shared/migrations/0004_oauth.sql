-- Connecting by OAuth: the states that are under way, and what a grant is besides its access token.

alter table control.connections
add column token_kind text not null default 'custom' check (
    token_kind in ('custom', 'offline', 'client_credentials')
),
add column access_token_expires_at timestamptz,
add column refresh_token bytea,
add column refresh_token_expires_at timestamptz,
add column reconnected_at timestamptz;
comment on column control.connections.token_kind is
'custom: given to us; offline: by OAuth; client_credentials: asked for with the app''s own credentials.';
comment on column control.connections.access_token_expires_at is 'Null: it lasts.';
comment on column control.connections.refresh_token is 'Encrypted like access_token; null where there is none.';
comment on column control.connections.reconnected_at is
'When the store was connected again: news of an uninstallation from before then come too late.';

create table control.oauth_states (
    state_hash bytea primary key,
    browser_hash bytea not null,
    shop text not null,
    brand_id text not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    finished_at timestamptz
);
comment on table control.oauth_states is 'OAuth round trips under way. A used one stays until it expires, '
'so that a browser that loads the last page again is sent on and not refused.';
create index oauth_states_expires_at on control.oauth_states (expires_at);
