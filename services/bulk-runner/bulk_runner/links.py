"""Where a bulk file may be fetched from: the address is Shopify's word, and our network is not its business.

A public https host by name, or the origin that SHOPIFY_ORIGIN sets (a local Shopify). The request follows no
redirect. A name that resolves to something else between this look and the request gets a TLS handshake and
no more, for its certificate is verified.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import httpx

Resolve: TypeAlias = Callable[[str], Awaitable[list[str]]]

RESOLVED_WITHIN = 10.0  # seconds
_NAT64 = ip_network("64:ff9b::/96")  # IPv4 as networks without it see it
_NAME = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*")  # an address's last label is a number


async def addresses(host: str) -> list[str]:
    """What a name resolves to; nothing if it does not, which is for the request to find out."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVED_WITHIN):
            found = await loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


async def why_refused(link: str, origin: str, resolve: Resolve = addresses) -> str:
    """What is wrong with a bulk file's address, or an empty text. `origin`: where the shop answers."""
    try:
        url, ours = httpx.URL(link), httpx.URL(origin)
    except httpx.InvalidURL:
        return "it is no address"
    if (url.scheme, url.netloc, url.userinfo) == (ours.scheme, ours.netloc, b""):
        return ""
    host = url.raw_host.decode()
    wrong = {
        "it holds credentials": bool(url.userinfo),
        "it is not https": url.scheme != "https",
        f"it names port {url.port}": url.port is not None,
        "its host is not a public name": not _NAME.fullmatch(host),
    }
    if any(wrong.values()):
        return next(why for why, applies in wrong.items() if applies)
    found = await resolve(host)
    if not all(_is_public(ip_address(address.partition("%")[0])) for address in found):
        return f"{host} leads into a private network"
    return ""


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner:
            return _is_public(inner)
    return address.is_global and not address.is_multicast
