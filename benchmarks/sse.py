"""From Promoted to the browser: how long, and whether every client ends with the truth.

    .venv/bin/python benchmarks/sse.py                       # both parts, about a minute
    .venv/bin/python benchmarks/sse.py --part latency --clients 200 --rate 200 --seconds 20
    .venv/bin/python benchmarks/sse.py --part crowd --clients 5000

Starts a Postgres, a Redis, `status` and `promoter` (idle: it is there for its relay, as in production) and
clients on raw sockets in processes of their own. An event's time runs from the moment before its transaction
begins (`occurred_at`) to the arrival of the first frame that counts it, for every client of its brand.

    latency  200 Promoted a second over 50 brands, 200 clients; good: p99 below 250 ms
    crowd    5,000 clients of one process; good: the last frame of each is its brand's JSON document
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uvloop
from cryptography.fernet import Fernet

from backstock.children import die_with_parent
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.ports import free_port
from shared.db import connect, migrate
from shared.events import Event, JobCompleted, JobQueued, Promoted, TableCheck
from shared.outbox import emit

COMMANDS = Path(sys.executable).parent
API_KEY = "benchmark-api-key-0123"
P99_WITHIN = 250.0  # milliseconds
READY_WITHIN = 60.0  # seconds
SETTLED_WITHIN = 60.0  # seconds after the last event
CONNECTING_AT_ONCE = 100  # clients of one process
PLENTY = 10_000_000  # orders that each store expects: no brand gets to its end before it should
UNCOUNTED = """
    select not exists (
        select from control.outbox o
        where not exists (select from control.inbox i where i.event_id = o.event_id and i.service = 'status')
    )
"""


@dataclass
class Follower(asyncio.Protocol):
    """One client: when it saw which count, and the last document."""

    request: bytes
    ready: asyncio.Future[None]
    seen: list[tuple[int, float]] = field(default_factory=list)
    last: bytes = b""
    ended: bool = False
    rest: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.time()
        *blocks, self.rest = (self.rest + data).split(b"\n\n")
        for block in blocks:
            self._take(block, now)

    def _take(self, block: bytes, now: float) -> None:
        self.ended = self.ended or b"event: end" in block
        _, found, document = block.partition(b"\ndata: ")
        if not found or b"event: end" in block:
            return
        self.last = document.partition(b"\n")[0]
        _, _, count = self.last.partition(b'"promoted":')
        self.seen.append((int(count[: count.index(b",")]), now))
        if not self.ready.done():
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed before the first frame"))


def follow(bind: str, brands: list[str], pipe: Pipe) -> None:
    """A process of clients: says when all are there; at "report" tells what each saw."""
    _allow_many_sockets()
    uvloop.run(_follow(bind, brands, pipe))


async def _follow(bind: str, brands: list[str], pipe: Pipe) -> None:
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING_AT_ONCE)
    host, port = bind.split(":")

    async def one(brand: str) -> Follower:
        head = f"GET /api/sync/{brand}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n"
        follower = Follower(head.encode(), loop.create_future())
        async with room:
            await loop.create_connection(lambda: follower, host, int(port))
            await asyncio.wait_for(follower.ready, READY_WITHIN)
        return follower

    followers = await asyncio.gather(*(one(brand) for brand in brands))
    pipe.send("ready")
    while await asyncio.to_thread(pipe.recv) == "ended?":
        pipe.send(sum(follower.ended for follower in followers))
    pipe.send([(brand, f.seen, f.last) for brand, f in zip(brands, followers, strict=True)])


@dataclass
class Crowd:
    """Client processes."""

    processes: list[SpawnProcess]
    pipes: list[Pipe]

    def ended(self) -> int:
        """How many clients were told that their brand is live."""
        for pipe in self.pipes:
            pipe.send("ended?")
        return sum(pipe.recv() for pipe in self.pipes)

    def report(self) -> list[tuple[str, list[tuple[int, float]], bytes]]:
        """Of each client: brand, what it saw when, its last document."""
        for pipe in self.pipes:
            pipe.send("report")
        return [line for pipe in self.pipes for line in pipe.recv()]


@contextmanager
def crowd(bind: str, brands: list[str], processes: int) -> Iterator[Crowd]:
    """One client for each entry of `brands`, spread over processes."""
    context = multiprocessing.get_context("spawn")
    made = Crowd([], [])
    for number in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=follow, args=(bind, brands[number::processes], theirs), daemon=True)
        process.start()
        made.processes.append(process)
        made.pipes.append(ours)
    try:
        for pipe in made.pipes:
            if not pipe.poll(READY_WITHIN * 2):
                raise TimeoutError("the clients did not all get their first frame")
            pipe.recv()
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.join()


@dataclass(frozen=True)
class Store:
    """A brand and its job."""

    connection_id: int
    brand_id: str
    job_id: int

    def fields(self) -> dict[str, Any]:
        return {"connection_id": self.connection_id, "brand_id": self.brand_id}

    def promoted(self, number: int, at: datetime) -> Event:
        job: dict[str, Any] = {"job_id": self.job_id, "kind": "bulk_orders", "resource": "orders"}
        rows = {"orders": 1}
        return Promoted(
            **self.fields(), **job, occurred_at=at, batch_id=number, source="bulk", rows=rows, written=rows
        )

    def queued(self) -> Event:
        return JobQueued(**self.fields(), job_id=self.job_id, kind="bulk_orders", expected={"orders": PLENTY})

    def audited(self) -> Event:
        check = TableCheck(table="orders", shopify_count=1, our_count=1, equal=True)
        return JobCompleted(**self.fields(), job_id=self.job_id + 1, kind="audit", audit=(check,))


@dataclass
class Scene:
    """What runs."""

    bind: str
    pool: Any
    http: httpx.AsyncClient
    stores: list[Store]

    async def tell(self, *events: Event) -> None:
        async with self.pool.acquire() as tx, tx.transaction():
            await emit(tx, *events)

    async def load(self, rate: float, seconds: float) -> dict[str, list[float]]:
        """Promoted events at an even pace; when each of a brand's was about to be written."""
        told: dict[str, list[float]] = {store.brand_id: [] for store in self.stores}
        began, writing = time.time(), set()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.time()))
            store = self.stores[number % len(self.stores)]
            now = time.time()
            told[store.brand_id].append(now)
            event = store.promoted(number, datetime.fromtimestamp(now, UTC))
            task = asyncio.create_task(self.tell(event))
            writing.add(task)
            task.add_done_callback(writing.discard)
        await asyncio.gather(*writing)
        return told

    async def finish(self) -> None:
        """All brands live, after everything that came before has been counted."""
        await self.until(UNCOUNTED)
        for store in self.stores:
            await self.tell(store.audited())

    async def until(self, query: str) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN
        while not await self.pool.fetchval(query):
            if time.monotonic() > deadline:
                raise TimeoutError(query)
            await asyncio.sleep(0.1)

    async def document(self, brand_id: str) -> bytes:
        answer = await self.http.get(f"/api/sync/{brand_id}/status")
        answer.raise_for_status()
        return answer.content


