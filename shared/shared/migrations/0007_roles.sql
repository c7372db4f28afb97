-- One role a service, with what its queries need and no more, and one for dashboards, which read the rows of
-- one brand. They cannot log in: a service takes its role on each connection (shared/roles.py). Where the
-- migrating user may not make roles, everything works as before, under the user of DATABASE_URL.
--
-- A later migration that adds a table, a sequence or a function says who may use it:
--     select control.allow('backstock_status', 'select, insert', 'control.new_table');
-- tests/test_roles.py fails for one that says nothing.

-- Roles belong to the whole server: somebody who migrates another database may be making the same ones now.
set local lock_timeout = '30s';
do $$
declare
    wanted text;
begin
    foreach wanted in array array[
        'backstock_ingress', 'backstock_bulk_runner', 'backstock_promoter', 'backstock_status',
        'backstock_dashboard'
    ] loop
        begin
            if not exists (select from pg_roles where rolname = wanted) then
                execute format('create role %I nologin', wanted);
            end if;
            -- Who makes a role without being superuser may not take it yet.
            if not pg_has_role(current_user, wanted, 'member')
                or not (select rolsuper from pg_roles where rolname = current_user) then
                execute format('grant %I to current_user', wanted);
            end if;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise notice 'role % is not ours to make or to give: who may not take it works as its own user', wanted;
        end;
    end loop;
end $$;
set local lock_timeout = '5s';

-- Grants if the role and the object are there.
create function control.allow(grantee text, privileges text, object text) returns void
language plpgsql as $$
begin
    if exists (select from pg_roles where rolname = grantee) and to_regclass(object) is not null then
        execute format(
            'grant %s on %s %s to %I', privileges,
            case when (select relkind from pg_class where oid = to_regclass(object)) = 'S' then 'sequence' else 'table' end,
            to_regclass(object), grantee
        );
    end if;
end $$;
revoke execute on function control.allow(text, text, text) from public;

-- What all four do: take an event once, send events, hold a lease, bury what cannot be handled.
do $$
declare
    service text;
    open_columns text;
begin
    select string_agg(quote_ident(attname), ', ' order by attnum) into open_columns
    from pg_attribute
    where attrelid = 'control.connections'::regclass and attnum > 0 and not attisdropped
      and attname not in ('access_token', 'refresh_token');
    foreach service in array array[
        'backstock_ingress', 'backstock_bulk_runner', 'backstock_promoter', 'backstock_status'
    ] loop
        if exists (select from pg_roles where rolname = service) then
            execute format('grant usage on schema control to %I', service);
            perform control.allow(service, 'select', 'control.schema_migrations');
            perform control.allow(service, 'select, insert, delete', 'control.inbox');
            perform control.allow(service, 'select, insert, update', 'control.outbox');
            perform control.allow(service, 'select, insert, update', 'control.leases');
            perform control.allow(service, 'select, insert, update', 'control.dead_letters');
            execute format('grant execute on function control.must_be_erased(bigint, bigint[]) to %I', service);
            perform control.allow(service, 'select', 'control.audits');
            perform control.allow(service, format('select (%s)', open_columns), 'control.connections');
            -- A message that nobody can handle fails its job, whoever buries it.
            perform control.allow(service, 'update (sync_status, problem, trouble, updated_at)', 'control.connections');
            perform control.allow(service, 'select, update (state, problem, ended_at)', 'control.jobs');
        end if;
    end loop;
end $$;

do $$
declare
    given record;
    staged regclass;
    service text;
