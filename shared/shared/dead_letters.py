"""What could not be handled: put aside with its reason, shown, sent again, or dropped.

    an event            -> its payload; a replay sends it again through the outbox, to that service alone
    a text of Shopify's -> encrypted; a replay asks the service that set it aside to read it again

A letter is open until it is replayed or dropped; one that dies again is open again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import msgspec
from pydantic import ValidationError

from shared.db import Connection, Pool, load_queries
from shared.errors import PermanentError
from shared.events import EVENTS, Event, JobFailed, LetterReplayed, Problem, Service
from shared.jobs import fail_job
from shared.outbox import emit
from shared.secrets import TokenVault
from shared.shopify_errors import public
from shared.trouble import reconsider

queries = load_queries("shared")

LONGEST_ERROR = 500  # characters
MOST_ASIDE = 1_000  # texts of a store; more of them are no accidents but another form of the data
MOST_MENTIONS = 500  # ids of a text that a privacy request can find it by
REPLAYED = Problem(
    code="replayed",
    message="What had failed is tried again.",
    action="Wait for it; nothing else is to be done.",
)

_ID = re.compile(rb"(?<![\d.])\d{3,19}(?![\d.])")
_COLUMN = re.compile(r"^COPY (\w+), line \d+, column (\w+)", re.MULTILINE)


class LetterError(PermanentError):
    """A letter that is not there, not open any more, or cannot be sent again."""


@dataclass(frozen=True)
class Aside:
    """A text of Shopify's that could not be read or stored.

    `key`: the same for the same text; `kind`: `bulk line orders`, `webhook orders/updated`, ...;
    `context`: what the service needs besides to read it again.
    """

    key: UUID
    kind: str
    text: bytes
    error: Exception
    context: dict[str, Any]


def letter_key(connection_id: int, kind: str, what: object) -> UUID:
    """The key of an Aside: the same thing again is the same letter."""
    return uuid5(NAMESPACE_URL, f"{connection_id}/{kind}/{what}")


async def bury(
    tx: Connection,
    *,
    event_id: UUID,
    event_type: str,
    service: Service,
    payload: str,
    error: Exception,
    deliveries: int,
    event: Event | None,
) -> None:
    """Put a message aside with its reason; its job fails, or its connection shows what the sync waits for."""
    connection_id = event.connection_id if event else None
    text = payload.replace("\x00", "\ufffd")
    what = (event_id, event_type, service, connection_id, text, describe(error), deliveries)
    await tx.execute(queries["bury"], *what, None, None, [])
    await tx.execute(queries["mark_handled"], event_id, service)
    if event is None:
        return
    if job_id := getattr(event, "job_id", None):
        problem = getattr(error, "problem", None) or _problem(event, error)
        before = await fail_job(tx, job_id, problem)
        await tx.execute(queries["letter_of_job"], event_id, service, job_id, before)
    await reconsider(tx, event.connection_id)


def _problem(event: Event, error: Exception) -> Problem:
    return Problem(
        code="dead_letter",
        message=f"{type(event).__name__} could not be handled: {describe(error)}",
        action=f"Look at it with `backstock dead-letters list --brand {event.brand_id}`, mend the cause, "
        f"then `backstock dead-letters replay --brand {event.brand_id}`.",
    )


async def set_all_aside(
    tx: Connection,
    asides: Sequence[Aside],
    service: Service,
    connection_id: int,
    vault: TokenVault,
    job_id: int | None,
) -> None:
    """Keep the texts and show it at the connection; PermanentError when they are too many.

    `job_id`: the job whose next run reads everything anew, if there is one: it settles the letters.
    """
    for aside in sorted(asides, key=lambda aside: aside.key):  # who writes the same ones waits, and no more
        await set_aside(tx, aside, service, connection_id, vault, job_id)
    if await tx.fetchval(queries["texts_aside"], connection_id) > MOST_ASIDE:
        raise PermanentError(
            f"more than {MOST_ASIDE} texts of Shopify's cannot be understood: upgrade Backstock, or report it"
        )
    await reconsider(tx, connection_id)


async def set_aside(
    tx: Connection, aside: Aside, service: Service, connection_id: int, vault: TokenVault, job_id: int | None
) -> None:
    """Keep a text of Shopify's, encrypted, so that the rest can go on. The caller then reconsiders.

    Of somebody whose data Shopify has had erased only the reason is kept.
    """
    await tx.execute(queries["keep_while_not_erased"], connection_id)
    mentions = sorted({int(found) for found in _ID.findall(aside.text)})[:MOST_MENTIONS]
    await tx.execute(
        queries["bury"],
        aside.key,
        aside.kind,
        service,
        connection_id,
        "",
        describe(aside.error),
        1,
        vault.seal(aside.text),
        aside.context,
        [number for number in mentions if number < 2**63],
    )
    await tx.execute(queries["letter_of_job"], aside.key, service, job_id, None)
    await tx.execute(queries["erase_at_once"], aside.key, service)


async def read_again(
    tx: Connection, letter_id: int, services: Sequence[Service], vault: TokenVault
) -> tuple[asyncpg.Record, bytes] | None:
    """A replayed letter of these services with Shopify's text; None if it is another's, or open already."""
    letter = await tx.fetchrow(queries["letter_to_read_again"], letter_id, services)
    if letter is None:
        return None
    try:
        return letter, vault.unseal(letter["sealed"])
    except PermanentError as error:
        await died_again(tx, letter, error)
        return None


async def died_again(tx: Connection, letter: asyncpg.Record, error: Exception) -> None:
    """The text cannot be read yet: the letter is open again, with what is wrong now."""
    await tx.execute(queries["letter_died_again"], letter["id"], describe(error))
    await reconsider(tx, letter["connection_id"])


async def find(pool: Pool, *wanted: object) -> list[asyncpg.Record]:
    """The letters that match: ids, brand, type, service, since, until, closed ones too, how many at most."""
    return list(await pool.fetch(queries["letters"], *wanted))


async def text_of(pool: Pool, letter_id: int) -> asyncpg.Record | None:
    """What a letter holds: `payload`, or `sealed`; neither once it was dropped."""
    return await pool.fetchrow(queries["letter_text"], letter_id)


async def drop_all(tx: Connection, connection_id: int) -> None:
    """Close and erase all letters of a connection: it ends, or is read from the start."""
    await tx.execute(queries["drop_letters_of"], connection_id)


async def erase(tx: Connection, connection_id: int, ids: Sequence[int] | None) -> None:
    """Close and erase the texts of a connection that mention one of Shopify's ids; None: all its letters.

    The request must be in `stage.redactions`, or the connection removed, when the transaction ends: then no
    text that is set aside later is kept either.
    """
    await tx.execute(queries["erase_while_none_is_kept"], connection_id)
    if ids is None:
        await drop_all(tx, connection_id)
    else:
        await tx.execute(queries["erase_letters"], connection_id, ids)


def describe(error: Exception) -> str:
    """An error for a listing: its kind and text, without a person's data, shortened."""
    if isinstance(error, asyncpg.DataError):  # its text holds the value
        column = _COLUMN.search(str(getattr(error, "context", "") or ""))
        where = f" for {column[1]}.{column[2]}" if column else ""
        text = f"{type(error).__name__}: Postgres refuses a value{where}"
    elif isinstance(error, asyncpg.PostgresError):  # its details hold the row
        text = f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    else:
        text = f"{type(error).__name__}: {error}"
    return public("; ".join(text.splitlines()))[:LONGEST_ERROR].replace("\x00", "\ufffd")