async def latency(scene: Scene, clients: int, rate: float, seconds: float) -> dict[str, Any]:
    """The times from events to frames."""
    brands = [scene.stores[n % len(scene.stores)].brand_id for n in range(clients)]
    with crowd(scene.bind, brands, 1) as followers:
        cpu = _status_cpu()
        told = await scene.load(rate, seconds)
        await asyncio.sleep(1)
        cpu = _status_cpu() - cpu
        seen = followers.report()
    times = [t for brand, frames, _ in seen for t in _times(told[brand], frames)]
    missing = sum(len(told[brand]) for brand in brands) - len(times)
    cuts = statistics.quantiles(times, n=100)
    return {
        "clients": clients,
        "brands": len(scene.stores),
        "events a second": rate,
        "events": sum(map(len, told.values())),
        "frames a client and second": round(sum(len(f) for _, f, _ in seen) / clients / seconds, 1),
        "status, ms of CPU an event": round(cpu * 1000 / (rate * seconds), 2),
        "p50 ms": round(cuts[49] * 1000),
        "p99 ms": round(cuts[98] * 1000),
        "longest ms": round(max(times) * 1000),
        "never seen": missing,
        "good": cuts[98] * 1000 < P99_WITHIN and missing == 0,
    }


def _times(told: list[float], frames: list[tuple[int, float]]) -> Iterator[float]:
    """For each event the time until the first frame that counts it."""
    frame = iter(frames)
    count, at = next(frame)
    for number, moment in enumerate(told, 1):
        while count < number:
            try:
                count, at = next(frame)
            except StopIteration:
                return
        yield at - moment


