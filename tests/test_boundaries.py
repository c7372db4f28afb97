"""What the design forbids, as checks: who imports whom, who hears what, what SQL may touch."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import asyncpg
import pytest
from cryptography.fernet import Fernet
from faststream.redis import RedisBroker
from redis.asyncio import Redis

from shared.db import load_queries
from shared.events import EVENTS, BulkReady, Event, JobKind, JobQueued, Service
from shared.health import Readiness
from shared.outbox import stream_name
from shared.rows import TABLES, AuditedRow
from shared.service import Parts
from shared.settings import Settings
from shared.stream import Route

ROOT = Path(__file__).parents[1]
PACKAGES: dict[Service, str] = {
    "ingress": "ingress",
    "bulk-runner": "bulk_runner",
    "promoter": "promoter",
    "status": "status",
}
PURE = (
    "shared.events",
    "shared.rows",
    "ingress.payloads",
    "ingress.signatures",
    "bulk_runner.documents",
    "bulk_runner.resources.orders",
    "bulk_runner.resources.customers",
    "bulk_runner.resources.products",
    "status.progress",
)
DRIVERS = ("asyncpg", "redis", "httpx", "faststream", "litestar", "uvicorn")
EVERY_TABLE = {
    "connection_id": "bigint",
    "id": "bigint",
    "deleted_at": "timestamp with time zone",
    "synced_at": "timestamp with time zone",
    "source": "text",
}
TEXT, NUMBER, TIME, BIG, INT, FLAG, TAGS = (
    "text",
    "numeric",
    "timestamp with time zone",
    "bigint",
    "integer",
    "boolean",
    "ARRAY",
)
CONTRACT = {  # the public tables, as the design promises them to dashboards
    "orders": {
        **dict.fromkeys(
            ("name", "cancel_reason", "financial_status", "fulfillment_status", "currency", "email"), TEXT
        ),
        **dict.fromkeys(("created_at", "updated_at", "processed_at", "cancelled_at", "closed_at"), TIME),
        **dict.fromkeys(
            (
                "total_price",
                "subtotal_price",
                "total_tax",
                "total_discounts",
                "total_shipping",
                "total_refunded",
                "current_total_price",
                "current_subtotal_price",
                "current_total_tax",
                "current_total_discounts",
            ),
            NUMBER,
        ),
        "customer_id": BIG,
        "source_name": TEXT,
        "tags": TAGS,
        "test": FLAG,
    },
    "order_line_items": {
        **dict.fromkeys(("order_id", "product_id", "variant_id"), BIG),
        **dict.fromkeys(("title", "variant_title", "sku", "vendor"), TEXT),
        **dict.fromkeys(("quantity", "current_quantity"), INT),
        **dict.fromkeys(
            ("original_unit_price", "discounted_unit_price", "original_total", "discounted_total"), NUMBER
        ),
    },
    "refunds": {"order_id": BIG, "created_at": TIME, "total_refunded": NUMBER, "note": TEXT},
    "refund_line_items": {
        **dict.fromkeys(("refund_id", "line_item_id"), BIG),
        "quantity": INT,
        "subtotal": NUMBER,
        "total_tax": NUMBER,
        "restock_type": TEXT,
    },
    "customers": {
        **dict.fromkeys(("first_name", "last_name", "email", "phone", "state", "currency"), TEXT),
        "tags": TAGS,
        "number_of_orders": BIG,
        "amount_spent": NUMBER,
        **dict.fromkeys(("verified_email", "tax_exempt"), FLAG),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
    },
    "products": {
        **dict.fromkeys(("title", "handle", "vendor", "product_type", "status"), TEXT),
        "tags": TAGS,
        **dict.fromkeys(("published_at", "created_at", "updated_at"), TIME),
        "total_inventory": BIG,
    },
    "product_variants": {
        **dict.fromkeys(("product_id", "inventory_quantity", "inventory_item_id"), BIG),
        **dict.fromkeys(("title", "sku", "barcode"), TEXT),
        **dict.fromkeys(("price", "compare_at_price"), NUMBER),
        "position": INT,
        "taxable": FLAG,
        **dict.fromkeys(("created_at", "updated_at"), TIME),
    },
}


@pytest.fixture
async def db(database_url):
    """A connection to a migrated database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def sources(package: str) -> list[Path]:
    return sorted(Path(str(files(package))).rglob("*.py"))


# Imports


