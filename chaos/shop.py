"""One shop of the sandbox, as the harness sees it: make it, connect it, keep it busy, break it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from chaos.schedule import StorePlan
from chaos.world import World

TOKEN = "shpat_chaos"  # noqa: S105 - a sandbox has no secrets
CONNECTS_WITHIN = 120.0  # seconds; ingress may be away when it is asked
FIRST_WEBHOOK_RETRY = 0.1  # seconds, doubled eight times: half a minute of trying where Shopify takes hours
ASK_AGAIN = 0.5  # seconds


class Shop:
    """A store and the brand that it is connected as."""

    def __init__(self, world: World, plan: StorePlan, number: int) -> None:
        self.world, self.plan = world, plan
        self.name, self.brand = f"shop-{number}.myshopify.com", f"brand-{number}"
        self.connection_id = 0

    @property
    def control(self) -> str:
        return f"{self.world.sandbox_url}/_sandbox/stores/{self.name}"

    async def open(self) -> None:
        """Make the store, with its clock as wrong as planned."""
        now = datetime.now(UTC) + timedelta(seconds=self.plan.clock_skew)
        wanted = {
            "shop": self.name,
            "token": TOKEN,
            "orders": self.plan.orders,
            "currency": self.plan.currency,
            "seed": self.plan.seed,
            "objects_per_second": self.plan.objects_per_second,
            "webhook_retry_seconds": FIRST_WEBHOOK_RETRY,
            "now": now.strftime("%Y-%m-%dT%H:%M:%SZ") if self.plan.clock_skew else None,
        }
        answer = await self.world.http.post(f"{self.world.sandbox_url}/_sandbox/stores", json=wanted)
        answer.raise_for_status()

    async def connect(self) -> None:
        """As a caller that tries again until it is told 201."""
        body = {"brandId": self.brand, "shop": self.name, "accessToken": TOKEN}
        async with asyncio.timeout(CONNECTS_WITHIN):
            while not self.connection_id:
                try:
                    answer = await self.world.http.post(
                        f"{self.world.ingress_url}/api/connections", json=body, headers=self.world.headers
                    )
                    if answer.status_code == httpx.codes.CREATED:
                        self.connection_id = int(answer.json()["connectionId"])
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(ASK_AGAIN)

    async def trade(self, seconds: float) -> int:
        """Changes for so long, each with its webhooks; returns how many."""
        body = {"per_second": self.plan.changes_per_second, "seconds": seconds, "seed": self.plan.seed}
        return int((await self._post("traffic", body, seconds + 30))["changes"])

    async def flush(self, seconds: float) -> bool:
        """Wait until no webhook is on its way any more."""
        return bool((await self._post("webhooks/flush", {"seconds": seconds}, seconds + 30))["flushed"])

    async def break_(self, fault: str, setting: Mapping[str, float | str] | None) -> None:
        """Set a fault, or take it away."""
        answer = await self.world.http.patch(f"{self.control}/faults", json={fault: setting})
        answer.raise_for_status()

    async def mend(self) -> None:
        """No fault any more."""
        known = (await self.shown())["faults"]
        answer = await self.world.http.patch(f"{self.control}/faults", json=dict.fromkeys(known))
        answer.raise_for_status()

    async def shown(self) -> dict[str, Any]:
        """What the sandbox says about the store."""
        answer = await self.world.http.get(self.control)
        found: dict[str, Any] = answer.json()
        return found

    async def counters(self) -> dict[str, int]:
        """How many webhooks were sent, repeated, dropped, ..."""
        answer = await self.world.http.get(f"{self.control}/log")
        found: dict[str, int] = answer.json()["counters"]
        return found

    async def bulk_queries(self) -> list[dict[str, str]]:
        """The store's latest bulk operations of the app: id, status, query."""
        query = "{ bulkOperations(first: 200) { nodes { id status query } } }"
        answer = await self.world.http.post(
            f"{self.world.sandbox_url}/{self.name}/admin/api/2026-10/graphql.json",
            json={"query": query},
            headers={"X-Shopify-Access-Token": TOKEN},
        )
        found: list[dict[str, str]] = answer.json()["data"]["bulkOperations"]["nodes"]
        return found

    async def _post(self, path: str, body: dict[str, Any], within: float) -> dict[str, Any]:
        answer = await self.world.http.post(f"{self.control}/{path}", json=body, timeout=within)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
