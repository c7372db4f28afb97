"""Listening sockets: opened at an address, or handed over open by whoever starts the process.

    127.0.0.1:8001, [::1]:8001   opened here
    fd://3                       open already, as descriptor 3

`backstock up` and systemd keep the socket while a service starts again: whoever connects meanwhile waits in
the kernel, and is not refused.
"""

from __future__ import annotations

import re
import socket

from shared.errors import SettingError

BACKLOG = 2048  # connections that may wait to be accepted; the kernel's own limit may be lower
HANDED_OVER = re.compile(r"fd://(\d{1,6})")


def bind_address(value: str) -> tuple[str, int]:
    """`127.0.0.1:8001` -> (`127.0.0.1`, 8001)."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:  # noqa: PLR2004 - the largest port
        raise ValueError("is not HOST:PORT, for example 127.0.0.1:8001")
    return host.strip("[]"), int(port)


def check_bind(value: str) -> None:
    """ValueError for what is neither an address nor a socket that is handed over."""
    if not HANDED_OVER.fullmatch(value):
        bind_address(value)


def listen(setting: str, bind: str) -> socket.socket:
    """A listening socket at an address. SettingError names the setting, what is in the way and the remedy."""
    try:
        host, port = bind_address(bind)
    except ValueError as error:
        raise SettingError(f"{setting} {error}") from None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # the rest repeats the address
        raise SettingError(
            f"{setting}: cannot listen on {bind} ({reason}): stop what uses it, "
            f"or set {setting} to another address"
        ) from error


def listen_or_adopt(setting: str, bind: str) -> socket.socket:
    """As `listen`, or the socket that was handed over."""
    match = HANDED_OVER.fullmatch(bind)
    if match is None:
        return listen(setting, bind)
    try:
        return _adopt(int(match[1]))
    except OSError as error:
        raise SettingError(
            f"{setting}: {bind} is no socket to listen on ({error.strerror}): hand one over, "
            f"or set {setting} to an address"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Where it listens, for a person: `host:port`, or the path of a Unix socket."""
    name = listener.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)


def _adopt(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    try:
        listener.listen(BACKLOG)  # of no effect on one that listens; an error for one that cannot
    except OSError:
        listener.detach()
        raise
    return listener
