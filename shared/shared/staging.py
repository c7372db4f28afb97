"""One bad row must not sink its batch: what Postgres refuses is found by halves, and left out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import asyncpg

from shared.db import Connection
from shared.dead_letters import describe
from shared.errors import PermanentError
from shared.rows import Row, stage

K = TypeVar("K")
R = TypeVar("R")

Piece: TypeAlias = tuple[K, Sequence[R]]

REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


async def sift(
    tx: Connection,
    pieces: Sequence[Piece[K, R]],
    put: Callable[[list[R]], Awaitable[None]],
    *,
    most: int | None = None,
) -> dict[K, Exception]:
    """Put all pieces but those whose rows Postgres refuses; returns these by their keys, with the reasons.

    Without a bad piece it is one `put` in a savepoint; each bad one costs a few more, each half as large.
    PermanentError when more than `most` are refused.
    """
    try:
        async with tx.transaction():
            await put([row for _, rows in pieces for row in rows])
    except REFUSALS as error:
        if most == 0:
            raise PermanentError(f"Postgres refuses too many rows: {describe(error)}") from error
        if len(pieces) == 1:
            return {pieces[0][0]: error}
    else:
        return {}
    half = len(pieces) // 2
    refused = await sift(tx, pieces[:half], put, most=most)
    left = None if most is None else most - len(refused)
    return refused | await sift(tx, pieces[half:], put, most=left)


async def stage_pieces(
    tx: Connection, batch_id: int, pieces: Sequence[Piece[K, Row]]
) -> tuple[list[Row], dict[K, Exception]]:
    """Stage the pieces of a batch; returns the rows that are in, and what was refused."""

    async def put(rows: list[Row]) -> None:
        await stage(tx, batch_id, rows)

    refused = await sift(tx, pieces, put)
    return [row for key, rows in pieces if key not in refused for row in rows], refused