async def many(scene: Scene, clients: int, rate: float, seconds: float) -> dict[str, Any]:
    """Thousands of clients on one process, and what each has in the end."""
    brands = [scene.stores[n % len(scene.stores)].brand_id for n in range(clients)]
    began = time.time()
    with crowd(scene.bind, brands, 2) as followers:
        joined = time.time() - began
        told = await scene.load(rate, seconds)
        await scene.finish()
        deadline = time.time() + SETTLED_WITHIN
        ended = 0
        while ended < clients and time.time() < deadline:
            ended = await asyncio.to_thread(followers.ended)
            await asyncio.sleep(0.2)
        settled = time.time()
        seen = followers.report()
    documents = {store.brand_id: await scene.document(store.brand_id) for store in scene.stores}
    times = [t for brand, frames, _ in seen for t in _times(told[brand], frames)]
    cuts = statistics.quantiles(times, n=100)
    equal = sum(last == documents[brand] for brand, _, last in seen)
    return {
        "clients": clients,
        "events a second": rate,
        "all connected after s": round(joined, 1),
        "frames delivered": sum(len(frames) for _, frames, _ in seen),
        "p50 ms": round(cuts[49] * 1000),
        "p99 ms": round(cuts[98] * 1000),
        "all told the end after s": round(settled - deadline + SETTLED_WITHIN, 1),
        "ended": ended,
        "last frame equals JSON": equal,
        "status MB": _memory_mb(),
        "good": equal == ended == clients,
    }


_status_pid = 0


def _status_cpu() -> float:
    """Seconds of CPU so far."""
    user, system = Path(f"/proc/{_status_pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory_mb() -> int:
    lines = Path(f"/proc/{_status_pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


@asynccontextmanager
async def running(brands: int) -> AsyncIterator[Scene]:
    """Servers, services and stores under way."""
    folder = _folder()
    postgres, redis = EmbeddedPostgres(folder / "postgres"), EmbeddedRedis(folder / "redis")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        postgres.start()
        redis.start()
        await migrate(postgres.url())
        bind = f"127.0.0.1:{free_port()}"
        env = _environment(postgres.url(), redis.url, bind)
        processes += [_start("status", env, folder), _start("promoter", env, folder)]
        global _status_pid  # noqa: PLW0603 - a script with one scene
        _status_pid = processes[0].pid
        headers = {"Authorization": f"Bearer {API_KEY}"}
        pool = await connect(postgres.url(), service="benchmark")
        async with httpx.AsyncClient(base_url=f"http://{bind}", headers=headers, timeout=30) as http:
            await _until_ready(http)
            scene = Scene(bind, pool, http, await _stores(pool, brands))
            await scene.until(f"select count(*) = {brands} from control.progress where version > 0")
            yield scene
        await pool.close()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        redis.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="backstock-benchmark-"))
    folder.chmod(0o711)  # the servers may run under another account
    return folder


async def _stores(pool: asyncpg.Pool[asyncpg.Record], brands: int) -> list[Store]:
    rows = await pool.fetch(
        "insert into control.connections (brand_id, shop) "
        "select 'brand-' || n, 'shop-' || n || '.myshopify.com' from generate_series(1, $1::int) n "
        "returning id, brand_id",
        brands,
    )
    stores = [Store(row["id"], row["brand_id"], 2 * number + 1) for number, row in enumerate(rows)]
    async with pool.acquire() as tx, tx.transaction():
        await emit(tx, *(store.queued() for store in stores))
    return stores


def _start(name: str, env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [COMMANDS / name],
            env=env,
            cwd=folder,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one prctl, nothing that locks
        )


def _environment(database_url: str, redis_url: str, bind: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SHOPIFY_CLIENT_SECRET": "benchmark",
        "STATUS_BIND": bind,
        "BACKSTOCK_API_KEY": API_KEY,
        "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
        "LOG_LEVEL": "WARNING",
    }


async def _until_ready(http: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        try:
            if (await http.get("/readyz")).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)
    raise TimeoutError("status is not ready")


def _allow_many_sockets() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The parts that were asked for."""
    figures = {}
    if options.part in ("both", "latency"):
        async with running(options.brands) as scene:
            clients = min(options.clients or 200, 200)
            figures["latency"] = await latency(scene, clients, options.rate, options.seconds)
    if options.part in ("both", "crowd"):
        async with running(options.brands) as scene:
            figures["crowd"] = await many(scene, options.clients or 5000, options.crowd_rate, options.seconds)
    return figures


def main() -> None:
    options = _options()
    _allow_many_sockets()
    load = os.getloadavg()[0]
    figures = uvloop.run(measure(options))
    if options.json:
        print(json.dumps(figures))
    else:
        _print(figures, load)
    sys.exit(0 if all(part["good"] for part in figures.values()) else 1)


def _print(figures: dict[str, dict[str, Any]], load: float) -> None:
    print(f"load before: {load:.1f} on {os.cpu_count()} cores")
    for name, part in figures.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:28} {value}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=("both", "latency", "crowd"), default="both")
    parser.add_argument("--clients", type=int, default=0, help="of each part (200 and 5,000)")
    parser.add_argument("--brands", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200, help="events a second in `latency` (200)")
    parser.add_argument("--crowd-rate", type=float, default=50, help="events a second in `crowd` (50)")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
