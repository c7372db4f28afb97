"""A client that may do what a well-behaved one cannot: raw bytes, any signature, any order."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import httpx

SECRET = "sandbox-client-secret"
TOKEN = "shpat_of_the_test"
SENT = "2026-11-20T10:00:00.000000Z"
NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What came back on a raw socket."""

    status: int  # 0: the connection was closed without an answer
    head: str
    body: bytes

    @property
    def document(self):
        return json.loads(self.body)


def sign(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole HTTP/1.1 request; headers given as None are left out."""
    known = {"Host": "x", "Content-Length": str(len(body)), "Connection": "close"}
    known |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in known.items() if v is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


async def dial(url: str):
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def raw(url: str, *chunks: bytes, pause: float = 0.0, within: float = 10.0) -> Answer:
    """Send the chunks, `pause` seconds apart; the first answer, which has to come in time."""
    reader, writer = await dial(url)
    listening = asyncio.ensure_future(reader.read())
    try:
        async with asyncio.timeout(within):
            for chunk in chunks:
                writer.write(chunk)
                await asyncio.wait([listening], timeout=pause)
                if listening.done():
                    break
            return _answer(await listening)
    except (ConnectionError, BrokenPipeError):
        return Answer(0, "", b"")
    finally:
        listening.cancel()
        writer.close()


def _answer(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        return Answer(0, "", b"")
    return Answer(int(head.split(b" ", 2)[1]), head.decode("latin-1").lower(), body)


class Target:
    """Running services, a connected store, and the database behind them."""

    def __init__(self, services, http, db):
        self.services, self.http, self.db = services, http, db
        self.ingress, self.status = services.ingress_url, services.status_url
        self.shop, self.connection = "", 0

    async def connect(self, brand):
        """A store of the sandbox, connected as the brand; returns the connection's id."""
        self.shop = f"hostile-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
        wanted = {"shop": self.shop, "token": TOKEN, "orders": 0, "customers": 0, "products": 0}
        made = await self.http.post(f"{self.services.sandbox_url}/_sandbox/stores", json=wanted)
        assert made.status_code == 201, made.text
        body = {"brandId": brand, "shop": self.shop, "accessToken": TOKEN}
        answer = await self.http.post(
            f"{self.ingress}/api/connections", json=body, headers=self.services.headers
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["connectionId"]

    def webhook_request(self, topic, body, id_, **headers) -> bytes:
        known = {
            "X-Shopify-Topic": topic,
            "X-Shopify-Shop-Domain": self.shop,
            "X-Shopify-Webhook-Id": id_,
            "X-Shopify-Hmac-Sha256": sign(body),
            "X-Shopify-Triggered-At": SENT,
        }
        return request("POST", "/webhooks/shopify", body, **known, **headers)

    async def webhook(self, topic, body, id_=None, **headers):
        """Deliver; a header given as None is left out."""
        known = {
            "X-Shopify-Topic": topic,
            "X-Shopify-Shop-Domain": self.shop,
            "X-Shopify-Webhook-Id": id_ or f"w-{next(NUMBERS)}",
            "X-Shopify-Hmac-Sha256": sign(body),
            "X-Shopify-Triggered-At": SENT,
        }
        known |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            f"{self.ingress}/webhooks/shopify",
            content=body,
            headers=[(n.encode(), v.encode("latin-1")) for n, v in known.items() if v is not None],
        )

    async def count(self, table, where="true"):
        return await self.db.fetchval(f"select count(*) from {table} where {where}")


async def open_target(services, brand):
    """A target with a client, a database connection and a store of its own; close both afterwards."""
    http = httpx.AsyncClient(timeout=20)
    db = await asyncpg.connect(services.env["DATABASE_URL"])
    target = Target(services, http, db)
    target.connection = await target.connect(brand)
    return target


def order(id_: int, **fields) -> bytes:
    return json.dumps({"id": id_, "updated_at": "2026-11-20T10:00:00Z", **fields}).encode()
