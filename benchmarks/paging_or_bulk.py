"""Why a resource with few objects is read by pages: the same stores, both ways, to live.

    .venv/bin/python benchmarks/paging_or_bulk.py

A page costs points of the shop's budget (here a Standard plan's: 2,000, and 100 more a second); a bulk
operation costs none, but seconds before its first byte. The sandbox's operations start at once, so FIXED
seconds are added here for each of the two rounds (load, audit): small operations that were captured at
Shopify took from one second to some ten.
"""

from __future__ import annotations

import asyncio

from route import running_route

SIZES = (50, 200, 250, 500, 1_000, 2_000)  # orders
FIXED = (1.0, 10.0)  # seconds a bulk operation takes at Shopify before its first byte
WITHIN = 300.0
LIVE = "select sync_status = 'live' from control.connections"


async def measure(orders: int, paged_up_to: int) -> tuple[float, int]:
    """Seconds until live, and the points that were spent."""
    async with running_route(
        {"orders": orders, "objects_per_second": 0}, PAGED_UP_TO=str(paged_up_to)
    ) as route:
        began = await route.connect()
        live = await route.until(LIVE, began, WITHIN)
        requests = (await route.counters())["requests"]
        return live, sum(request["cost"] or 0 for request in requests)


async def main() -> None:
    """Print a line a size."""
    low, high = (2 * seconds for seconds in FIXED)
    print("orders | by pages: live, points | by bulk operations: live (with Shopify's fixed cost), points")
    for orders in SIZES:
        pages, page_points = await measure(orders, 10_000)
        bulk, bulk_points = await measure(orders, 0)
        print(
            f"{orders:6,} | {pages:5.1f} s {page_points:6,} | "
            f"{bulk:5.1f} s ({bulk + low:.0f} to {bulk + high:.0f} s) {bulk_points:6,}"
        )


if __name__ == "__main__":
    asyncio.run(main())
