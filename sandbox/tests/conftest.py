"""A sandbox on a real socket, a client for it, and somebody who receives its webhooks."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.app import listen, make_app, server
from sandbox.settings import Settings

SHOP = "test-store.myshopify.com"
TOKEN = "shpat_test"
MATERIAL = Path(__file__).resolve().parents[3] / "shared" / "shopify"
DONE = {"COMPLETED", "FAILED", "CANCELED", "EXPIRED"}
RUN = """mutation($q: String!, $g: Boolean!) { bulkOperationRunQuery(query: $q, groupObjects: $g) {
    bulkOperation { id status query } userErrors { field message code } } }"""
POLL = """query($id: ID!) { bulkOperation(id: $id) { id status errorCode objectCount rootObjectCount fileSize url
    partialDataUrl createdAt completedAt query } }"""  # noqa: E501
SUBSCRIBE = """mutation($t: WebhookSubscriptionTopic!, $s: WebhookSubscriptionInput!) {
    webhookSubscriptionCreate(topic: $t, webhookSubscription: $s) {
        webhookSubscription { id topic uri } userErrors { field message } } }"""


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    sock = listen(Settings(bind="127.0.0.1:0"))
    running: uvicorn.Server = server(app)
    running.config.load()
    task = asyncio.create_task(running.serve(sockets=[sock]))
    while not running.started:  # noqa: ASYNC110  uvicorn offers no event
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        running.should_exit = True
        await task
        sock.close()


@dataclass
class Sandbox:
    base: str
    http: httpx.AsyncClient
    shop: str = SHOP
    token: str = TOKEN

    async def post(self, query, variables=None, *, version="2026-10", token=None):
        return await self.http.post(
            f"{self.base}/{self.shop}/admin/api/{version}/graphql.json",
            json={"query": query, "variables": variables or {}},
            headers={"X-Shopify-Access-Token": token or self.token},
        )

    async def ask(self, query, variables=None, **options):
        return (await self.post(query, variables, **options)).json()

    async def data(self, query, variables=None):
        answer = await self.ask(query, variables)
        assert "errors" not in answer, answer
        return answer["data"]

    async def control(self, method, path="", **body):
        answer = await self.http.request(method, f"{self.base}/_sandbox/stores/{self.shop}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def truth(self, table):
        text = (await self.http.get(f"{self.base}/_sandbox/stores/{self.shop}/truth/{table}")).text
        return {row["id"]: row for row in map(json.loads, text.split("\n")[:-1])}

    async def make(self, **options):
        return (await self.http.post(f"{self.base}/_sandbox/stores", json={"token": TOKEN, **options})).json()

    async def start(self, query, *, grouped=False):
        return (await self.data(RUN, {"q": query, "g": grouped}))["bulkOperationRunQuery"]

    async def finish(self, id_):
        async with asyncio.timeout(10):
            while True:
                found = (await self.data(POLL, {"id": id_}))["bulkOperation"]
                if found["status"] in DONE:
                    return found
                await asyncio.sleep(0.01)

    async def bulk(self, query, *, grouped=False):
        started = await self.start(query, grouped=grouped)
        assert not started["userErrors"], started
        operation = await self.finish(started["bulkOperation"]["id"])
        return operation, (await self.http.get(operation["url"])).content if operation["url"] else b""

    async def subscribe(self, topic, uri):
        return (await self.data(SUBSCRIBE, {"t": topic, "s": {"uri": uri}}))["webhookSubscriptionCreate"]


@dataclass
class Receiver:
    uri: str = ""
    got: list = field(default_factory=list)
    answers: list = field(default_factory=list)  # statuses to give before 200

    def of(self, topic):
        return [json.loads(body) for headers, body in self.got if headers["x-shopify-topic"] == topic]


@pytest.fixture(scope="session")
def sandbox_url():
    """One server for all tests, in a thread of its own; each test has its own stores."""
    sock = listen(Settings(bind="127.0.0.1:0"))
    running = server(
        make_app(Settings(shop="", objects_per_second=0, webhook_retry_seconds=0.01, restore_rate=2000))
    )
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]})
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    running.should_exit = True
    thread.join()
    sock.close()


@pytest.fixture
async def sandbox(sandbox_url) -> AsyncIterator[Sandbox]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        made = Sandbox(sandbox_url, http)
        await made.make(shop=SHOP, orders=150, seed=11)
        yield made
        for store in (await http.get(f"{sandbox_url}/_sandbox/stores")).json()["stores"]:
            await http.delete(f"{sandbox_url}/_sandbox/stores/{store['shop']}")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()

    async def take(request: Request) -> Response:
        made.got.append((dict(request.headers), await request.body()))
        return Response(status_code=made.answers.pop(0) if made.answers else 200)

    async with serving(Starlette(routes=[Route("/hooks", take, methods=["POST"])])) as base:
        made.uri = base + "/hooks"
        yield made


@pytest.fixture
def material() -> Path:
    if not MATERIAL.is_dir():
        pytest.skip(
            "needs Shopify's captured material in ../shared/shopify; it is not part of the repository"
        )
    return MATERIAL
