"""A bulk result as batches of lines, from any byte on, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from shared.errors import BackstockError

LARGEST_BATCH = 2 * 1024 * 1024  # bytes; about 3,000 orders: a commit every few hundred milliseconds
LARGEST_LINE = 32 * 1024 * 1024  # bytes; beyond this it is no line of Shopify's
TIMEOUT = httpx.Timeout(30.0, connect=10.0)  # seconds without a byte


class DownloadError(BackstockError):
    """The file could not be read to its end; another try goes on where this one stopped."""


class LinkExpiredError(DownloadError):
    """The file's address is no longer valid."""


class CorruptFileError(BackstockError):
    """The file holds what Shopify cannot have written."""


@dataclass(frozen=True)
class Lines:
    """Whole lines, without their ends, and the offset in the file after them."""

    lines: list[bytes]
    end: int


async def read_lines(http: httpx.AsyncClient, url: str, offset: int, size: int) -> AsyncIterator[Lines]:
    """Batches of whole lines from `offset` on, of a file of `size` bytes; empty lines are none.

    An unfinished last line is given out only where it ends the file: else the connection has cut it.
    """
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
    try:
        async with http.stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
            skip = _bytes_to_skip(response, offset)
            async for batch in _batches(response.aiter_bytes(), skip, offset, size):
                yield batch
    except httpx.TransportError as error:
        raise DownloadError(f"the download broke off: {type(error).__name__}") from error


def _bytes_to_skip(response: httpx.Response, offset: int) -> int:
    match response.status_code:
        case 206:
            return 0
        case 200:
            return offset  # the server does not know ranges
        case 403 | 404 | 410 | 400:
            raise LinkExpiredError(f"the file's address is no longer valid (HTTP {response.status_code})")
        case 416:
            raise DownloadError(f"the file ends before byte {offset}")
        case status:
            raise DownloadError(f"the file server answered HTTP {status}")


async def _batches(chunks: AsyncIterator[bytes], skip: int, offset: int, size: int) -> AsyncIterator[Lines]:
    buffer = bytearray()
    async for chunk in chunks:
        fresh = chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))
        buffer += fresh
        if len(buffer) >= LARGEST_BATCH:
            end = buffer.rfind(b"\n") + 1
            if end:
                yield Lines(_split(buffer[:end]), offset := offset + end)
                del buffer[:end]
            elif len(buffer) > LARGEST_LINE:
                raise CorruptFileError(f"the file has a line longer than {LARGEST_LINE} bytes")
    end = len(buffer) if offset + len(buffer) == size else buffer.rfind(b"\n") + 1
    if end:
        yield Lines(_split(buffer[:end]), offset + end)


def _split(whole: bytearray) -> list[bytes]:
    return [line for line in bytes(whole).split(b"\n") if not line.isspace() and line]
