"""The whole route on this machine, for benchmarks: embedded Postgres and Redis, a sandbox, the services."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from cryptography.fernet import Fernet

from backstock.children import die_with_parent
from backstock.embedded import EmbeddedPostgres, EmbeddedRedis
from backstock.ports import free_port
from shared.db import migrate

COMMANDS = Path(sys.executable).parent
SHOP, TOKEN, API_KEY = "benchmark.myshopify.com", "shpat_benchmark", "benchmark-api-key-0123"
READY_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class Route:
    """What runs."""

    sandbox: str
    ingress: str
    db: asyncpg.Connection[Any]
    http: httpx.AsyncClient
    pids: dict[str, int]  # of every process by its name; Postgres's is the postmaster

    async def connect(self, brand: str = "benchmark") -> float:
        """Connect the store; returns the moment."""
        began = time.perf_counter()
        answer = await self.http.post(
            f"{self.ingress}/api/connections",
            json={"brandId": brand, "shop": SHOP, "accessToken": TOKEN},
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
        answer.raise_for_status()
        return began

    async def until(self, query: str, began: float, within: float) -> float:
        """Seconds from `began` until the query is true."""
        while not await self.db.fetchval(query):
            if time.perf_counter() - began > within:
                status = await self.db.fetch("select sync_status, problem from control.connections")
                raise TimeoutError(f"not within {within:g} s: {query}; {status}")
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    async def counters(self) -> dict[str, Any]:
        """What the sandbox counted."""
        answer = await self.http.get(f"{self.sandbox}/_sandbox/stores/{SHOP}/log")
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def running_route(
    store: dict[str, Any], *, with_status: bool = False, **env: str
) -> AsyncIterator[Route]:
    """Start everything, make the store, yield; everything ends with the block."""
    folder = _folder()
    postgres, redis = EmbeddedPostgres(folder / "postgres"), EmbeddedRedis(folder / "redis")
    postgres.start()
    redis.start()
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        await migrate(postgres.url())
        sandbox, ingress, status = (f"127.0.0.1:{free_port()}" for _ in range(3))
        settings = {
            **os.environ,
            "DATABASE_URL": postgres.url(),
            "REDIS_URL": redis.url,
            "SHOPIFY_ORIGIN": f"http://{sandbox}/{{shop}}",
            "SHOPIFY_CLIENT_ID": "sandbox-client-id",
            "SHOPIFY_CLIENT_SECRET": "sandbox-client-secret",
            "INGRESS_BIND": ingress,
            "INGRESS_URL": f"http://{ingress}",
            "STATUS_BIND": status,
            "STATUS_URL": f"http://{status}",
            "BACKSTOCK_API_KEY": API_KEY,
            "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
            **env,
        }
        ready = [f"http://{sandbox}/healthz", f"http://{ingress}/readyz"]
        processes["sandbox"] = _spawn(["sandbox", "--bind", sandbox, "--shop", ""], settings, folder)
        processes["ingress"] = _spawn(["ingress"], settings, folder)
        if with_status:
            ready.append(f"http://{status}/readyz")
            processes["status"] = _spawn(["status"], settings, folder)
        for service in ("bulk-runner", "promoter"):
            bind = f"127.0.0.1:{free_port()}"
            ready.append(f"http://{bind}/readyz")
            processes[service] = _spawn([service], {**settings, "HEALTH_BIND": bind}, folder)
        async with httpx.AsyncClient(timeout=120) as http:
            await asyncio.gather(*(_answers(http, url) for url in ready))
            made = await http.post(
                f"http://{sandbox}/_sandbox/stores", json={"shop": SHOP, "token": TOKEN, **store}
            )
            made.raise_for_status()
            db = await asyncpg.connect(postgres.url())
            try:
                pids = {name: process.pid for name, process in processes.items()}
                pids |= {s.name: s.process.pid for s in (postgres, redis) if s.process}
                yield Route(f"http://{sandbox}", f"http://{ingress}", db, http, pids)
            finally:
                await db.close()
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        redis.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="backstock-benchmark-"))
    folder.chmod(0o711)  # the servers' account must get in
    return folder


def _spawn(argv: list[str], env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{argv[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [COMMANDS / argv[0], *argv[1:]],
            env=env,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one prctl, nothing that locks
        )


async def _answers(http: httpx.AsyncClient, url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        try:
            if (await http.get(url)).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} was not ready within {READY_WITHIN:g} s")
