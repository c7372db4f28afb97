"""What a connection's open dead letters mean for it: nothing, a word of warning, or that its sync halts.

    an event nobody could handle                -> attention, at once: the sync waits for it
    a text of Shopify's that was set aside      -> noted while a sync runs, attention where it would be live
    no open letter any more                     -> back to where its jobs say that it stands

Whoever buries, replays, drops or moves a connection on asks for this judgement in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import structlog

from shared.db import Connection, load_queries
from shared.events import Problem, TroubleChanged
from shared.outbox import emit

log = structlog.get_logger()
queries = load_queries("shared")

DEAD_LETTER, SET_ASIDE = "dead_letter", "set_aside"
OURS = (DEAD_LETTER, SET_ASIDE)


async def reconsider(tx: Connection, connection_id: int, *, revived: bool = False) -> None:
    """Judge the connection anew; `revived`: the job whose failure it may show is at work again."""
    connection = await tx.fetchrow(queries["connection_for_trouble"], connection_id)
    if connection is None:
        return
    letters = await tx.fetch(queries["open_letters"], connection_id)
    problem = judge(letters, connection["brand_id"])
    halts = bool(problem and problem.code == DEAD_LETTER)
    stored = problem.model_dump() if problem else None
    if stored != connection["trouble"]:
        await tx.execute(queries["keep_trouble"], connection_id, stored)
        await emit(
            tx,
            TroubleChanged(
                connection_id=connection_id, brand_id=connection["brand_id"], problem=problem, halts=halts
            ),
        )
    status, shown = await _shown(tx, connection_id, connection, stored, halts=halts, revived=revived)
    if (status, shown) != (connection["sync_status"], connection["problem"]):
        await tx.execute(queries["show_trouble"], connection_id, status, shown)
        log.info("connection.reconsidered", connection=connection_id, status=status)


def judge(letters: Sequence[asyncpg.Record], brand_id: str) -> Problem | None:
    """The kinds of open letters (`event_type`, `aside`) as one problem; events before texts."""
    if not letters:
        return None
    halts = any(not letter["aside"] for letter in letters)
    names = ", ".join(letter["event_type"] for letter in letters if letter["aside"] is not halts)
    look = f"`backstock dead-letters list --brand {brand_id}`"
    if halts:
        return Problem(
            code=DEAD_LETTER,
            message=f"The sync waits: {names} could not be handled.",
            action=f"Look at it with {look}, mend the cause, then `backstock dead-letters replay "
            f"--brand {brand_id}`.",
        )
    return Problem(
        code=SET_ASIDE,
        message=f"Some of what Shopify sent was set aside, because it could not be understood: {names}.",
        action=f"Look at it with {look}; after an upgrade that understands it, `backstock dead-letters "
        f"replay --brand {brand_id}`.",
    )


async def _shown(
    tx: Connection,
    connection_id: int,
    connection: asyncpg.Record,
    trouble: dict[str, Any] | None,
    *,
    halts: bool,
    revived: bool,
) -> tuple[str, dict[str, Any] | None]:
    """The status and the problem that the connection is to show."""
    status, problem = str(connection["sync_status"]), connection["problem"]
    code = problem["code"] if problem else None
    if trouble is None:
        over = code in OURS or (revived and status == "attention")
        return await _without_trouble(tx, connection_id, status) if over else (status, problem)
    if status == "attention":  # a difference that an audit found is mostly what the letters hold
        return status, trouble if code in (*OURS, "audit_differs", None) or revived else problem
    if halts or status == "live" or await tx.fetchval(queries["at_rest"], connection_id):
        return "attention", trouble
    return status, problem if code not in (*OURS, None) else trouble


async def _without_trouble(
    tx: Connection, connection_id: int, status: str
) -> tuple[str, dict[str, Any] | None]:
    if status != "attention":
        return status, None
    if failed := await tx.fetchval(queries["failed_job"], connection_id):
        return status, failed
    return str(await tx.fetchval(queries["sync_step"], connection_id)), None
