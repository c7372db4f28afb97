"""LetterReplayed -> a line or a node that was set aside is read again, and its object anew -> StagedBatch.

First the text itself, with the code of today: what still is no row stays an open letter. Then the object
that it belongs to is read from Shopify, whole: what came with the text could not stay without it, and
may be old by now. Of a node of a page, and of what the promoter set aside, the object is known: it is read at
once. A store whose audit had missed it is caught up and audited again.
"""

from __future__ import annotations

import asyncpg
import structlog

from bulk_runner.bulk_operation import LINES
from bulk_runner.paged import CLOCK_SKEW, ReadPage
from bulk_runner.planning import queue_job, set_status
from bulk_runner.resources import customers, orders, products
from bulk_runner.resources.nodes import UNREADABLE, ReadNode, kind_of, parent_of
from bulk_runner.shops import Shops
from shared.db import Connection, load_queries, settle
from shared.dead_letters import died_again, read_again
from shared.events import LetterReplayed, Resource, Service, StagedBatch
from shared.outbox import emit
from shared.rows import Row, count, stage
from shared.scopes import readable
from shared.staging import REFUSALS

log = structlog.get_logger()
queries = load_queries("bulk_runner")

THESE: tuple[Service, ...] = ("bulk-runner", "promoter")  # what the promoter set aside is read anew here

PAGES: dict[Resource, ReadPage] = {
    "orders": orders.page,
    "customers": customers.page,
    "products": products.page,
}


async def on_letter_replayed(event: LetterReplayed, shops: Shops) -> None:
    """Try the text, read its object anew, stage it, and have the copy proven again."""
    async with shops.pool.acquire() as tx, tx.transaction():
        found = await read_again(tx, event.letter_id, THESE, shops.tokens.vault)
        root = await _root(tx, *found) if found else None
        if found is None or root is None:
            await settle(tx, event, "bulk-runner")
            return
    letter, resource = found[0], found[0]["context"]["resource"]
    nodes = await _read(shops, event.connection_id, resource, root)
    rows = [row for node in nodes for row in node.rows]
    async with shops.pool.acquire() as tx, tx.transaction():
        if not await settle(tx, event, "bulk-runner"):
            return
        try:
            async with tx.transaction():
                await _stage(tx, event, rows)
        except REFUSALS as error:
            await died_again(tx, letter, error)
            return
        if bad := [node.error for node in nodes if node.error]:
            await died_again(tx, letter, bad[0])
            return
        await _prove(tx, event)
    log.info("letter.read_again", letter=event.letter_id, rows=len(rows))


async def _root(tx: Connection, letter: asyncpg.Record, text: bytes) -> int | None:
    """The id of the object that the text belongs to; None, and an open letter, if it still is no row."""
    context = letter["context"]
    if root := context.get("root"):  # Shopify's answer of today decides, and the promoter after it
        return int(root)
    try:
        kind = kind_of(text, LINES[context["resource"]])
        node = kind.decoder.decode(text)
        rows = kind.rows(node, context["sent_at"])
        await _try(tx, rows)
        return parent_of(text)
    except (*UNREADABLE, *REFUSALS) as error:
        log.warning("letter.died_again", letter=letter["id"], error=type(error).__name__)
        await died_again(tx, letter, error)
        return None


async def _try(tx: Connection, rows: list[Row]) -> None:
    """Whether Postgres takes the rows: staged under no batch, and rolled back."""
    trial = tx.transaction()
    await trial.start()
    try:
        await stage(tx, 0, rows)
    finally:
        await trial.rollback()


async def _read(shops: Shops, connection_id: int, resource: Resource, root: int) -> list[ReadNode[Row]]:
    shop = await shops.open(connection_id)
    allowed = readable(await shops.scopes(connection_id))
    sent_at = (await shop.now() - CLOCK_SKEW).isoformat()
    if resource not in allowed:
        return []
    page = await PAGES[resource](shop, f"id:{root}", None, sent_at, allowed)
    return page.nodes


async def _stage(tx: Connection, event: LetterReplayed, rows: list[Row]) -> None:
    if not rows:  # gone at Shopify by now
        return
    counts = count(rows)
    batch_id = await tx.fetchval(queries["next_batch"])
    await stage(tx, batch_id, rows)
    await tx.execute(queries["add_batch"], batch_id, event.connection_id, None, "catch_up", counts)
    await emit(
        tx,
        StagedBatch(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            batch_id=batch_id,
            source="catch_up",
            rows=counts,
        ),
    )


async def _prove(tx: Connection, event: LetterReplayed) -> None:
    await tx.fetchval(queries["lock_connection"], event.connection_id)
    if not await tx.fetchval(queries["needs_proof"], event.connection_id):
        return
    since = await tx.fetchval(queries["history_began"], event.connection_id)
    await queue_job(tx, event.connection_id, event.brand_id, "catch_up", since=since, round_=2)
    await set_status(tx, event.connection_id, "catching_up")
