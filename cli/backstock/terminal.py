"""How a command ends: a problem of ours is one line and exit code 1, Ctrl-C is 130, and never a traceback."""

from __future__ import annotations

import asyncio
import sys
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from backstock.up import ending_in_order
from shared.errors import BackstockError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

FAILED = 1
INTERRUPTED = 130  # the shell's code for "ended by Ctrl-C"


def guarded(function: Callable[P, T]) -> Callable[P, T]:
    """A problem of ours is one line on stderr and exit code 1, never a traceback."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BackstockError as problem:
            print(f"backstock: {problem}", file=sys.stderr)
            raise typer.Exit(FAILED) from None

    return inner


def run(work: Coroutine[None, None, T]) -> T:
    """Do the work; Ctrl-C and SIGTERM end it in order."""
    try:
        return asyncio.run(ending_in_order(work))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None
