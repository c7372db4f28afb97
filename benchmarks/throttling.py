"""How much of a shop's restore rate several processes use together, and whether they are ever throttled.

    .venv/bin/python benchmarks/throttling.py                      # half a minute on a 1000/50 bucket
    .venv/bin/python benchmarks/throttling.py --seconds 5 --restore-rate 400 --json

Starts a sandbox and a Redis of its own, and processes that query as fast as the client lets them. The
bucket is full at first; "steady" is what comes after its emptiest moment in the first half of the time.
Fails if Shopify had to say THROTTLED then, or if less than 85 % of the restore rate was used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import httpx
import msgspec
import structlog
from cryptography.fernet import Fernet
from redis.asyncio import Redis

from backstock.children import die_with_parent
from backstock.embedded import EmbeddedRedis
from backstock.ports import free_port
from shared.settings import Settings
from shared.shopify import Shopify

SHOP, TOKEN = "throttling.myshopify.com", "shpat_benchmark"
LEAST_USED = 85.0  # percent of the restore rate
STARTS_WITHIN = 30.0  # seconds
ENDS_WITHIN = 60.0  # seconds after the last query was to be sent

# One that costs what it asks for, pages that cost less, as most do, and one that finds nothing.
PAGE = "query Page { orders(first: 25) { nodes { id name lineItems(first: 25) { nodes { id title } } } } }"
EMPTY = (
    'query Empty { orders(first: 50, query: "created_at:>2099-01-01") '
    "{ nodes { id lineItems(first: 20) { nodes { id product { id } variant { id } } } } } }"
)
COUNT = "query Count { ordersCount { count } productsCount { count } }"
MIX = (COUNT, PAGE, PAGE, EMPTY)


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    processes: int
    at_once: int
    bucket: int
    restore_rate: int
    queries: int
    points: int
    steady_seconds: float
    steady_points: int
    percent_used: float
    throttled: int
    throttled_when_steady: int
    queries_by_process: list[int]

    @property
    def good(self) -> bool:
        return self.throttled_when_steady == 0 and self.percent_used >= LEAST_USED


def main() -> None:
    options = _options()
    with _sandbox() as sandbox, _redis() as redis_url:
        figures = measure(sandbox, redis_url, options)
    if options.json:
        print(json.dumps(asdict(figures)))
    else:
        _print(figures)
    sys.exit(0 if figures.good else 1)


def measure(sandbox: str, redis_url: str, options: argparse.Namespace) -> Figures:
    """Let the processes query, and count what the sandbox saw."""
    wanted = {"bucket": options.bucket, "restore_rate": options.restore_rate, "token": TOKEN, "orders": 200}
    httpx.post(f"{sandbox}/_sandbox/stores", json={"shop": SHOP, **wanted}, timeout=60).raise_for_status()
    faults = {"latency": {"seconds": options.latency}}
    httpx.patch(f"{sandbox}/_sandbox/stores/{SHOP}/faults", json=faults, timeout=10).raise_for_status()
    context = multiprocessing.get_context("spawn")
    ready, answered = context.Barrier(options.processes + 1), context.Queue()
    arguments = (sandbox, redis_url, options, ready, answered)
    workers = [context.Process(target=work, args=arguments, daemon=True) for _ in range(options.processes)]
    for worker in workers:
        worker.start()
    ready.wait(STARTS_WITHIN)
    end = time.time() + options.seconds
    log = _watch(sandbox, end)
    queries = [answered.get(timeout=ENDS_WITHIN) for _ in workers]
    for worker in workers:
        worker.join(ENDS_WITHIN)
    log |= _read_log(sandbox)
    return _figures(sorted(log, key=lambda row: row[0]), end, queries, options)


def _figures(
    log: list[tuple[float, int, str]], end: float, queries: list[int], options: argparse.Namespace
) -> Figures:
    paid = [(at, cost) for at, cost, note in log if note != "THROTTLED"]
    half_time = end - options.seconds / 2
    steady_from = _emptiest(paid, options.bucket, options.restore_rate, half_time)
    steady = sum(cost for at, cost in paid if steady_from < at <= end)
    seconds = max(0.001, end - steady_from)
    refused = [at for at, _, note in log if note == "THROTTLED"]
    return Figures(
        processes=options.processes,
        at_once=options.at_once,
        bucket=options.bucket,
        restore_rate=options.restore_rate,
        queries=sum(queries),
        points=sum(cost for _, cost in paid),
        steady_seconds=round(seconds, 1),
        steady_points=steady,
        percent_used=round(100 * steady / seconds / options.restore_rate, 1),
        throttled=len(refused),
        throttled_when_steady=sum(at > steady_from for at in refused),
        queries_by_process=queries,
    )


def _emptiest(paid: list[tuple[float, int]], bucket: int, rate: int, until: float) -> float:
    """When the bucket, full at first, had least in it."""
    level, before = float(bucket), paid[0][0]
    levels = []
    for at, cost in paid:
        level, before = min(bucket, level + (at - before) * rate) - cost, at
        levels.append((level, at))
    return min(found for found in levels if found[1] < until)[1]


def work(
    sandbox: str, redis_url: str, options: argparse.Namespace, ready: Barrier, answered: Queue[int]
) -> None:
    """One process: counts the queries that it was answered."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    answered.put(asyncio.run(_work(sandbox, redis_url, options, ready)))


