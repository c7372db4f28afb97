"""Reading a bulk file over HTTP, from any byte on: a real server on a real socket, with its moods."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from bulk_runner import download
from bulk_runner.download import CorruptFileError, DownloadError, Lines, LinkExpiredError, read_lines

FILE = b"".join(b'{"id":"gid:\\/\\/shopify\\/Order\\/%d"}\n' % n for n in range(1000))
SIZE = len(FILE)


class FileServer:
    """Serves one file; `ranges`: whether it knows Range; `cut`: bytes after which it hangs up."""

    def __init__(self, content=FILE, *, ranges=True, cut=None, status=None, chunked=False):
        self.content, self.ranges, self.cut, self.status, self.chunked = content, ranges, cut, status, chunked
        self.asked = []

    async def answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.asked.append(headers)
        start = int(headers["range"].removeprefix("bytes=").rstrip("-")) if "range" in headers else 0
        status, body = 200, self.content
        if self.status:
            status, body = self.status, b"<Error>\nno such file\n</Error>\n"
        elif start >= len(self.content) and "range" in headers and self.ranges:
            status, body = 416, b"<Error>\nno such range\n</Error>\n"
        elif "range" in headers and self.ranges:
            status, body = 206, self.content[start:]
        writer.write(f"HTTP/1.1 {status} X\r\nConnection: close\r\n".encode())
        if self.chunked:
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 7):
                piece = body[at : at + 7]
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[: self.cut])
        await writer.drain()
        writer.close()


@asynccontextmanager
async def served(**mood):
    """A client and the address of a server in that mood."""
    files = FileServer(**mood)
    server = await asyncio.start_server(files.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient() as http:
        yield http, f"http://127.0.0.1:{port}/bulk.jsonl", files


async def read_all(http, url, offset=0, size=SIZE):
    """Every line and the last offset; what came before an error is in `got`."""
    got: list[Lines] = []
    try:
        async for batch in read_lines(http, url, offset, size):
            got.append(batch)  # noqa: PERF401 - what came before an error counts
    except (DownloadError, CorruptFileError) as error:
        return got, error
    return got, None


def text(batches):
    return b"".join(line + b"\n" for batch in batches for line in batch.lines)


async def test_a_file_is_read_whole():
    """All lines come, once and in order; the last offset is the file's size; nobody asks for a range."""
    async with served() as (http, url, files):
        got, error = await read_all(http, url)
    assert error is None
    assert text(got) == FILE
    assert got[-1].end == len(FILE)
    assert "range" not in files.asked[0]
    assert files.asked[0]["accept-encoding"] == "identity"
    assert "x-shopify-access-token" not in files.asked[0]


async def test_batches_are_bounded_and_end_at_lines(monkeypatch):
    """However the bytes arrive, a batch is whole lines of about the size that is set; offsets add up."""
    monkeypatch.setattr(download, "LARGEST_BATCH", 1000)
    async with served(chunked=True) as (http, url, _):
        got, error = await read_all(http, url)
    assert error is None
    assert text(got) == FILE
    assert len(got) > 20
    done = 0
    for batch in got:
        size = sum(len(line) + 1 for line in batch.lines)
        done += size
        assert batch.end == done
        assert size <= 1000 + 64 * 1024


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("lines", [1, 500, 999])
async def test_reading_goes_on_at_an_offset(ranges, lines):
    """From a line's end on only the rest comes, also from a server that ignores Range and sends all."""
    offset = sum(len(line) + 1 for line in FILE.split(b"\n")[:lines])
    async with served(ranges=ranges) as (http, url, files):
        got, error = await read_all(http, url, offset)
    assert error is None
    assert text(got) == FILE[offset:]
    assert got[-1].end == len(FILE)
    assert files.asked[0]["range"] == f"bytes={offset}-"


