"""The commands of `backstock dead-letters`: list, show, replay, drop. What they do is in dead_letters.py."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backstock import dead_letters as letters
from backstock.dead_letters import Filter
from backstock.errors import CommandError
from backstock.home import Home, load_environment
from backstock.terminal import guarded, run
from shared import dead_letters
from shared.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.db import Connection, Pool

T = TypeVar("T")

LOG_WIDTH = 160  # characters

dead_letters_app = typer.Typer(
    help="What could not be handled: list, show, replay or drop it.", no_args_is_help=True
)

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Letters by their ids.")]
Brand = Annotated[str | None, typer.Option("--brand", help="Only this brand's.")]
Type = Annotated[str | None, typer.Option("--type", help=f"Only this event, or {', '.join(letters.TEXTS)}.")]
Service = Annotated[str | None, typer.Option("--service", help="Only what this service could not handle.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Died since 2026-11-22, 2026-11-22T10:30Z, or 2h, 7d ago."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Died before; like --since.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
Every = Annotated[bool, typer.Option("--all", help="Every open letter.")]


@dead_letters_app.command("list")
@guarded
def list_letters(
    ids: Ids = None,
    brand: Brand = None,
    type_: Type = None,
    service: Service = None,
    since: Since = None,
    until: Until = None,
    closed: Annotated[bool, typer.Option("--all", help="Also what was replayed or dropped.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=letters.MOST)] = letters.SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List what could not be handled, the oldest first; open letters unless told otherwise."""
    wanted = _filter(ids, brand, type_, service, since, until, closed=closed)

    async def work(pool: Pool) -> list[dict[str, object]]:
        return [letters.summary(row) for row in await letters.find(pool, wanted, limit)]

    found = _in_database(work)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    if not found:
        print("No dead letters.")
        return
    table = Table("id", "died", "brand", "service", "type", "state", "error", box=None)
    for row in found:
        died = f"{row['diedAt']:%Y-%m-%d %H:%M:%S}"
        cells = [row["id"], died, row["brand"], row["service"], row["type"], row["state"], row["error"]]
        table.add_row(*(Text("" if cell is None else _plain(str(cell))) for cell in cells))
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(table)
    if len(found) == limit:
        print(f"The first {limit}; --limit shows more.")


@dead_letters_app.command("show")
@guarded
def show(
    id_: Annotated[int, typer.Argument(metavar="ID")],
    unmasked: Annotated[
        bool, typer.Option("--unmasked", help="Show a person's data and all other values, too.")
    ] = False,
) -> None:
    """Show one letter with what it holds, as JSON; values that may be personal are masked."""
    wanted = Filter(ids=[id_], closed=True)

    async def work(pool: Pool) -> dict[str, object]:
        (row,) = await letters.find(pool, wanted, 1)
        return await letters.detail(pool, row, os.environ.get("BACKSTOCK_SECRET_KEYS", ""), unmasked=unmasked)

    print(msgspec.json.format(msgspec.json.encode(_in_database(work))).decode())


def _command(
    verb: str, work: Callable[[Connection, int], Awaitable[None]], help_: str, done: str, *, ask_from: int
) -> Callable[..., None]:
    """A command that does the work to every letter that is meant; asks if there are `ask_from` or more."""

    def command(
        ids: Ids = None,
        brand: Brand = None,
        type_: Type = None,
        service: Service = None,
        since: Since = None,
        until: Until = None,
        everything: Every = False,
        yes: Yes = False,
    ) -> None:
        wanted = _filter(ids, brand, type_, service, since, until)
        count = _work(wanted, work, verb, everything=everything, ask_from=0 if yes else ask_from)
        print(done.format(count))

    command.__name__, command.__doc__ = verb, f"{help_}: those named, those that match the options, or --all."
    return dead_letters_app.command()(guarded(command))


def _filter(
    ids: list[int] | None,
    brand: str | None,
    type_: str | None,
    service: str | None,
    since: str | None,
    until: str | None,
    *,
    closed: bool = False,
) -> Filter:
    now = datetime.now(UTC)
    from_, to = letters.moment(since, "--since", now), letters.moment(until, "--until", now)
    return letters.checked(Filter(ids or [], brand, type_, service, from_, to, closed))


def _work(
    wanted: Filter,
    work: Callable[[Connection, int], Awaitable[None]],
    verb: str,
    *,
    everything: bool,
    ask_from: int,
) -> int:
    """Do it to all that match; asks first if there are `ask_from` or more (0: never)."""
    if wanted.is_empty and not everything:
        raise CommandError(f"which? Give ids of letters, an option such as --brand, or --all to {verb} all")

    async def inner(pool: Pool) -> int:
        rows = await letters.find(pool, wanted, letters.MOST)
        if rows and ask_from and len(rows) >= ask_from:
            _confirm(f"{verb.capitalize()} {len(rows)} dead letter{'s' if len(rows) > 1 else ''}?")
        return await letters.each(pool, rows, work)

    return _in_database(inner)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Nobody is there to answer: say --yes")
    if not typer.confirm(question):
        raise CommandError("nothing was done")


def _in_database(work: Callable[[Pool], Awaitable[T]]) -> T:
    configure_logs("backstock", "WARNING")
    load_environment(Home.here())

    async def with_pool() -> T:
        async with letters.database(os.environ.get("DATABASE_URL", "")) as pool:
            return await work(pool)

    return run(with_pool())


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


replay = _command(
    "replay",
    dead_letters.replay,
    "Send letters again",
    "Replayed {}. What cannot be handled again comes back to `backstock dead-letters list`.",
    ask_from=2,
)
_command("drop", dead_letters.drop, "Give letters up, and erase what they hold", "Dropped {}.", ask_from=1)