begin
    for given in
        select *
        from (values
            ('backstock_ingress', 'select, insert, update', 'control.connections'),
            ('backstock_ingress', 'select, insert, update', 'control.jobs'),
            ('backstock_ingress', 'select, update', 'control.bulk_operations'),
            ('backstock_ingress', 'select, insert', 'control.batches'),
            ('backstock_ingress', 'usage', 'control.revisions'),
            ('backstock_ingress', 'select, insert, update, delete', 'control.webhook_subscriptions'),
            ('backstock_ingress', 'select, insert', 'control.webhook_deliveries'),
            ('backstock_ingress', 'select, insert', 'control.compliance_requests'),
            ('backstock_ingress', 'select, insert, update, delete', 'control.oauth_states'),
            ('backstock_bulk_runner', 'select, update', 'control.connections'),
            ('backstock_bulk_runner', 'select, insert, update', 'control.jobs'),
            ('backstock_bulk_runner', 'select, insert, update', 'control.bulk_operations'),
            ('backstock_bulk_runner', 'select, insert, update', 'control.batches'),
            ('backstock_bulk_runner', 'usage', 'control.revisions'),
            ('backstock_bulk_runner', 'usage', 'control.batches_id_seq'),
            ('backstock_bulk_runner', 'select, insert', 'control.audits'),
            ('backstock_bulk_runner', 'select, insert, delete', 'stage.audited'),
            ('backstock_bulk_runner', 'select, insert, delete', 'stage.differences'),
            -- It deletes what nobody needs any more (promoter/retention.py): it is the one that no stranger can call.
            ('backstock_promoter', 'select, delete', 'control.batches'),
            ('backstock_promoter', 'select, delete', 'control.bulk_operations'),
            ('backstock_promoter', 'delete', 'control.jobs'),
            ('backstock_promoter', 'delete', 'control.audits'),
            ('backstock_promoter', 'delete', 'control.dead_letters'),
            ('backstock_promoter', 'delete', 'control.leases'),
            ('backstock_promoter', 'select, delete', 'control.webhook_deliveries'),
            ('backstock_status', 'select, insert, update', 'control.progress'),
            ('backstock_status', 'select', 'control.batches'),
            ('backstock_status', 'select', 'control.webhook_deliveries')
        ) as wanted (grantee, privileges, object)
    loop
        perform control.allow(given.grantee, given.privileges, given.object);
    end loop;
    foreach service in array array['backstock_ingress', 'backstock_bulk_runner', 'backstock_promoter'] loop
        if exists (select from pg_roles where rolname = service) then
            execute format('grant usage on schema stage to %I', service);
        end if;
    end loop;
    -- Rows land in stage by COPY, which needs no right to read them.
    for staged in
        select oid from pg_class
        where relnamespace = 'stage'::regnamespace and relkind = 'r' and relname not in ('audited', 'differences')
    loop
        perform control.allow('backstock_ingress', 'insert', staged::text);
        perform control.allow('backstock_bulk_runner', 'insert', staged::text);
    end loop;
end $$;

-- Promotion runs as the owner of the tables: the promoter can promote a batch, and write nothing else.
alter function stage.promote(bigint) security definer set search_path = pg_catalog, pg_temp;
do $$
declare
    routine regprocedure;
begin
    for routine in select oid from pg_proc where pronamespace = 'stage'::regnamespace loop
        execute format('revoke execute on function %s from public', routine);
        if routine::text like 'stage.judge_audit(%'
            and exists (select from pg_roles where rolname = 'backstock_bulk_runner') then
            execute format('grant execute on function %s to backstock_bulk_runner', routine);
        end if;
        if routine::text like 'stage.trust_audit(%' then
            execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', routine);
        end if;
        if routine::text ~ '^stage\.(promote|trust_audit)\(bigint\)$'
            and exists (select from pg_roles where rolname = 'backstock_promoter') then
            execute format('grant execute on function %s to backstock_promoter', routine);
        end if;
    end loop;
end $$;

-- Which rows of schema shopify a session may see. Unset, empty or unknown: null, and null equals nothing.
create function shopify.brand_connection() returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select id from control.connections where brand_id = nullif(current_setting('backstock.brand_id', true), '')
$$;
comment on function shopify.brand_connection() is 'The connection of the brand in the setting backstock.brand_id.';

do $$
declare
    shown regclass;
    service text;
begin
    foreach service in array array['backstock_bulk_runner', 'backstock_status', 'backstock_dashboard'] loop
        if exists (select from pg_roles where rolname = service) then
            execute format('grant usage on schema shopify to %I', service);
        end if;
    end loop;
    for shown in select oid from pg_class where relnamespace = 'shopify'::regnamespace and relkind = 'r' loop
        execute format('alter table %s enable row level security', shown);
        -- A sub-select: looked up once a query, not once a row.
        execute format(
            'create policy brand on %s for select using (connection_id = (select shopify.brand_connection()))', shown
        );
        foreach service in array array['backstock_bulk_runner', 'backstock_status'] loop
            if exists (select from pg_roles where rolname = service) then
                perform control.allow(service, 'select', shown::text);
                execute format('create policy %I on %s for select to %I using (true)', service, shown, service);
            end if;
        end loop;
        perform control.allow('backstock_dashboard', 'select', shown::text);
    end loop;
end $$;