@pytest.mark.parametrize("cut", [0, 10, 5000, len(FILE) - 1])
async def test_a_cut_file_gives_its_whole_lines_and_can_be_taken_up(cut):
    """The connection ends early: whole lines count, the torn one does not; the rest comes from there on."""
    async with served(cut=cut) as (http, url, files):
        got, error = await read_all(http, url)
        assert isinstance(error, DownloadError)
        assert FILE.startswith(text(got))
        assert len(text(got)) <= cut
        offset = got[-1].end if got else 0
        assert offset == len(text(got))
        files.cut = None
        rest, error = await read_all(http, url, offset)
    assert error is None
    assert text(got) + text(rest) == FILE


async def test_an_unfinished_last_line_is_not_given_out():
    """Shopify ends every line, the last one too: what has no end was torn, whatever the server says."""
    async with served(content=b'{"id":1}\n{"id":2}\n{"id"') as (http, url, _):
        got, error = await read_all(http, url)
    assert error is None
    assert [batch.lines for batch in got] == [[b'{"id":1}', b'{"id":2}']]
    assert got[-1].end == 18


async def test_a_last_line_that_ends_the_file_is_given_out():
    """Shopify counted its bytes: nothing is missing but the line feed, and whoever parses it judges it."""
    content = b'{"id":1}\n{"id":2}\n{"id"'
    async with served(content=content) as (http, url, _):
        got, error = await read_all(http, url, size=len(content))
        rest, no_error = await read_all(http, url, 9, size=len(content))
    assert error is no_error is None
    assert got == [Lines([b'{"id":1}', b'{"id":2}', b'{"id"'], len(content))]
    assert rest == [Lines([b'{"id":2}', b'{"id"'], len(content))]


async def test_empty_lines_are_none_and_odd_separators_split_nothing():
    """Only a line feed ends a line; what holds nothing but blanks is no object, but its bytes count."""
    content = b'\n{"a":"\xe2\x80\xa8"}\r\n \r\n\n'
    async with served(content=content) as (http, url, _):
        got, error = await read_all(http, url)
    assert error is None
    assert got == [Lines([b'{"a":"\xe2\x80\xa8"}\r'], len(content))]


async def test_an_empty_file_has_no_lines():
    """A file without a byte is no batch at all."""
    async with served(content=b"") as (http, url, _):
        assert await read_all(http, url) == ([], None)


async def test_a_long_line_is_read_in_one_piece(monkeypatch):
    """A line longer than a batch is still one line; one beyond the limit is an error, not all of memory."""
    monkeypatch.setattr(download, "LARGEST_BATCH", 10_000)
    long = b'{"note":"' + b"x" * 300_000 + b'"}\n'
    async with served(content=long + FILE) as (http, url, _):
        got, error = await read_all(http, url)
        assert error is None
        assert text(got) == long + FILE
        monkeypatch.setattr(download, "LARGEST_LINE", 100_000)
        got, error = await read_all(http, url)
    assert got == []
    assert isinstance(error, CorruptFileError)
    assert "longer than 100000" in str(error)


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_an_expired_address_says_so(status):
    """Google's answers to a signature that is over mean: ask Shopify for a new address."""
    async with served(status=status) as (http, url, _):
        got, error = await read_all(http, url)
    assert got == []
    assert isinstance(error, LinkExpiredError)
    assert str(status) in str(error)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_a_servers_trouble_is_no_content(status):
    """An error page is never taken for lines, and may be tried again."""
    async with served(status=status) as (http, url, _):
        got, error = await read_all(http, url)
    assert got == []
    assert isinstance(error, DownloadError)
    assert not isinstance(error, LinkExpiredError)


async def test_an_offset_behind_the_end_is_no_content():
    """416's error page is not taken for lines: the file has shrunk, which is an error."""
    async with served() as (http, url, _):
        got, error = await read_all(http, url, len(FILE))
    assert got == []
    assert isinstance(error, DownloadError)


async def test_nobody_listens():
    """A refused connection is a broken download, to be tried again."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with httpx.AsyncClient() as http:
        got, error = await read_all(http, f"http://127.0.0.1:{port}/")
    assert got == []
    assert "broke off" in str(error)
