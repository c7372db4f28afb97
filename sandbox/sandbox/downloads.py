"""GET /bulk-results/<hex>?...: a signed file with byte ranges, as cloud storage serves it."""

import re
from collections.abc import AsyncIterator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sandbox.admin import Reset
from sandbox.results import Result, Results
from sandbox.world import World

CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_DENIED = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message></Error>"


async def download(world: World, request: Request) -> Response:
    found = _find(world.results, request)
    if found is None:
        return Response(
            _DENIED.format("ExpiredToken", "Invalid argument."), 403, media_type="application/xml"
        )
    site = world.sites.get(found.shop)
    faults = site.faults if site else None
    if faults and (broken := faults.strike("download_http")):
        return Response(_DENIED.format("ServiceUnavailable", "Simulated."), int(broken.get("status", 503)))
    span = _span(request.headers.get("range"), found.size)
    if span is None:
        return Response("", 416, {"Content-Range": f"bytes */{found.size}"})
    start, end = span
    cut = faults.strike("download_cut") if faults else None
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if disposition := request.query_params.get("response-content-disposition"):
        headers["Content-Disposition"] = disposition.encode("latin-1", "replace").decode("latin-1")
    status = 200
    if "range" in request.headers:
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{found.size}"
    sent_to = min(end, start + int(cut.get("bytes", 0))) if cut is not None else end
    if sent_to == start and end > start:
        return Reset()
    return StreamingResponse(
        _chunks(found.path.open("rb"), start, sent_to), status, headers, "application/jsonl"
    )


def _find(results: Results, request: Request) -> Result | None:
    query = request.query_params
    return results.open(request.path_params["name"], query.get("Expires", ""), query.get("Signature", ""))


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; all of it for a senseless header; None beyond the end."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else None


async def _chunks(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK, end - start))):
            start += len(chunk)
            yield chunk
