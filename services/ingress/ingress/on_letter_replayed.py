"""LetterReplayed -> a webhook that was set aside is read again, as if Shopify had sent it now."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import structlog

from ingress.payloads import parse
from ingress.webhooks import Delivery, apply
from shared.db import Connection, load_queries
from shared.dead_letters import died_again, read_again
from shared.errors import BadPayloadError
from shared.events import LetterReplayed
from shared.secrets import TokenVault

log = structlog.get_logger()
queries = load_queries("ingress")


async def on_letter_replayed(event: LetterReplayed, tx: Connection, *, vault: TokenVault) -> None:
    """Stage what the webhook says; what still cannot be understood is an open letter again."""
    found = await read_again(tx, event.letter_id, ("ingress",), vault)
    if found is None:
        return
    letter, text = found
    connection = await tx.fetchrow(queries["connection_to_apply"], event.connection_id)
    if connection is None:
        return
    topic, triggered_at = letter["context"]["topic"], letter["context"]["triggered_at"]
    try:
        change = parse(topic, text, triggered_at, 1)
        delivery = Delivery(
            connection["shop"],
            topic,
            str(letter["event_id"]),
            datetime.fromisoformat(triggered_at),
            text,
            change,
        )
        async with tx.transaction():
            await apply(tx, connection, [delivery], vault)
    except (BadPayloadError, asyncpg.DataError) as error:
        log.warning("letter.died_again", letter=letter["id"], error=type(error).__name__)
        await died_again(tx, letter, error)
