"""What each Postgres role may do, and what a dashboard sees of the brands (0007_roles.sql)."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared.db import connect, load_queries, migrate
from shared.roles import role_of

SERVICES = ("ingress", "bulk-runner", "promoter", "status")
ROLES = (*map(role_of, SERVICES), "backstock_dashboard")
PRIVILEGES = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}

# Table -> rights of ingress, bulk_runner, promoter, status, dashboard: r(ead) a(dd) w(rite) d(elete), - for
# none; [..] is what holds for some columns only. A table that is not here fails: decide who needs it.
STAGED = "a a - - -"
SHOWN = "- r - r r"
MAY = {
    "control.audits": "r ra rd r -",
    "control.batches": "ra raw rd r -",
    "control.bulk_operations": "rw raw rd - -",
    "control.compliance_requests": "ra - - - -",
    "control.connections": "raw rw [rw] [rw] -",
    "control.dead_letters": "raw raw rawd raw -",
    "control.inbox": "rad rad rad rad -",
    "control.jobs": "raw raw rd[w] r[w] -",
    "control.leases": "raw raw rawd raw -",
    "control.oauth_states": "rawd - - - -",
    "control.outbox": "raw raw raw rawd -",
    "control.progress": "- - - raw -",
    "control.progress_baseline": "- - - raw -",
    "control.schema_migrations": "r r r r -",
    "control.webhook_deliveries": "ra - rd r -",
    "control.webhook_subscriptions": "rawd - - - -",
    "stage.audited": "- rad - - -",
    "stage.differences": "- rad - - -",
    **dict.fromkeys(
        (
            "stage.customer_summaries",
            "stage.customer_tags",
            "stage.customers",
            "stage.deletions",
            "stage.order_line_items",
            "stage.orders",
            "stage.product_variants",
            "stage.products",
            "stage.redactions",
            "stage.refund_line_items",
            "stage.refund_reads",
            "stage.refunds",
        ),
        STAGED,
    ),
    **dict.fromkeys(
        (
            "shopify.customers",
            "shopify.order_line_items",
            "shopify.orders",
            "shopify.product_variants",
            "shopify.products",
            "shopify.refund_line_items",
            "shopify.refunds",
        ),
        SHOWN,
    ),
}
MAY_CALL = {
    "stage.promote(bigint)": {"backstock_promoter"},
    "stage.objects(bigint)": {"backstock_promoter"},
    "stage.promote_objects(bigint,text[],bigint[])": {"backstock_promoter"},
    "stage.take_object(bigint,text,bigint)": {"backstock_promoter"},
    "stage.trust_audit(bigint)": {"backstock_promoter"},
    "stage.judge_audit(bigint,bigint)": {"backstock_bulk_runner"},
    "control.must_be_erased(bigint,bigint[])": set(map(role_of, SERVICES)),
    "shopify.brand_connection()": {"backstock_bulk_runner", "backstock_status", "backstock_dashboard"},
}
SECRETS = ("access_token", "refresh_token")
ATTEMPTS = (
    ("backstock_status", "select access_token from control.connections"),
    ("backstock_status", "select * from control.connections"),
    ("backstock_promoter", "select refresh_token from control.connections"),
    ("backstock_status", "select * from stage.orders"),
    ("backstock_status", "update shopify.orders set total_price = 0"),
    ("backstock_promoter", "insert into shopify.orders (connection_id, id) values (1, 1)"),
    ("backstock_promoter", "delete from stage.orders"),
    ("backstock_ingress", "select * from shopify.customers"),
    ("backstock_ingress", "select stage.promote(1)"),
    ("backstock_bulk_runner", "delete from shopify.orders"),
    ("backstock_dashboard", "select * from control.connections"),
    ("backstock_dashboard", "select * from stage.orders"),
    ("backstock_dashboard", "delete from shopify.orders"),
    ("backstock_dashboard", "alter table shopify.orders disable row level security"),
    ("backstock_dashboard", "create table shopify.mine ()"),
)


@pytest.fixture
async def db(database_url):
    """A connection of the owner's."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_every_table_says_what_each_role_may(db):
    """The rights in the database are those of MAY, for every table there is."""
    found = await db.fetch(
        "select n.nspname || '.' || c.relname as name, c.oid from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname in ('control', 'stage', 'shopify') and c.relkind in ('r', 'p', 'v', 'm') order by 1"
    )
    assert {row["name"]: await _rights(db, row["oid"]) for row in found} == {
        row["name"]: MAY.get(row["name"], "who may use it? Say so in its migration and here") for row in found
    }