async def replay(tx: Connection, letter_id: int) -> None:
    """Send the letter again; its job goes back to where it stood. LetterError if that cannot be."""
    letter = await _open_letter(tx, letter_id)
    revived = False
    if letter["is_sealed"]:
        await _ask_to_read_again(tx, letter)
    else:
        event = _event(letter)
        await _send_again(tx, letter, event)
        revived = await _revive_job(tx, letter, event)
    await tx.execute(queries["replay_letter"], letter_id)
    if letter["connection_id"] is not None:
        await reconsider(tx, letter["connection_id"], revived=revived)


async def drop(tx: Connection, letter_id: int) -> None:
    """Nobody will replay the letter: what it holds goes, that it was there stays known for a while."""
    letter = await _open_letter(tx, letter_id)
    await tx.execute(queries["drop_letter"], letter_id)
    if letter["connection_id"] is not None:
        await reconsider(tx, letter["connection_id"])


async def _open_letter(tx: Connection, letter_id: int) -> asyncpg.Record:
    letter = await tx.fetchrow(queries["lock_letter"], letter_id)
    if letter is None:
        raise LetterError(
            f"there is no open dead letter {letter_id}: `backstock dead-letters list --all` shows those that "
            "were replayed or dropped"
        )
    return letter


async def _ask_to_read_again(tx: Connection, letter: asyncpg.Record) -> None:
    brand = await tx.fetchval(
        "select brand_id from control.connections where id = $1 and removed_at is null",
        letter["connection_id"],
    )
    if brand is None:
        raise LetterError(f"dead letter {letter['id']} is of a store that was disconnected: drop it")
    await emit(
        tx, LetterReplayed(connection_id=letter["connection_id"], brand_id=brand, letter_id=letter["id"])
    )


def _event(letter: asyncpg.Record) -> Event:
    try:
        return EVENTS[letter["event_type"]].model_validate(msgspec.json.decode(letter["payload"]))
    except (KeyError, ValidationError, msgspec.DecodeError):
        raise LetterError(
            f"dead letter {letter['id']} is no {letter['event_type']} that can be read: drop it"
        ) from None


async def _send_again(tx: Connection, letter: asyncpg.Record, event: Event) -> None:
    service = letter["service"]
    others = [other for other in event.consumed_by if other != service]
    row = (event.event_id, letter["event_type"], letter["payload"], list(event.consumed_by))
    await tx.execute(queries["others_handled"], event.event_id, others)
    await tx.execute(queries["forget_handled"], event.event_id, service)
    await tx.execute(queries["send_again"], *row)
    await tx.execute("notify backstock_outbox")


async def _revive_job(tx: Connection, letter: asyncpg.Record, event: Event) -> bool:
    if letter["job_state"] is None:
        return False
    job = await tx.fetchrow(queries["revive_job"], letter["job_id"], letter["job_state"])
    if job is None:
        return False
    await emit(
        tx,
        JobFailed(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            job_id=letter["job_id"],
            kind=job["kind"],
            problem=REPLAYED,
            final=False,
        ),
    )
    return True
