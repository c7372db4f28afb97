"""Sockets to listen on: opened at an address, or handed over; what cannot be is said in one line."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from shared.errors import SettingError
from shared.listeners import check_bind, listen, listen_or_adopt

HERE = "127.0.0.1:0"


def takes_a_connection(listener):
    with socket.create_connection(listener.getsockname()[:2], timeout=5):
        listener.settimeout(5)
        listener.accept()[0].close()
    return True


def test_an_address_is_listened_on():
    """Connections are taken at it."""
    with listen("INGRESS_BIND", HERE) as listener:
        assert takes_a_connection(listener)


def test_an_address_may_be_of_ipv6():
    """In brackets, as in a URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback ({error.strerror}): enable it to run this test")
    with listen("INGRESS_BIND", "[::1]:0") as listener:
        assert takes_a_connection(listener)


def test_a_busy_port_is_named_with_the_setting_that_changes_it():
    """The line names the setting, the address and the remedy; once let go of, the port is taken at once."""
    with listen("INGRESS_BIND", HERE) as squatter:
        here = f"127.0.0.1:{squatter.getsockname()[1]}"
        with pytest.raises(
            SettingError,
            match=rf"^INGRESS_BIND: cannot listen on {here} \([^()]+\): .*set INGRESS_BIND to another",
        ):
            listen("INGRESS_BIND", here)
    listen("INGRESS_BIND", here).close()


@pytest.mark.parametrize("bind", ["localhost", "fd://3", "", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_told(bind):
    """A wrong setting, not a traceback."""
    with pytest.raises(SettingError, match="STATUS_BIND is not HOST:PORT"):
        listen("STATUS_BIND", bind)


def test_a_socket_that_is_handed_over_keeps_who_waits_in_it():
    """Who connected before anybody accepted is served by whoever adopts the socket."""
    with listen("INGRESS_BIND", HERE) as held, socket.create_connection(held.getsockname(), timeout=5):
        with closing(listen_or_adopt("INGRESS_BIND", f"fd://{os.dup(held.fileno())}")) as adopted:
            adopted.settimeout(5)
            adopted.accept()[0].close()
        with closing(listen_or_adopt("INGRESS_BIND", f"fd://{os.dup(held.fileno())}")) as again:
            assert takes_a_connection(again)


def test_what_is_no_socket_to_listen_on_is_told(tmp_path):
    """A closed descriptor, a file, a connection: one line each, and what was there stays open."""
    (tmp_path / "file").touch()
    with (
        (tmp_path / "file").open() as file,
        listen("INGRESS_BIND", HERE) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as connection,
    ):
        for descriptor in (file.fileno(), connection.fileno(), 999_999):
            with pytest.raises(
                SettingError, match=f"^INGRESS_BIND: fd://{descriptor} is no socket to listen on"
            ):
                listen_or_adopt("INGRESS_BIND", f"fd://{descriptor}")
        os.fstat(file.fileno())
        connection.sendall(b"still open")


@pytest.mark.parametrize("bind", ["127.0.0.1:8001", "[::1]:8001", "fd://3"])
def test_settings_take_both(bind):
    """An address or a socket."""
    check_bind(bind)


@pytest.mark.parametrize("bind", ["fd://", "fd://x", "fd://-1", "fd:///dev/null"])
def test_settings_take_nothing_like_it(bind):
    """Neither of the two."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        check_bind(bind)
