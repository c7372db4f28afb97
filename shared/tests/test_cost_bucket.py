"""Cost points shared by processes: used up to the restore rate, never overdrawn, not needed to go on."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from redis.asyncio import Redis

from backstock.embedded import EmbeddedRedis
from shared import cost_bucket
from shared.cost_bucket import CostBucket, Estimate, Figures, Said, Script
from shared.optional_redis import OptionalRedis
from shared.query_costs import UNKNOWN, QueryCosts, kind_of
from shared.settings import Settings
from shared.shopify import Shopify, ShopifyUnavailableError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "throttling.py"
PAGE = "query Page { orders(first: 25) { nodes { id lineItems(first: 25) { nodes { id title } } } } }"
COUNT = "query Count { ordersCount { count } }"
NUMBERS = itertools.count(1)
TOKEN = "shpat_test"
KEY = "points"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def script(redis: Redis) -> Script:
    return Script(OptionalRedis(redis))


async def make_shop(sandbox: str, **wanted: Any) -> str:
    shop = f"points-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
    async with httpx.AsyncClient() as http:
        body = {"shop": shop, "token": TOKEN, "orders": 30, **wanted}
        answer = await http.post(f"{sandbox}/_sandbox/stores", json=body, timeout=60)
        assert answer.status_code == 201, answer.text
    return shop


async def throttled(sandbox: str, shop: str) -> int:
    async with httpx.AsyncClient() as http:
        log = (await http.get(f"{sandbox}/_sandbox/stores/{shop}/log")).json()
    return int(log["counters"].get("throttled", 0))


def make_settings(sandbox: str) -> Settings:
    return Settings(
        database_url="postgresql://127.0.0.1/unused",
        redis_url="redis://127.0.0.1/0",
        shopify_client_id="test",
        shopify_client_secret=SecretStr("test"),
        backstock_api_key=SecretStr("test-api-key-0123456789"),
        backstock_secret_keys=SecretStr(Fernet.generate_key().decode()),
        shopify_origin=f"{sandbox}/{{shop}}",
    )


def test_three_processes_use_the_restore_rate_and_are_never_throttled() -> None:
    """Three processes that ask as fast as they may use 85 % of the points or more; none is refused."""
    run = subprocess.run(
        [sys.executable, BENCHMARK, "--seconds", "6", "--restore-rate", "400", "--json"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.stdout, run.stderr
    figures = json.loads(run.stdout)
    assert figures["throttled_when_steady"] == 0, figures
    assert figures["percent_used"] >= 85, figures
    fewest, most = min(figures["queries_by_process"]), max(figures["queries_by_process"])
    assert fewest > most / 2, figures


async def test_without_redis_one_process_is_not_throttled_either(sandbox_server: str) -> None:
    """A process alone goes by what it knows: eight askers share the bucket without a THROTTLED."""
    shop = await make_shop(sandbox_server, bucket=1000, restore_rate=500)
    shopify = Shopify(make_settings(sandbox_server))
    admin = shopify.shop(shop, TOKEN)
    await admin.query(dict[str, Any], PAGE)

    async def ask() -> None:
        for _ in range(6):
            await admin.query(dict[str, Any], PAGE)

    await asyncio.gather(*(ask() for _ in range(8)))
    await shopify.close()
    assert await throttled(sandbox_server, shop) == 0


async def test_no_query_fails_when_redis_is_killed(
    sandbox_server: str, server_folder: Path, until: Any
) -> None:
    """Redis dies while two clients ask: every query is answered all the same."""
    server = EmbeddedRedis(server_folder / "redis", aof=False).start()
    clients = [Redis.from_url(server.url) for _ in range(2)]
    shop = await make_shop(sandbox_server, bucket=1000, restore_rate=300)
    shopifys = [Shopify(make_settings(sandbox_server), client) for client in clients]
    answered = 0

    async def ask(shopify: Shopify) -> None:
        nonlocal answered
        for _ in range(15):
            await shopify.shop(shop, TOKEN).query(dict[str, Any], PAGE)
            answered += 1

    async def kill() -> None:
        await until(lambda: answered >= 10)
        assert server.process
        server.process.send_signal(signal.SIGKILL)

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(kill(), *(ask(shopify) for shopify in shopifys))
        assert answered == 30
    finally:
        for shopify, client in zip(shopifys, clients, strict=True):
            await shopify.close()
            await client.aclose()
        server.stop()


async def test_a_bucket_that_nobody_uses_is_forgotten(redis: Redis, sandbox_server: str) -> None:
    """The entry of a shop, and what queries cost, have an end in Redis."""
    shop = await make_shop(sandbox_server)
    shopify = Shopify(make_settings(sandbox_server), redis)
    await shopify.shop(shop, TOKEN).query(dict[str, Any], COUNT)
    await shopify.close()
    keys = await redis.keys("backstock:*")
    assert len(keys) == 2
    for key in keys:
        assert 0 < await redis.ttl(key) <= 7 * 24 * 3600
    assert 0 < await redis.ttl(f"backstock:points:{{test:{shop}}}") <= 600


async def test_what_a_query_costs_is_known_to_the_next_process(redis: Redis) -> None:
    """One process learns the cost of a query; another has it from Redis; without Redis it guesses."""
    kind = kind_of(PAGE, {"first": 50})
    await QueryCosts(OptionalRedis(redis)).learn(kind, 233, 40)
    assert await QueryCosts(OptionalRedis(redis)).estimate(kind) == Estimate(233, 40)
    assert await QueryCosts(OptionalRedis(None)).estimate(kind) == UNKNOWN


def test_queries_are_alike_when_they_read_as_much() -> None:
    """Cursors and searches make no difference to a query's kind; a page's size does."""
    one = kind_of(PAGE, {"first": 50, "after": None, "search": "a"})
    assert one == kind_of(PAGE, {"first": 50, "after": "cursor", "search": "b"})
    assert one != kind_of(PAGE, {"first": 100, "after": None, "search": "a"})
    assert kind_of(PAGE, {"ids": ["a"] * 33}) == kind_of(PAGE, {"ids": ["a"] * 64})


async def test_whoever_waits_first_goes_first(script: Script, redis: Redis) -> None:
    """A cheap query does not take points that a dear one ahead of it waits for."""
    await known(script, left=100)
    assert await script.run(KEY, "take", "dear", 500, 500)
    assert await script.run(KEY, "take", "cheap", 10, 10), "it would overtake"
    await redis.set(KEY, json.dumps(json.loads(await redis.get(KEY)) | {"level": 600}))
    assert await script.run(KEY, "take", "cheap", 10, 10) == 0, "enough for both"
    assert await script.run(KEY, "take", "dear", 500, 500) == 0


async def test_the_line_goes_on_without_a_waiter_who_died(script: Script, redis: Redis) -> None:
    """A waiter that does not come back in time holds nobody up."""
    await known(script, left=100)
    assert await script.run(KEY, "take", "dead", 500, 500)
    assert await script.run(KEY, "take", "alive", 50, 50)
    bucket = json.loads(await redis.get(KEY))
    bucket["line"][0]["back"] = bucket["at"] - 1
    await redis.set(KEY, json.dumps(bucket))
    assert await script.run(KEY, "take", "alive", 50, 50) == 0


async def test_points_of_a_process_that_died_come_back_with_time(script: Script, redis: Redis) -> None:
    """What a dead process holds counts as spent once no request can last that long."""
    await known(script, left=100)
    assert await script.run(KEY, "take", "dead", 90, 90) == 0
    bucket = json.loads(await redis.get(KEY))
    bucket["held"]["dead"]["ends"] = bucket["at"] - 1
    await redis.set(KEY, json.dumps(bucket))
    assert await script.run(KEY, "take", "alive", 50, 50)
    bucket = json.loads(await redis.get(KEY))
    assert bucket["held"] == {}
    assert bucket["level"] == pytest.approx(10, abs=5)


async def test_nobody_else_asks_until_a_shop_is_known(script: Script) -> None:
    """The first query of a shop goes alone, and its answer tells the size of the bucket."""
    assert await script.run(KEY, "take", "first", 400, 20) == 0
    assert await script.run(KEY, "take", "second", 400, 20)
    await script.run(KEY, "settle", "first", 10, 1990, 2000, 100)
    assert await script.run(KEY, "take", "second", 400, 20) == 0
    assert await script.run(KEY, "take", "third", 1500, 20) == 0


@pytest.mark.parametrize("broken", ["", "5", "null", "{}", "no json"])
async def test_an_entry_that_cannot_be_read_is_made_anew(broken: str, script: Script, redis: Redis) -> None:
    """Whatever stands in Redis, the next query goes."""
    await redis.set(KEY, broken)
    assert await script.run(KEY, "take", "id", 100, 100) == 0


@pytest.mark.parametrize("seed", range(12))
async def test_the_bucket_is_never_overdrawn(seed: int, script: Script) -> None:
    """However answers overtake each other, a query is let go only if Shopify has what it asks for."""
    chance = random.Random(seed)
    shopify_has = 1000.0  # restores next to nothing: only the reckoning counts
    await known(script, left=1000)
    sent: dict[str, float] = {}
    done: dict[str, tuple[int, int]] = {}
    ticket = 0
    for _ in range(300):
        what = chance.random()
        if what < 0.4:
            points = chance.randint(1, 120)
            if await script.run(KEY, "take", f"q{ticket}", points, points / 3) == 0:
                sent[f"q{ticket}"] = points
                ticket += 1
        elif what < 0.7 and sent:
            query = chance.choice(list(sent))
            points = sent.pop(query)
            assert shopify_has >= points, "THROTTLED"
            spent = chance.randint(0, int(points))
            shopify_has -= spent
            done[query] = (spent, int(shopify_has))
        elif done:
            query = chance.choice(list(done))
            await script.run(KEY, "settle", query, *done.pop(query), 1000, 1)
    assert shopify_has < 150, "the points are there to be used"


async def test_a_wait_for_points_has_an_end(
    redis: Redis, sandbox_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others use all points for too long, the query is given up as one that may work later."""
    shop = await make_shop(sandbox_server)
    monkeypatch.setattr(cost_bucket, "LONGEST_WAIT", 0.3)
    key = f"backstock:points:{{test:{shop}}}"
    script = Script(OptionalRedis(redis))
    await script.run(key, "take", "other", 1, 1)
    await script.run(key, "settle", "other", 1, 0, 1000, 1)
    shopify = Shopify(make_settings(sandbox_server), redis)
    with pytest.raises(ShopifyUnavailableError, match="points"):
        await shopify.shop(shop, TOKEN).query(dict[str, Any], COUNT)
    await shopify.close()


async def test_points_that_were_not_spent_come_back(script: Script) -> None:
    """A query that costs less than it asked for leaves the difference to the next one, at once."""
    await known(script, left=1000)
    bucket = CostBucket(KEY, script)

    async def dear() -> Estimate:
        return Estimate(900, 900)

    for left in (990, 980, 970):
        async with asyncio.timeout(1):
            hold = await bucket.take(dear)
            await bucket.settle(hold, Said(10, Figures(left, 1000, 1)))


async def known(script: Script, left: float) -> None:
    """A bucket of 1000 that restores one point a second, with so many left."""
    await script.run(KEY, "take", "before", 1, 1)
    await script.run(KEY, "settle", "before", 1, left, 1000, 1)
