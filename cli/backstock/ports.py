"""Free ports of this machine for what is started in a moment.

Between looking and listening somebody else may take a port. The operating system hands out its own ports to
whoever connects or asks for any, so ours lie below those; and every process of ours locks the ones it chose
until it ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
OURS = range(20_000, 30_000)  # Linux hands out ports from 32768 on, macOS from 49152 on


def free_port() -> int:
    """A port that nobody listens on, and that no other process of this user is given while this one runs.

    Raises OSError when there is none.
    """
    turns = _turns()
    for _ in OURS:
        port = next(turns)
        if _is_mine(port) and port_is_free(port):
            return port
    raise OSError(f"no port from {OURS[0]} to {OURS[-1]} of {HOST} is free")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # else connections that a stopped server left in TIME_WAIT would look like a listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@cache
def _turns() -> Iterator[int]:
    """Each port in turn, from anywhere on: what was chosen once is not chosen again for long."""
    start = secrets.randbelow(len(OURS))
    return cycle((*OURS[start:], *OURS[:start]))


def _is_mine(port: int) -> bool:
    """Lock one byte of a file for each port: it is let go of when this process ends, however it ends."""
    if (locks := _locks()) is None:
        return True
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _locks() -> int | None:
    """The file, open as long as this process lives. None where there can be none: then chance must do."""
    path = Path(tempfile.gettempdir()) / f"backstock-ports-{os.getuid()}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
