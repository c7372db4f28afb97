"""Texts of Shopify's that are no rows: kept, encrypted, so that all the rest can go on."""

from __future__ import annotations

import hashlib
from uuid import NAMESPACE_URL, UUID, uuid5

from bulk_runner.bulk_operation import Operation
from shared.dead_letters import Aside


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