async def _work(sandbox: str, redis_url: str, options: argparse.Namespace, ready: Barrier) -> int:
    redis = Redis.from_url(redis_url)
    shopify = Shopify(_settings(sandbox), redis)
    ready.wait(STARTS_WITHIN)
    end = time.time() + options.seconds
    try:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(_ask(shopify, end)) for _ in range(options.at_once)]
        return sum(task.result() for task in asking)
    finally:
        await shopify.close()
        await redis.aclose()


async def _ask(shopify: Shopify, end: float) -> int:
    shop = shopify.shop(SHOP, TOKEN)
    asked = 0
    while time.time() < end:
        await shop.query(dict[str, Any], random.choice(MIX))
        asked += 1
    return asked


def _settings(sandbox: str) -> Settings:
    secrets: dict[str, Any] = {
        "shopify_client_secret": "benchmark",
        "backstock_api_key": "benchmark-api-key",
        "backstock_secret_keys": Fernet.generate_key().decode(),
    }
    return Settings(
        database_url="postgresql://127.0.0.1/unused",
        redis_url="redis://127.0.0.1/0",
        shopify_client_id="benchmark",
        shopify_origin=f"{sandbox}/{{shop}}",
        **secrets,
    )


def _watch(sandbox: str, end: float) -> set[tuple[float, int, str]]:
    """The sandbox keeps its last requests only, so look now and then."""
    seen: set[tuple[float, int, str]] = set()
    while time.time() < end:
        time.sleep(1)
        seen |= _read_log(sandbox)
    return seen


def _read_log(sandbox: str) -> set[tuple[float, int, str]]:
    shown = httpx.get(f"{sandbox}/_sandbox/stores/{SHOP}/log", timeout=10).json()["requests"]
    return {
        (datetime.fromisoformat(row["at"]).timestamp(), row["cost"] or 0, row["note"] or "") for row in shown
    }


@contextmanager
def _sandbox() -> Iterator[str]:
    bind = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [Path(sys.executable).parent / "sandbox", "--bind", bind, "--shop", ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", "")},
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one prctl, nothing that locks
    )
    try:
        _until_healthy(f"http://{bind}/healthz")
        yield f"http://{bind}"
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN)


def _until_healthy(url: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(url)


@contextmanager
def _redis() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="backstock-benchmark-"))
    folder.chmod(0o711)  # its server may run under another account
    server = EmbeddedRedis(folder / "redis", aof=False)
    try:
        yield server.start().url
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _print(figures: Figures) -> None:
    for name, value in msgspec.to_builtins(figures).items():
        print(f"{name.replace('_', ' '):24} {value}")
    print("good" if figures.good else "NOT GOOD")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2, help="queries of each process (2)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the sandbox takes (0.1)")
    parser.add_argument("--bucket", type=int, default=1000)
    parser.add_argument("--restore-rate", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
