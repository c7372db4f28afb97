"""A row that cannot be read or stored does not sink its batch: it is kept, shown, and healed by a replay."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from stores import TOKEN, Store, make_store

from bulk_runner.documents import document
from bulk_runner.resources import customers
from shared.db import connect
from shared.dead_letters import drop, replay
from shared.secrets import TokenVault

WITHIN = 60  # seconds


async def customer_lines(store: Store) -> list[dict]:
    """The store's customers, in the form of a bulk file's lines."""
    answer = await store.http.post(
        f"{store.services.sandbox_url}/{store.shop}/admin/api/2026-10/graphql.json",
        json={"query": document(customers.PATH, "CustomersPage"), "variables": {"first": 100, "search": ""}},
        headers={"X-Shopify-Access-Token": TOKEN},
    )
    return answer.json()["data"]["customers"]["nodes"]


async def test_bad_nodes_of_pages_do_not_sink_their_page(services, database_url, until):
    """An order, a customer, a product, lines of a refund: all else is here, and a replay heals."""
    services.env["PAGED_UP_TO"] = "250"
    await services.start_all()
    async with make_store(services, orders=40) as store:
        refund, *_ = await rows_of(store, "refunds")
        order = next(row["id"] for row in await rows_of(store, "orders") if row["id"] != refund["order_id"])
        customer, product = [(await rows_of(store, t))[0]["id"] for t in ("customers", "products")]
        wrong = {
            f"gid://shopify/Order/{order}": {"createdAt": "never"},
            f"gid://shopify/Customer/{customer}": {"tags": "no list"},
            f"gid://shopify/Product/{product}": {"variants": None},
            f"gid://shopify/Refund/{refund['id']}": {"refundLineItems": 5},
        }
        await fault(store, nodes_wrong={"nodes": wrong})
        await store.connect()
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)
        await until(lambda: was_audited(store), WITHIN)

        assert await store.differences("orders") == [f"orders {order} is missing"]
        assert await store.differences("customers") == [f"customers {customer} is missing"]
        assert await store.differences("products") == [f"products {product} is missing"]
        assert await store.differences("refund_line_items")
        assert await store.db.fetchval("select count(*) from control.jobs where state = 'failed'") == 0
        assert not await store.db.fetchval("select bool_or(equal) from control.audits")
        letters = await open_letters(store)
        assert {(letter["event_type"], root_of(letter)) for letter in letters} == {
            ("page node orders", order),
            ("page node orders", refund["order_id"]),
            ("page node customers", customer),
            ("page node products", product),
        }
        vault = TokenVault((services.env["BACKSTOCK_SECRET_KEYS"],))
        texts = {root_of(letter): json.loads(vault.unseal(letter["sealed"])) for letter in letters}
        assert texts[order]["createdAt"] == "never"
        assert texts[refund["order_id"]]["refundLineItems"] == 5
        assert all(letter["payload"] == "" and letter["mentions"] for letter in letters)

        await replay_all(database_url, letters)  # Shopify still answers with the same
        await until(lambda: died_again(store, letters), WITHIN)
        assert await shows(store, "attention", "set_aside")

        await fault(store, nodes_wrong=None)
        await replay_all(database_url, letters)
        await until(store.is_live, WITHIN)
        assert await store.differences() == []
        assert await open_letters(store) == []


async def test_what_an_audit_cannot_read_is_not_equal(services, database_url, until):
    """Neither a product whose age is none nor a customer without an id; replay and drop close the letters."""
    services.env["PAGED_UP_TO"] = "250"
    await services.start_all()
    async with make_store(services, orders=20) as store:
        await store.connect()
        await until(store.is_live, WITHIN)
        product, customer = [
            await store.db.fetchval(f"select min(id) from shopify.{t}") for t in ("products", "customers")
        ]
        wrong = {
            f"gid://shopify/Product/{product}": {"updatedAt": 17},
            f"gid://shopify/Customer/{customer}": {"id": None},
        }
        await fault(store, nodes_wrong={"nodes": wrong})
        await audit(store)
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)
        await until(lambda: was_audited(store), WITHIN)

        assert await store.differences() == []
        tables = await store.db.fetchval("select tables from control.audits order by id desc limit 1")
        checks = {check["table"]: check for check in json.loads(tables)}
        assert not checks["products"]["equal"]
        assert checks["products"]["different"] == 1
        assert not checks["customers"]["equal"]
        assert checks["orders"]["equal"]

        await fault(store, nodes_wrong=None)
        await replay_all(
            database_url, [letter for letter in await open_letters(store) if root_of(letter) == product]
        )
        await until(lambda: audited_equal(store), WITHIN)
        letters = await open_letters(store)  # nobody can say whose texts these are: they are to be dropped
        assert {root_of(letter) for letter in letters} == {None}
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)
        await replay_all(database_url, letters, drop)
        await until(store.is_live, WITHIN)


async def test_what_an_audit_cannot_read_of_a_file_is_not_equal(services, database_url, until):
    """The same of a bulk file's line: the first audit differs, the next one, of a better file, does not."""
    await services.start_all()
    async with make_store(services, orders=12) as store:
        await store.connect()
        await until(store.is_live, WITHIN)
        nodes = await customer_lines(store)
        nodes[0]["updatedAt"] = "never"
        await store.post("load", bulk={"customers": "".join(json.dumps(node) + "\n" for node in nodes)})
        await audit(store)
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)
        await until(lambda: audited_equal(store), WITHIN)

        _, tables, *_ = await store.db.fetch("select tables from control.audits order by id")
        checks = {check["table"]: check for check in json.loads(tables["tables"])}
        assert not checks["customers"]["equal"]
        assert checks["customers"]["different"] == 1
        assert await store.differences() == []
        await replay_all(database_url, await open_letters(store), drop)
        await until(store.is_live, WITHIN)


