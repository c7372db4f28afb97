"""Texts of Shopify's that are no rows: kept, encrypted, so that all the rest can go on."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from uuid import UUID

import structlog

from bulk_runner.bulk_operation import Operation
from bulk_runner.resources.nodes import R, ReadNode
from shared.db import Connection
from shared.dead_letters import Aside, letter_key, set_all_aside
from shared.errors import BadPayloadError
from shared.events import BULK_JOBS, JobQueued, Resource
from shared.secrets import TokenVault
from shared.staging import sift

log = structlog.get_logger()


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


async def sift_nodes(
    tx: Connection, nodes: Sequence[ReadNode[R]], put: Callable[[list[R]], Awaitable[None]]
) -> tuple[list[ReadNode[R]], list[ReadNode[R]]]:
    """Put the rows of all nodes that can be read and that Postgres takes; returns these, and the others."""
    pieces = [(place, node.rows) for place, node in enumerate(nodes) if node.error is None]
    refused = await sift(tx, pieces, put)
    tried = [replace(node, error=node.error or refused.get(place)) for place, node in enumerate(nodes)]
    return [node for node in tried if not node.error], [node for node in tried if node.error]


async def set_nodes_aside(
    tx: Connection,
    event: JobQueued,
    resource: Resource,
    nodes: Sequence[ReadNode[R]],
    vault: TokenVault,
) -> None:
    """Keep the nodes that could not be read or stored, each with its reason."""
    texts = [_node_aside(event, resource, node) for node in nodes]
    for text in texts:
        log.warning("page.node_set_aside", job=event.job_id, kind=text.kind, error=type(text.error).__name__)
    # Only a job that reads all of a resource reads the same again when it is run again.
    job_id = event.job_id if event.kind in BULK_JOBS else None
    await set_all_aside(tx, texts, "bulk-runner", event.connection_id, vault, job_id)


def _node_aside(event: JobQueued, resource: Resource, node: ReadNode[R]) -> Aside:
    """A node of a page: of an object there is one letter, with its newest text."""
    context = {
        "resource": resource,
        "root": node.root,
        "sent_at": event.occurred_at.isoformat(),
        "audit": event.kind == "audit",
    }
    kind, of = f"page node {resource}", event.connection_id
    known = letter_key(of, kind, node.root) if node.root else key(of, kind, node.text)
    return Aside(known, kind, node.text, node.error or BadPayloadError("no reason"), context)


def key(connection_id: int, kind: str, text: bytes) -> UUID:
    """The same text again is the same letter."""
    return letter_key(connection_id, kind, hashlib.sha256(text).hexdigest())