async def _rights(db, table: int) -> str:
    return " ".join([await _rights_of(db, role, table) for role in ROLES])


async def _rights_of(db, role: str, table: int) -> str:
    whole = part = ""
    for letter, privilege in PRIVILEGES.items():
        if await db.fetchval("select has_table_privilege($1::name, $2::oid, $3)", role, table, privilege):
            whole += letter
        elif letter != "d" and await db.fetchval(
            "select has_any_column_privilege($1::name, $2::oid, $3)", role, table, privilege
        ):
            part += letter
    return whole + (f"[{part}]" if part else "") or "-"


async def test_functions_are_for_who_calls_them(db):
    """Nobody else may execute them; what the promoter runs as the owner has a search path of its own."""
    found = await db.fetch(
        "select p.oid::regprocedure::text as name, r.rolname as role, p.prosecdef, p.proconfig "
        "from pg_proc p join pg_namespace n on n.oid = p.pronamespace, pg_roles r "
        "where n.nspname in ('control', 'stage', 'shopify') and r.rolname = any($1::text[]) "
        "and has_schema_privilege(r.oid, n.oid, 'usage') and has_function_privilege(r.oid, p.oid, 'execute')",
        list(ROLES),
    )
    callers: dict[str, set[str]] = {}
    for row in found:
        callers.setdefault(row["name"], set()).add(row["role"])
        if row["role"] == "backstock_promoter" or row["name"] == "shopify.brand_connection()":
            assert row["prosecdef"], (
                f"{row['name']} lost `security definer`: say it again when you replace it"
            )
            assert row["proconfig"] == ["search_path=pg_catalog, pg_temp"]
    assert callers == {name: MAY_CALL.get(name) for name in callers}
    assert "stage.promote(bigint)" in callers


@pytest.mark.parametrize(("role", "statement"), ATTEMPTS)
async def test_what_a_role_does_not_need_is_refused(db, role, statement):
    """A statement outside a role's work ends in "permission denied"."""
    await db.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute(statement)


async def test_only_those_who_use_tokens_can_read_them(db):
    """Column by column: status, promoter and dashboards read no access or refresh token."""
    for column in SECRETS:
        readers = await db.fetch(
            "select r from unnest($1::name[]) r "
            "where has_column_privilege(r, 'control.connections', $2, 'select')",
            list(ROLES),
            column,
        )
        assert {row["r"] for row in readers} == {"backstock_ingress", "backstock_bulk_runner"}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_works_under_its_role(service, database_url):
    """On every connection of its pool, and also after a connection was released."""
    pool = await connect(database_url, service=service, size=1)
    try:
        seen = [await pool.fetchval("select current_user") for _ in range(2)]
    finally:
        await pool.close()
    assert seen == [role_of(service)] * 2


async def test_without_roles_everything_works_as_before(postgres_server, capfd):
    """Users who may not take the roles migrate and connect as themselves, also many at once."""
    admin = await asyncpg.connect(postgres_server.url())
    names = [f"plain_{number}" for number in range(3)]
    try:
        for name in names:
            await admin.execute(f"create role {name} login password 'plain'")
            await admin.execute(f"create database {name} owner {name}")
        urls = [_as_user(postgres_server, name) for name in names]
        await asyncio.gather(*(migrate(url) for url in urls))
        pool = await connect(urls[0], service="status", size=1)
        assert await pool.fetchval("select current_user") == names[0]
        assert await pool.fetchval("select count(*) from shopify.orders") == 0
        await pool.close()
    finally:
        for name in names:
            await admin.execute(f"drop database if exists {name} with (force)")
            await admin.execute(f"drop role if exists {name}")
        await admin.close()


def _as_user(server, name: str) -> str:
    at = server.url(name).partition("@")[2]
    return f"postgresql://{name}:plain@{at}"


# Brands

BRANDS = ('it\'s "Anna"; drop table x; --', "berta")


