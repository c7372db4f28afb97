"""Texts of Shopify's that are no rows: kept, encrypted, so that all the rest can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import NAMESPACE_URL, UUID, uuid5

from bulk_runner.bulk_operation import Operation
from shared.db import Connection, load_queries
from shared.dead_letters import Aside, set_aside
from shared.errors import PermanentError
from shared.secrets import TokenVault
from shared.trouble import reconsider

queries = load_queries("bulk_runner")

MOST_ASIDE = 1_000  # texts of a store; more of them are no accidents but another form of the data


def text_aside(operation: Operation, line: bytes, error: Exception, number: int) -> Aside:
    """A line of a bulk file."""
    context = {
        "resource": operation.resource,
        "sent_at": operation.sent_at,
        "line": number,
        "audit": operation.is_audit,
    }
    kind = f"bulk line {operation.resource}"
    return Aside(key(operation.connection_id, kind, line), kind, line, error, context)


def key(connection_id: int, kind: str, text: bytes) -> UUID:
    """The same text again is the same letter."""
    return uuid5(NAMESPACE_URL, f"{connection_id}/{kind}/{hashlib.sha256(text).hexdigest()}")


async def set_texts_aside(
    tx: Connection, connection_id: int, texts: Sequence[Aside], vault: TokenVault, job_id: int | None
) -> None:
    """Keep the texts and show it at the connection; PermanentError when they are too many."""
    for text in sorted(texts, key=lambda text: text.key):  # who writes the same ones waits, and no more
        await set_aside(tx, text, "bulk-runner", connection_id, vault, job_id)
    if await tx.fetchval(queries["texts_aside"], connection_id) > MOST_ASIDE:
        raise PermanentError(
            f"more than {MOST_ASIDE} texts of Shopify's cannot be understood: upgrade Backstock, or report it"
        )
    await reconsider(tx, connection_id)
