"""How much sooner a store is complete with five bulk operations at a time than with one.

    .venv/bin/python benchmarks/windows.py                  # 60,000 orders, about five minutes
    .venv/bin/python benchmarks/windows.py --orders 20000

Shopify is paced at 2,000 objects a second for each operation, so that it sets the pace and not our cores.
"Complete" is live: loaded, caught up, audited. Fails if five are not at least three times sooner, or if the
newest window was not in production before the oldest had been downloaded.
"""

from __future__ import annotations

import argparse
import asyncio

from route import running_route

PACE = 2_000  # objects a second of each operation
LEAST_GAIN = 3.0
WITHIN = 900.0  # seconds a run may take

LIVE = "select sync_status = 'live' from control.connections"
LOADED = "select count(*) = 3 from control.jobs where kind like 'bulk_%' and state = 'completed'"
# When the newest window of orders was promoted, and the last batch of the oldest one staged.
NEWEST_FIRST = """
select
    (select max(b.promoted_at) from control.batches b where b.operation_id = newest.id)
    < (select max(b.staged_at) from control.batches b where b.operation_id = oldest.id)
from
    (select o.id from control.bulk_operations o join control.jobs j on j.id = o.job_id
     where j.kind = 'bulk_orders' and o.window_end is null) newest,
    (select o.id from control.bulk_operations o join control.jobs j on j.id = o.job_id
     where j.kind = 'bulk_orders' and o.window_start is null) oldest
"""


async def measure(orders: int, operations: int) -> tuple[float, float, bool]:
    """Seconds until loaded and until live, and whether the newest window came first."""
    store = {
        "orders": orders,
        "objects_per_second": PACE,
        "max_operations": operations,
        "bucket": 20_000,
        "restore_rate": 1_000,
    }
    async with running_route(store) as route:
        began = await route.connect()
        loaded = await route.until(LOADED, began, WITHIN)
        live = await route.until(LIVE, began, WITHIN)
        return loaded, live, bool(await route.db.fetchval(NEWEST_FIRST))


async def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=60_000)
    orders = parser.parse_args().orders
    print(f"{orders:,} orders, {PACE:,} objects/s an operation")
    five_loaded, five, newest_first = await measure(orders, 5)
    print(f"five operations: loaded after {five_loaded:6.1f} s, live after {five:6.1f} s")
    one_loaded, one, _ = await measure(orders, 1)
    print(f"one operation:   loaded after {one_loaded:6.1f} s, live after {one:6.1f} s")
    print(f"five are {one_loaded / five_loaded:.1f} times sooner loaded, {one / five:.1f} times sooner live")
    print(f"the newest window was in production before the oldest was downloaded: {newest_first}")
    return 0 if one / five >= LEAST_GAIN and newest_first else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
