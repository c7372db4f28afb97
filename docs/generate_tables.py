"""docs/tables.md out of the comments on the tables and columns of a migrated database.

    python docs/generate_tables.py DATABASE_URL > docs/tables.md

`tests/test_docs.py` compares the page with the migrations: run this again after a change to a comment.
"""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import asyncio
import sys

import asyncpg

INTRO = """\
# Tables

*Made by `docs/generate_tables.py` out of the comments in the database; change those, not this page.*

What dashboards read is schema `shopify`: {count} tables, each with the primary key `(connection_id, id)`.
The comments are in the database itself, too (`\\d+ shopify.orders` in psql).

- **Read with `deleted_at is null`.** What Shopify no longer has keeps its row, with the time when it went.
- **A store is a connection**: `control.connections` has its id, your `brand_id` for it and its `shop`.
- **Amounts are `numeric`, in the shop's currency**, as Shopify sent them. Times are `timestamptz`.
- **Enums are text in GraphQL's upper case**, whichever way the row came.
- Few columns are `not null`: of some objects no more is known than that they are gone, or their totals.
- `sent_at`, `revision`, `redacted_at`, `lines_at`, `summary_at`, `tags_at`, `tag_changes` are bookkeeping.

Schemas `stage` and `control` are internal; only `control.connections` is worth a join.
"""

TABLES = """
select c.relname as name, obj_description(c.oid, 'pg_class') as comment
from pg_class c
where c.relnamespace = 'shopify'::regnamespace and c.relkind = 'r'
order by c.oid
"""

COLUMNS = """
select
    a.attname as name,
    format_type(a.atttypid, a.atttypmod) as type,
    a.attnotnull as required,
    col_description(a.attrelid, a.attnum) as comment
from pg_attribute a
where a.attrelid = ('shopify.' || quote_ident($1))::regclass and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

INDEXES = """
select pg_get_indexdef(indexrelid, 0, true) as definition
from pg_index
where indrelid = ('shopify.' || quote_ident($1))::regclass and not indisprimary
order by indexrelid
"""


async def render(database_url: str) -> str:
    """The whole page."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(TABLES)
        parts = [INTRO.format(count=len(tables))]
        parts += [await _table(connection, table["name"], table["comment"]) for table in tables]
    finally:
        await connection.close()
    return "\n".join(parts)


async def _table(connection: asyncpg.Connection[asyncpg.Record], name: str, comment: str) -> str:
    lines = [f"## shopify.{name}", "", comment, "", "| column | type | is |", "|---|---|---|"]
    lines += [
        f"| `{column['name']}` | {_type(column)} | {(column['comment'] or '').replace('|', chr(92) + '|')} |"
        for column in await connection.fetch(COLUMNS, name)
    ]
    if indexes := [_keys(row["definition"]) for row in await connection.fetch(INDEXES, name)]:
        lines += ["", "Indexed by " + "; ".join(f"`{keys}`" for keys in indexes) + "."]
    return "\n".join([*lines, ""])


def _type(column: asyncpg.Record) -> str:
    short = str(column["type"]).replace("timestamp with time zone", "timestamptz")
    return f"{short}, not null" if column["required"] else short


def _keys(definition: str) -> str:
    return definition.partition(" USING btree ")[2]


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(render(sys.argv[1])))
