"""Nobody's data and no secret where they do not belong: logs, events, metrics, Backstock's own tables."""

from __future__ import annotations

import httpx
import redis.asyncio
from stores import TOKEN, make_store

LIVE_WITHIN = 60  # seconds
CANARY = "canary.person@leak.example"


async def test_personal_data_and_secrets_stay_where_they_belong(services, until):
    """A whole sync, webhooks good and bad: e-mails, phones and keys are in no other place."""
    await services.start_all("ingress", "bulk-runner", "promoter", "status")
    async with make_store(services, orders=80) as store, httpx.AsyncClient(timeout=10) as http:
        await store.connect()
        await until(store.is_live, LIVE_WITHIN)
        await store.post("traffic", per_second=20, seconds=1, seed=3)
        for body in (
            f'{{"id": "no number", "email": "{CANARY}", "phone": "+4915112345678"}}',
            (
                f'{{"id": 1, "admin_graphql_api_id": "gid://shopify/Order/1", "email": "{CANARY}", '
                '"total_price": "1e999999", "updated_at": "2026-01-01T00:00:00Z"}'
            ),
            f'{{"email": "{CANARY}"',
        ):
            assert await store.deliver("orders/updated", body) == 200
        await store.post("webhooks/flush")
        await until(store.equals, LIVE_WITHIN)
        kept = await store.db.fetchval("select count(*) from control.dead_letters where sealed is not null")
        assert kept == 3  # what could not be understood is kept, encrypted
        people = await store.db.fetch("select email, phone from shopify.customers")
        secret = {CANARY, "+4915112345678", TOKEN, services.api_key, services.env["SHOPIFY_CLIENT_SECRET"]}
        secret |= {value for row in people for value in row if value}
        assert len(secret) > 40

        places = {process.name: process.log for process in services.processes}
        places |= {f"{process.name}/metrics": await _get(http, process) for process in services.processes}
        places |= await _streams(services)
        places |= await _tables(store.db)
        assert any("Promoted" in place for place in places)
        leaks = {(place, value) for place, text in places.items() for value in secret if value in text}
        assert not leaks


async def _get(http: httpx.AsyncClient, process) -> str:
    answer = await http.get(f"{process.url}/metrics")
    assert answer.status_code == 200
    return answer.text


async def _streams(services) -> dict[str, str]:
    async with redis.asyncio.Redis.from_url(services.env["REDIS_URL"]) as client:
        names = [name async for name in client.scan_iter("backstock:*", _type="stream")]
        return {name.decode(): str(await client.xrange(name)) for name in names}


async def _tables(db) -> dict[str, str]:
    tables = await db.fetch(
        "select format('%I.%I', schemaname, tablename) as name from pg_tables "
        "where schemaname in ('control', 'stage')"
    )
    rows = {row["name"]: await db.fetch(f"select t::text as text from {row['name']} t") for row in tables}
    return {name: "\n".join(row["text"] for row in found) for name, found in rows.items()}