def test_the_import_contracts_hold():
    """No service imports another, shared no service, the sandbox nothing of ours, pure code no driver."""
    linter = Path(sys.executable).with_name("lint-imports")
    assert linter.exists(), "run `make setup`"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" in done.stdout
    assert "Pure modules import no driver" in done.stdout


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_loads_no_driver(module):
    """Importing it, in a process of its own, brings in no database, Redis or HTTP library."""
    program = f"import sys, {module}; print(sorted(sys.modules.keys() & set({DRIVERS!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Events and services


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_names_services_that_exist(event: type[Event]):
    """Its consumers are services of ours, each once; somebody hears of everything."""
    assert event.consumed_by
    assert set(event.consumed_by) <= set(get_args(Service))
    assert len(set(event.consumed_by)) == len(event.consumed_by)


def test_every_event_is_registered():
    """A class that was left out of EVENTS could be emitted but never read."""

    def below(kind: type[Event]) -> set[type[Event]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {event for event in below(Event) if event.__module__ == "shared.events"} - {Event}
    assert set(EVENTS.values()) == ours


@pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")
@pytest.mark.filterwarnings("ignore:Deprecated 'header' parameter:DeprecationWarning")
@pytest.mark.parametrize("service", PACKAGES)
async def test_a_service_subscribes_to_every_event_that_names_it(service: Service, database_url):
    """What events promise and what `wire` subscribes to is the same; else one would be sent for ever."""
    app = __import__(f"{PACKAGES[service]}.app", fromlist=["wire"])
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    broker = RedisBroker("redis://127.0.0.1:1")  # never connected
    route = Route(broker, pool, service)
    redis = Redis.from_url("redis://127.0.0.1:1")
    parts = Parts(settings(database_url), pool, redis, route, Readiness())
    try:
        async with app.wire(parts):
            subscribed = route._streams()
    finally:
        await redis.aclose()
        await pool.close()
    named = {stream_name(event) for event in EVENTS.values() if service in event.consumed_by}
    assert subscribed == named


def settings(database_url: str) -> Settings:
    return Settings(
        _env_file=None,
        database_url=database_url,
        redis_url="redis://127.0.0.1:1",
        shopify_client_secret="secret",
        backstock_api_key="0123456789abcdef",
        backstock_secret_keys=Fernet.generate_key().decode(),
    )


async def test_job_kinds_are_those_of_the_database(db):
    """The kinds that events may name and those that control.jobs takes are the same list."""
    check = await db.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint "
        "where conrelid = 'control.jobs'::regclass and conname = 'jobs_kind_check'"
    )
    assert set(re.findall(r"'(\w+)'", check)) == set(get_args(JobKind))
    assert JobQueued.model_fields["kind"].annotation == BulkReady.model_fields["kind"].annotation == JobKind


# SQL


@pytest.mark.parametrize("package", ["shared", *PACKAGES.values()])
async def test_every_query_prepares(package, db):
    """Each named query is understood by Postgres against the migrated tables, and some code uses it."""
    queries = load_queries(package)
    assert queries
    for name, statement in queries.items():
        try:
            await db.prepare(statement)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{package}: {name}: {error}")
    code = "".join(source.read_text("utf-8") for source in sources(package))
    assert [name for name in queries if f'"{name}"' not in code] == []


def test_no_query_is_asked_for_that_is_not_there():
    """A typing error in queries["..."] shows here, not on the day that the branch is taken."""
    for package in ("shared", *PACKAGES.values()):
        queries = load_queries(package)
        for source in sources(package):
            asked = re.findall(r'\bqueries\["(\w+)"\]', source.read_text("utf-8"))
            assert set(asked) <= set(queries), source.name


def test_no_sql_is_put_together_in_services():
    """No f-string, format or concatenation holds a statement: values are parameters, names are fixed."""
    statement = re.compile(
        r"\b(select\s.+\sfrom|insert\s+into|update\s+\w+(\.\w+)?\s+set|delete\s+from)\b",
        re.IGNORECASE | re.DOTALL,
    )
    found = []
    for package in ("shared", *PACKAGES.values()):
        for source in sources(package):
            for node in ast.walk(ast.parse(source.read_text("utf-8"))):
                built = _built_text(node)
                if statement.search(built):
                    found.append((package, source.name, built))
    assert found == []


def _built_text(node: ast.AST) -> str:
    """The fixed parts of a text that is built at run time; nothing for a plain one."""
    match node:
        case ast.JoinedStr(values=parts):
            return " ".join(str(p.value) for p in parts if isinstance(p, ast.Constant))
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mod() | ast.Add()):
            return text
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as text), attr="format")):
            return text
    return ""


