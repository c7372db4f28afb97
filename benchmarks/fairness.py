"""How much later do small stores go live beside one that always fails and one that is huge?

Rounds alternate: (A) small stores connect together; (B) the same while a store whose every request fails
and a large one (300,000 orders are 1.1 million rows) are loading. Printed: medians and 95th percentiles of
the times to live, B / A, the large store's rows before and after, and the processor time of each process.

    python benchmarks/fairness.py [--stores 20] [--orders 200] [--large 300000] [--rounds 2]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from processors import used
from route import API_KEY, TOKEN, Route, running_route

WITHIN = 300.0  # seconds for all small stores of a round
WRITTEN = """
    select count(*) > 0 and bool_and(o.state not in ('planned', 'running'))
    from control.bulk_operations o join control.connections c on c.id = o.connection_id
    where c.brand_id = 'large' and o.resource = 'orders'
"""
STILL_LOADS = """
    select exists (
        select from control.jobs
        where connection_id = $1 and kind like 'bulk_%' and state in ('queued', 'running', 'staged')
    )
"""
LIVE = "select brand_id from control.connections where sync_status = 'live' and brand_id like 'small-%'"
ROWS = "select count(*) from shopify.{} where connection_id = any($1::int[])"


async def make(route: Route, name: str, orders: int) -> None:
    """A shop in the sandbox."""
    wanted = {"shop": f"{name}.myshopify.com", "token": TOKEN, "orders": orders, "objects_per_second": 0}
    (await route.http.post(f"{route.sandbox}/_sandbox/stores", json=wanted)).raise_for_status()


async def connect(route: Route, name: str) -> int:
    """The connection's id."""
    answer = await route.http.post(
        f"{route.ingress}/api/connections",
        json={"brandId": name, "shop": f"{name}.myshopify.com", "accessToken": TOKEN},
        headers={"Authorization": f"Bearer {API_KEY}"},
    )
    answer.raise_for_status()
    return int(answer.json()["connectionId"])


async def burden(route: Route, orders: int) -> int:
    """A store that always fails, and a large one; returns the large one's id.

    The large one's files are written before: in production Shopify's processors do that, not ours.
    """
    for name, size in (("broken", 50), ("large", orders)):
        await make(route, name, size)
    await connect(route, "broken")
    faults = f"{route.sandbox}/_sandbox/stores/broken.myshopify.com/faults"
    (await route.http.patch(faults, json={"http": {"status": 503, "retry_after": 2}})).raise_for_status()
    large = await connect(route, "large")
    await route.until(WRITTEN, time.perf_counter(), WITHIN)
    return large


async def small_stores(route: Route, number: int, orders: int) -> list[float]:
    """Seconds from the moment when all connect to each store's going live."""
    names = [f"small-{n}" for n in range(number)]
    for name in names:
        await make(route, name, orders)
    began, live = time.perf_counter(), dict[str, float]()
    await asyncio.gather(*(connect(route, name) for name in names))
    while len(live) < number:
        for row in await route.db.fetch(LIVE):
            live.setdefault(row["brand_id"], time.perf_counter() - began)
        if time.perf_counter() - began > WITHIN:
            raise TimeoutError(f"{len(live)} of {number} stores live within {WITHIN:g} s")
        await asyncio.sleep(0.05)
    return list(live.values())


async def rows_of(route: Route, connection: int) -> int:
    """Rows of the large store in production."""
    tables = ("orders", "order_line_items", "refunds", "customers", "products", "product_variants")
    return sum([await route.db.fetchval(ROWS.format(table), [connection]) for table in tables])


async def one_round(options: argparse.Namespace, *, burdened: bool) -> list[float]:
    """On servers of its own."""
    async with running_route({"orders": 1}, with_status=True) as route:
        large = await burden(route, options.large) if burdened else 0
        before = await rows_of(route, large)
        spent = await used(route)
        times = await small_stores(route, options.stores, options.orders)
        spent = await used(route) - spent
        after = await rows_of(route, large)
        if burdened and (after == before or not await route.db.fetchval(STILL_LOADS, large)):
            raise RuntimeError(f"the large store did not load all the time: {before:,} -> {after:,} rows")
        print(spent, flush=True)
    print(f"{'B' if burdened else 'A'}: {_figures(times)}; the large store's rows: {before:,} -> {after:,}")
    return times


def _figures(times: list[float]) -> str:
    return f"median {statistics.median(times):.1f} s, p95 {_p95(times):.1f} s"


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20, method="inclusive")[-1]


async def main() -> None:
    """Alternate."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("stores", 20), ("orders", 200), ("large", 300_000), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    alone, beside = list[float](), list[float]()
    for _ in range(options.rounds):
        alone += await one_round(options, burdened=False)
        beside += await one_round(options, burdened=True)
    ratios = statistics.median(beside) / statistics.median(alone), _p95(beside) / _p95(alone)
    print(f"A: {_figures(alone)}\nB: {_figures(beside)}\nB / A: median {ratios[0]:.2f}, p95 {ratios[1]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