@pytest.fixture
async def two_brands(db):
    """Two stores with an row of the same id in each table; then the dashboard's role."""
    for brand, shop in zip(BRANDS, ("anna.myshopify.com", "berta.myshopify.com"), strict=True):
        store = await db.fetchval(
            "insert into control.connections (brand_id, shop) values ($1, $2) returning id", brand, shop
        )
        for table in [name for name in MAY if name.startswith("shopify.")]:
            required = await db.fetch(
                "select attname, format_type(atttypid, atttypmod) as kind from pg_attribute "
                "where attrelid = $1::regclass and attnum > 0 and not attisdropped "
                "and attnotnull and not atthasdef "
                "and attname not in ('connection_id', 'id')",
                table,
            )
            values = {"text": "''", "timestamp with time zone": "now()", "bigint": "1"}
            columns = "".join(f", {row['attname']}" for row in required)
            given = "".join(f", {values[row['kind']]}" for row in required)
            await db.execute(f"insert into {table} (connection_id, id{columns}) values ($1, 7{given})", store)
    await db.execute("update shopify.orders set customer_id = 7")
    await db.execute(
        "create view shopify.checked with (security_invoker = true) as select * from shopify.orders"
    )
    await db.execute("grant select on shopify.checked to backstock_dashboard")
    await db.execute("set role backstock_dashboard")
    return db


async def _use(db, brand: str) -> int | None:
    await db.execute("select set_config('backstock.brand_id', $1, false)", brand)
    return await db.fetchval("select shopify.brand_connection()")


async def test_a_dashboard_sees_one_brand_in_every_table(two_brands):
    """In tables, joins, views and functions: the rows of the brand that the session names, and no others."""
    for brand in BRANDS:
        store = await _use(two_brands, brand)
        assert store
        for table in [*(name for name in MAY if name.startswith("shopify.")), "shopify.checked"]:
            assert await _stores(two_brands, f"select * from {table}") == [store], table
        joined = "select o.* from shopify.orders o join shopify.customers c on c.id = o.customer_id"
        assert await _stores(two_brands, joined) == [store]


async def _stores(db, query: str) -> list[int]:
    return [row["connection_id"] for row in await db.fetch(query)]


@pytest.mark.parametrize("brand", ["", "nobody", "berta'--", "%", "BERTA"])
async def test_a_dashboard_without_a_known_brand_sees_nothing(two_brands, brand):
    """Empty and unknown names match no rows; so does a session that has set none."""
    assert await two_brands.fetchval("select count(*) from shopify.orders") == 0
    assert await _use(two_brands, brand) is None
    assert await two_brands.fetchval("select count(*) from shopify.orders") == 0


async def test_the_brand_is_looked_up_once_a_query(two_brands):
    """The policy is an InitPlan and can use the key; services pay nothing at all."""
    await _use(two_brands, "berta")
    shown = await _plan(two_brands)
    assert "InitPlan" in shown
    await two_brands.execute("reset role; set role backstock_status")
    assert "brand_connection" not in (plan := await _plan(two_brands))
    assert "Filter" not in plan


async def _plan(db) -> str:
    return "\n".join(row[0] for row in await db.fetch("explain (verbose) select * from shopify.orders"))


# Queries

PACKAGES = {"ingress": "ingress", "bulk-runner": "bulk_runner", "promoter": "promoter", "status": "status"}
OF_TOKENS = ("stored_token", "replace_token", "sealed_tokens", "reseal_token")
NOT_FOR = {"promoter": OF_TOKENS, "status": (*OF_TOKENS, "gives_way")}  # who never asks need not be able to


@pytest.mark.parametrize("service", SERVICES)
async def test_every_query_of_a_service_is_within_its_rights(db, service):
    """Postgres checks the rights of a statement when it explains it; no row is touched."""
    await db.execute(f"set role {role_of(service)}")
    refused = []
    for name, query in {**load_queries("shared"), **load_queries(PACKAGES[service])}.items():
        if name in NOT_FOR.get(service, ()):
            continue
        if not query.startswith("notify"):
            try:
                await _explain(db, query)
            except asyncpg.InsufficientPrivilegeError as error:
                refused.append(f"{name}: {error}")
    assert refused == []


async def _explain(db, query: str) -> None:
    parameters = len((await db.prepare(query)).get_parameters())
    await db.execute(f"prepare it as {query.rstrip().rstrip(';')}")
    nulls = f"({', '.join(['null'] * parameters)})" if parameters else ""
    try:
        await db.execute(f"explain execute it{nulls}")
    finally:
        await db.execute("deallocate it")