async def test_staged_rows_have_the_columns_of_their_tables(db):
    """COPY is by name: each row type's fields are columns of its stage table, and none is missing."""
    for row_type, table in TABLES.items():
        assert await columns(db, "stage", table) == {"batch_id", *row_type._fields}, table
    audited = await columns(db, "stage", "audited")
    assert audited - set(AuditedRow._fields) <= {"job_id", "operation_id"}
    assert set(AuditedRow._fields) <= audited


async def columns(db: Any, schema: str, table: str) -> set[str]:
    rows = await db.fetch(
        "select column_name from information_schema.columns where table_schema = $1 and table_name = $2",
        schema,
        table,
    )
    return {row["column_name"] for row in rows}


# Tables


async def test_the_public_tables_are_those_of_the_contract(db):
    """Every table and column that dashboards were promised is there with its type, keyed by store and id."""
    found = await db.fetch(
        "select table_name, column_name, data_type from information_schema.columns "
        "where table_schema = 'shopify'"
    )
    types = {(row["table_name"], row["column_name"]): row["data_type"] for row in found}
    assert {table for table, _ in types} == set(CONTRACT)
    for table, promised in CONTRACT.items():
        for column, kind in {**EVERY_TABLE, **promised}.items():
            assert types.get((table, column)) == kind, f"{table}.{column}"
        key = await db.fetchval(
            "select array_agg(a.attname::text order by array_position(i.indkey, a.attnum)) "
            "from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) "
            "where i.indrelid = $1::text::regclass and i.indisprimary",
            f"shopify.{table}",
        )
        assert key == ["connection_id", "id"], table


async def test_tags_are_lists_of_text(db):
    """`tags` is text[], not some other array."""
    kinds = await db.fetch(
        "select udt_name from information_schema.columns "
        "where table_schema = 'shopify' and column_name = 'tags'"
    )
    assert [row["udt_name"] for row in kinds] == ["_text"] * 3


async def test_every_public_table_and_column_is_explained(db):
    """Whoever opens schema shopify in a SQL editor reads what each table and column means."""
    silent = await db.fetch(
        "select c.relname::text || coalesce('.' || a.attname, '') as name "
        "from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'shopify' "
        "left join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0 and not a.attisdropped "
        "where c.relkind = 'r' "
        "and (obj_description(c.oid) is null or coalesce(col_description(c.oid, a.attnum), '') = '')"
    )
    assert [row["name"] for row in silent] == []


async def test_migrations_touch_no_other_schema(postgres_server, database_url):
    """In a database with tables of its own, everything that comes lies in control, stage or shopify."""
    admin = await asyncpg.connect(postgres_server.url())
    await admin.execute("create database nothing_in_it template template0")
    empty = await asyncpg.connect(postgres_server.url("nothing_in_it"))
    migrated = await asyncpg.connect(database_url)
    everything = (
        "select n.nspname::text || '.' || c.relname as name from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace "
        "union select n.nspname::text || '.' || p.proname from pg_proc p "
        "join pg_namespace n on n.oid = p.pronamespace "
        "union select n.nspname::text || '.' || t.typname from pg_type t "
        "join pg_namespace n on n.oid = t.typnamespace "
        "union select 'extension.' || extname from pg_extension "
        "union select 'schema.' || nspname from pg_namespace where nspname !~ '^pg_(toast_)?temp'"
    )
    try:
        before = {row["name"] for row in await empty.fetch(everything)}
        new = {row["name"] for row in await migrated.fetch(everything)} - before
    finally:
        await empty.close()
        await migrated.close()
        await admin.execute("drop database nothing_in_it with (force)")
        await admin.close()
    outside = {n for n in new if n.partition(".")[0] not in {"control", "stage", "shopify", "pg_toast"}}
    assert outside == {"schema.control", "schema.stage", "schema.shopify"}


def test_migrations_are_numbered_without_a_gap():
    """0001, 0002, ...: two branches that add the same number are noticed."""
    names = sorted(
        file.name for file in files("shared").joinpath("migrations").iterdir() if file.name[0] != "_"
    )
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_every_service_is_a_command():
    """Each service starts by its own name, which is how containers run it."""
    for service in PACKAGES:
        assert shutil.which(service, path=str(Path(sys.executable).parent)), service
