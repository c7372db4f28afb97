"""`backstock demo`: a whole store, from connecting to the proof that every table equals Shopify's.

sandbox + services -> connect -> first orders visible -> live -> traffic off, webhooks through -> compare
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import httpx

from backstock.api import ATTENTION, LIVE, Api, Progress
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.errors import CommandError
from backstock.ports import HOST, free_port
from backstock.proof import Row, as_table, compare
from backstock.supervisor import Service
from backstock.up import Plan, command, running, settle_addresses, until_cancelled
from backstock.watch import line, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rich.console import Console

    from backstock.home import Home

BRAND = "demo"
SHOP = "demo-store.myshopify.com"
TOKEN = "shpat_sandbox_demo"  # noqa: S105 - opens a store that exists in this process tree only
SEED = 7
LIVE_ORDERS_PER_MINUTE = 60
PLUS_BUCKET, PLUS_RESTORE_RATE = 20_000, 1_000  # points, points/s: a store on the Plus plan
LOOK_EVERY = 0.1  # seconds between two looks for the first orders
SETTLES_WITHIN = 30.0  # seconds for the last webhooks to be promoted after the traffic has stopped
NOT_OURS = ("DATABASE_", "REDIS_", "SHOPIFY_", "INGRESS_", "STATUS_", "BACKSTOCK_", "HEALTH_", "RECENT_")


@dataclass(frozen=True)
class Sandbox:
    url: str
    orders: int

    @property
    def control(self) -> str:
        return f"{self.url}/_sandbox/stores/{SHOP}"

    def service(self, env: dict[str, str]) -> Service:
        flags = {
            "bind": self.url.removeprefix("http://"),
            "shop": SHOP,
            "token": TOKEN,
            "seed": SEED,
            "orders": self.orders,
            "live-orders-per-minute": LIVE_ORDERS_PER_MINUTE,
            "bucket": PLUS_BUCKET,
            "restore-rate": PLUS_RESTORE_RATE,
        }
        argv = [
            command("sandbox"),
            *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
        ]
        return Service("sandbox", argv, env, ready_url=f"{self.url}/healthz", stops_last=True)


def plan_demo(
    home: Home, orders: int, show: Callable[[str, str], None], *, bulk_runners: int = 1
) -> tuple[Plan, Sandbox]:
    """A demo has its own folder, fresh each time, and listens to no setting: it can reach nobody's data."""
    for name in [name for name in os.environ if name.startswith(NOT_OURS)]:
        del os.environ[name]
    home.create()
    demo = home.demo
    demo.create()
    with demo.locked():
        stores = (EmbeddedPostgres(demo.folder / "postgres"), EmbeddedRedis(demo.folder / "redis"))
        for leftover in (*(store.home for store in stores), demo.logs):  # as root, stores may be elsewhere
            shutil.rmtree(leftover, ignore_errors=True)
    demo.create()
    keys, _ = demo.keys()
    sandbox = Sandbox(f"http://{HOST}:{free_port()}", orders)
    env = keys | {
        "SHOPIFY_ORIGIN": f"{sandbox.url}/{{shop}}",
        "SHOPIFY_CLIENT_ID": "sandbox-client-id",
        "SHOPIFY_CLIENT_SECRET": "sandbox-client-secret",
    }
    settle_addresses(env, avoid_busy=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    plan = Plan(demo, env, show, bulk_runners=bulk_runners, extra=[sandbox.service(bare)])
    return plan, sandbox


async def demonstrate(plan: Plan, sandbox: Sandbox, console: Console, *, limit: float) -> bool:
    """The whole demo on running services; True if every table is equal."""
    api_key = plan.env["BACKSTOCK_API_KEY"]
    async with Api.open(plan.env["INGRESS_URL"], plan.env["STATUS_URL"], api_key) as api:
        await connect(api, console)
        last = Latest()
        try:
            async with asyncio.timeout(limit):
                await _until_live(api, plan, console, last)
        except TimeoutError:
            raise CommandError(
                f"the demo took longer than {limit:.0f} s: {last}; logs: {plan.home.logs}"
            ) from None
    rows = await _settled_comparison(plan, sandbox)
    console.print(as_table(rows))
    return all(row.equal for row in rows)


async def connect(api: Api, console: Console) -> None:
    await api.connect(BRAND, SHOP, TOKEN)
    console.print(
        f"Connected {SHOP} as brand '{BRAND}'. Dashboard: {await api.dashboard(BRAND)}", soft_wrap=True
    )


class Latest:
    """The newest progress document, for the message when the time is up."""

    document: Progress | None = None

    def __str__(self) -> str:
        return f"last seen: {line(self.document)}" if self.document else "no progress document came"

    async def remembering(self, documents: AsyncIterator[Progress]) -> AsyncIterator[Progress]:
        """Passes them on; a sync that needs somebody's attention would only wait for the limit."""
        async for self.document in documents:
            yield self.document
            if self.document.sync_status == ATTENTION:
                raise CommandError(f"the sync is stuck: {line(self.document)}")


async def _until_live(api: Api, plan: Plan, console: Console, latest: Latest) -> None:
    started = time.monotonic()
    first_orders = asyncio.create_task(_tell_first_orders(plan.env["DATABASE_URL"], console, started))
    try:
        document = await watch(console, latest.remembering(api.follow(BRAND)))
        await first_orders
    finally:
        first_orders.cancel()
    if document is None or document.sync_status != LIVE:
        raise CommandError(f"the stream of progress ended before the brand was live: {latest}")
    console.print(f"Live after {time.monotonic() - started:.1f} s.")


async def _tell_first_orders(database_url: str, console: Console, started: float) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        while not await connection.fetchval("select exists (select from shopify.orders)"):  # noqa: ASYNC110
            await asyncio.sleep(
                LOOK_EVERY
            )  # what a dashboard would see: a look at the table, no signal of ours
        count = await connection.fetchval("select count(*) from shopify.orders")
        seconds = time.monotonic() - started
        console.print(f"First orders visible in shopify.orders after {seconds:.1f} s ({count:,} so far).")
    finally:
        await connection.close()


async def _settled_comparison(plan: Plan, sandbox: Sandbox) -> list[Row]:
    """Orders kept coming in until now. They stop, their webhooks arrive, then the two sides are read."""
    async with httpx.AsyncClient(timeout=SETTLES_WITHIN) as client:
        (await client.patch(sandbox.control, json={"live_orders_per_minute": 0})).raise_for_status()
        (await client.post(f"{sandbox.control}/webhooks/flush")).raise_for_status()
    deadline = time.monotonic() + SETTLES_WITHIN
    while True:
        rows = await compare(plan.env["DATABASE_URL"], BRAND, f"{sandbox.control}/truth")
        if all(row.equal for row in rows) or time.monotonic() > deadline:
            return rows
        await asyncio.sleep(LOOK_EVERY)


async def run(plan: Plan, sandbox: Sandbox, console: Console, *, keep: bool, limit: float) -> bool:
    """The command: True if every table is equal."""
    console.print(
        f"Starting Postgres, Redis, a local Shopify with {sandbox.orders:,} orders, and the services ..."
    )
    async with running(plan):
        equal = await demonstrate(plan, sandbox, console, limit=limit)
        if keep:
            console.print("Everything stays up; Ctrl-C ends it.")
            await until_cancelled()
    return equal