async def test_an_order_that_postgres_refuses_at_the_last_step_is_healed(services, database_url, until):
    """By a constraint of the database's owner: all else lands; a replay heals once the constraint is gone."""
    await services.start_all()
    async with make_store(services, orders=30) as store:
        refused = (await rows_of(store, "orders"))[0]["id"]
        await store.db.execute(
            f"alter table shopify.orders add constraint not_this_one check (id <> {refused})"
        )
        await store.connect()
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)
        await until(lambda: was_audited(store), WITHIN)

        assert await store.differences("orders") == [f"orders {refused} is missing"]
        (letter,) = await open_letters(store)
        assert letter["event_type"] == "staged row orders"
        assert root_of(letter) == refused
        assert "not_this_one" in letter["error"]
        assert not await store.db.fetchval("select equal from control.audits order by id desc limit 1")

        await replay_all(database_url, [letter])
        await until(lambda: refused_again(store, letter), WITHIN)

        await store.db.execute("alter table shopify.orders drop constraint not_this_one")
        await replay_all(database_url, await open_letters(store))
        await until(store.is_live, WITHIN)
        assert await store.differences() == []
        assert await open_letters(store) == []


async def open_letters(store: Store) -> list[asyncpg.Record]:
    return await store.db.fetch(
        "select * from control.dead_letters where replayed_at is null and dropped_at is null order by id"
    )


async def replay_all(database_url: str, letters: list[asyncpg.Record], close: Any = replay) -> None:
    """Replay the letters, or `drop` them."""
    pool = await connect(database_url, service="test", size=1)
    async with pool.acquire() as tx, tx.transaction():
        for letter in letters:
            await close(tx, letter["id"])
    await pool.close()


async def test_bad_lines_of_a_file_do_not_sink_their_batch(services, database_url, until):
    """One is no row, one Postgres refuses: all else is here, the brand says so, a replay heals."""
    await services.start_all()
    async with make_store(services, orders=12) as store:
        nodes = await customer_lines(store)
        good = [json.dumps(node) for node in nodes]
        nodes[0]["createdAt"] = "2026-02-30T10:00:00Z"  # no day
        nodes[1]["tags"] = "no list"
        await store.post("load", bulk={"customers": "".join(json.dumps(node) + "\n" for node in nodes)})
        await store.connect()
        await until(lambda: shows(store, "attention", "set_aside"), WITHIN)

        # An audit may have found them missing by now, and read them by their ids.
        assert set(await store.differences()) <= {
            f"customers {node['id'].rpartition('/')[2]} is missing" for node in nodes[:2]
        }
        letters = await open_letters(store)
        assert [letter["event_type"] for letter in letters] == ["bulk line customers"] * 2
        assert "customers.created_at" in letters[1]["error"] + letters[0]["error"]
        assert all(letter["payload"] == "" and letter["mentions"] for letter in letters)

        await replay_all(database_url, letters)  # by the code that could not read them before
        await until(lambda: died_again(store, letters), WITHIN)
        assert await shows(store, "attention", "set_aside")

        vault = TokenVault((services.env["BACKSTOCK_SECRET_KEYS"],))
        for letter in letters:  # as if by code that can
            line = next(line for line in good if gid_of(letter, vault) == json.loads(line)["id"])
            await store.db.execute(
                "update control.dead_letters set sealed = $2 where id = $1",
                letter["id"],
                vault.seal(line.encode()),
            )
        await replay_all(database_url, letters)
        await until(store.is_live, WITHIN)
        assert await store.differences() == []
        assert await open_letters(store) == []


def gid_of(letter: asyncpg.Record, vault: TokenVault) -> str:
    return json.loads(vault.unseal(letter["sealed"]))["id"]


async def shows(store: Store, status: str, code: str) -> bool:
    row = await store.db.fetchrow("select sync_status, problem::text from control.connections")
    return bool(row["sync_status"] == status and f'"code": "{code}"' in row["problem"])


async def died_again(store: Store, letters: list[asyncpg.Record]) -> bool:
    now = await open_letters(store)
    return [letter["deliveries"] for letter in now] == [letter["deliveries"] + 1 for letter in letters]


async def was_audited(store: Store) -> bool:
    """Nothing of the sync is under way any more, and it was compared."""
    audited: bool = await store.db.fetchval(
        "select exists (select from control.audits) and not exists "
        "(select from control.jobs where state in ('queued', 'running', 'staged'))"
    )
    return audited


async def refused_again(store: Store, letter: asyncpg.Record) -> bool:
    now = await open_letters(store)
    return [(n["id"], n["died_at"] > letter["died_at"]) for n in now] == [(letter["id"], True)]


async def audited_equal(store: Store) -> bool:
    equal: bool = await store.db.fetchval("select equal from control.audits order by id desc limit 1")
    return equal and await was_audited(store)


async def rows_of(store: Store, table: str) -> list[dict]:
    """The rows that the store says there should be."""
    answer = await store.http.get(f"{store.control}/truth/{table}")
    return [json.loads(line) for line in answer.text.splitlines()]


def root_of(letter: asyncpg.Record) -> int | None:
    return json.loads(letter["context"])["root"]


async def fault(store: Store, **faults: object) -> None:
    answer = await store.http.patch(f"{store.control}/faults", json=faults)
    assert answer.status_code == 200, answer.text


async def audit(store: Store) -> None:
    answer = await store.http.post(
        f"{store.services.ingress_url}/api/sync/{store.brand}",
        json={"jobs": ["audit"]},
        headers=store.services.headers,
    )
    assert answer.status_code == 202, answer.text
