"""One run: stores are connected and kept busy, faults strike, then all must heal without help, and is judged.

connect -> traffic and faults, side by side -> all faults off -> wait for a verdict without a fault
        -> look once more, later: what is right must stay right
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.follow import Follower, following
from chaos.inject import inject
from chaos.judge import Verdict, judge
from chaos.report import Result
from chaos.schedule import Fault, Plan, draw
from chaos.shop import Shop
from chaos.world import World, running

HEALS_WITHIN = 180.0  # seconds of quiet; an event lost twice is sent for the third time after 90
LOOK_EVERY = 1.0  # seconds between two verdicts
LOOK_AGAIN_AFTER = 3.0  # seconds; what came late must not undo what was right
FLUSHES_WITHIN = 60.0  # seconds for the webhooks that are still tried again

Say = Callable[[str], None]


async def run(seed: int, folder: Path, say: Say) -> Result:
    """The run of a seed; its logs are left in `folder`."""
    plan, began = draw(seed), time.monotonic()
    settings = {"PAGED_UP_TO": str(plan.paged_up_to)}
    async with running(folder, settings, redis_keeps_a_file=plan.redis_keeps_a_file) as world:
        say(f"seed {seed}: up after {time.monotonic() - began:.1f} s")
        shops = [Shop(world, store, number) for number, store in enumerate(plan.stores, 1)]
        await asyncio.gather(*(shop.open() for shop in shops))
        async with contextlib.AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(following(shop)) for shop in shops]
            await _break_everything(world, shops, plan, say)
            calm_at = time.monotonic()
            verdict = await heal(world, shops, calm_at, say)
            seconds = time.monotonic() - calm_at
            say(f"seed {seed}: {'healed' if verdict.good else 'NOT HEALED'} after {seconds:.1f} s")
        return await _result(plan, shops, followers, verdict, seconds, world, time.monotonic() - began)


async def _break_everything(world: World, shops: Sequence[Shop], plan: Plan, say: Say) -> None:
    async with asyncio.TaskGroup() as tasks:
        for shop in shops:
            tasks.create_task(_live(shop, plan))
        await asyncio.sleep(0)
        began = time.monotonic()
        for fault in plan.faults:
            tasks.create_task(_strike(world, shops, fault, began, say))
    world.wake_all()
    world.calm()
    await asyncio.gather(*(shop.mend() for shop in shops))


async def _live(shop: Shop, plan: Plan) -> None:
    """A store is connected at its time and has customers all the while."""

    async def connect() -> None:
        await asyncio.sleep(shop.plan.connects_at)
        await shop.connect()

    await asyncio.gather(connect(), shop.trade(plan.traffic_seconds))


async def _strike(world: World, shops: Sequence[Shop], fault: Fault, began: float, say: Say) -> None:
    await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
    say(str(fault))
    await inject(world, shops, fault)


async def heal(
    world: World, shops: Sequence[Shop], since: float, say: Say, within: float = HEALS_WITHIN
) -> Verdict:
    """The first verdict without a fault that is still without one a little later, or the last one."""
    await asyncio.gather(*(shop.flush(FLUSHES_WITHIN) for shop in shops))
    waits_for = ""
    while True:
        verdict = await judge(world, shops)
        if verdict.wrong and verdict.wrong[0] != waits_for:
            waits_for = verdict.wrong[0]
            say(f"after {time.monotonic() - since:.0f} s: {waits_for[:150]}")
        if verdict.good:
            await asyncio.sleep(LOOK_AGAIN_AFTER)
            verdict = await judge(world, shops)
        if verdict.good:
            return verdict
        if time.monotonic() - since > within:
            return await judge(world, shops, thoroughly=True)
        await asyncio.sleep(LOOK_EVERY)


async def _result(
    plan: Plan,
    shops: Sequence[Shop],
    followers: Sequence[Follower],
    verdict: Verdict,
    seconds: float,
    world: World,
    took: float,
) -> Result:
    faults = [*verdict.wrong, *(fall for follower in followers for fall in follower.falls)]
    faults += [f"{f.brand}: its client saw nothing" for f in followers if not f.frames]
    counters = [await shop.counters() for shop in shops]
    return Result(
        seed=plan.seed,
        stores=[f"{store.orders} {store.currency}" for store in plan.stores],
        skews=[store.clock_skew for store in plan.stores],
        injected=[fault.kind for fault in plan.faults],
        schedule=[str(fault) for fault in plan.faults],
        rows=verdict.rows,
        lost=verdict.count("lost"),
        duplicated=verdict.duplicates,
        stale=verdict.count("stale"),
        resurrected=verdict.count("resurrected"),
        wrong=faults,
        webhooks=sum(count.get("webhooks_emitted", 0) for count in counters),
        webhooks_failed=sum(count.get("webhooks_failed", 0) for count in counters),
        restarts=world.restarts,
        frames=sum(follower.frames for follower in followers),
        healed_after=seconds,
        took=took,
    )
