"""Bulk operations: CREATED -> RUNNING -> COMPLETED | FAILED, or CANCELING -> CANCELED, at most five at a
time.

An operation sees the shop as it was when it was run. It writes its file at a set pace, and its counters
move in lumps, as Shopify's do. `bulk_operations/finish` is sent whatever the end.
"""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sandbox import bulk_check, clock, jsonl
from sandbox.context import JSON, Context, FieldError
from sandbox.execute import Request
from sandbox.model import BulkOperation
from sandbox.roots import number_of

if TYPE_CHECKING:
    from sandbox.site import Site

ACTIVE = ("CREATED", "RUNNING", "CANCELING")
START_DELAY = 0.05  # how long an operation stays CREATED
CANCEL_DELAY = 0.1  # and CANCELING
LUMP = 0.25  # counters move this often, in seconds
SLICE = 0.004  # how long the event loop may be kept from its other work
BURST = 256 * 1024  # written at once


class Bulk:
    def __init__(self, site: "Site") -> None:
        self.site = site
        self.operations: dict[int, BulkOperation] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.canceling: dict[int, asyncio.Event] = {}
        self.loaded: dict[str, list[bytes]] = {}  # root field -> exact bytes of its next operations

    def current(self, kind: str) -> BulkOperation | None:
        return max(self.operations.values(), key=lambda op: op.id, default=None) if kind == "QUERY" else None

    def run(self, query: str, *, grouped: bool, context: Context) -> JSON:
        if found := bulk_check.problems(query):
            errors = [{"field": ["query"], "message": message, "code": "INVALID"} for message in found]
            return {"bulkOperation": None, "userErrors": errors}
        active = [op for op in self.operations.values() if op.status in ACTIVE]
        if len(active) >= self.site.settings.max_operations:
            return {"bulkOperation": None, "userErrors": [_in_progress(active)]}
        store = self.site.store
        operation = BulkOperation(store.next_id("BulkOperation"), query, store.now())
        self.operations[operation.id] = operation
        self.canceling[operation.id] = asyncio.Event()
        frozen = Context(store.snapshot(), context.scopes, oldest_order=context.oldest_order)
        task = asyncio.create_task(self._live(operation, frozen, context.base_url, grouped=grouped))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.site.log.count("bulk_started")
        return {"bulkOperation": operation, "userErrors": []}

    def cancel(self, id_: str) -> JSON:
        operation = self.operations.get(number_of(id_, "BulkOperation"))
        if operation is None:
            return {
                "bulkOperation": None,
                "userErrors": [{"field": ["id"], "message": "Bulk operation does not exist"}],
            }
        if operation.status not in ACTIVE:
            message = f"A bulk operation cannot be canceled when it is {operation.status.lower()}"
            return {"bulkOperation": operation, "userErrors": [{"field": None, "message": message}]}
        never = self.site.faults.strike("bulk_cancel")
        if never and "refused" in never:
            return {"bulkOperation": operation, "userErrors": [{"field": None, "message": never["refused"]}]}
        operation.status = "CANCELING"
        if never is None:
            self.canceling[operation.id].set()
        self.site.log.count("bulk_cancelled")
        return {"bulkOperation": operation, "userErrors": []}

    async def _live(self, operation: BulkOperation, context: Context, base: str, *, grouped: bool) -> None:
        path = self.site.results.new_path()
        try:
            await self._wait(operation, START_DELAY)
            if operation.status == "CREATED":
                operation.status = "RUNNING"
            await Writing(self, operation, path).write(context, grouped=grouped)
            self._finish(operation, path, base)
        except FieldError as error:
            denied = error.extensions["code"] == "ACCESS_DENIED"
            self._fail(operation, "ACCESS_DENIED" if denied else "INTERNAL_SERVER_ERROR")
        except StoppedError as stopped:
            await self._stop(operation, stopped.fault, path, base)
        self.site.webhooks.emit("BULK_OPERATIONS_FINISH", finished(operation, self.site.store.zone))

    async def _wait(self, operation: BulkOperation, seconds: float) -> None:
        """Sleeps, and wakes at once when somebody cancels."""
        try:
            await asyncio.wait_for(self.canceling[operation.id].wait(), seconds)
        except TimeoutError:
            return

    def _finish(self, operation: BulkOperation, path: Path, base: str) -> None:
        expired = self.site.faults.strike("bulk_expired") is not None
        operation.status = "EXPIRED" if expired else "COMPLETED"
        operation.completed_at = self.site.store.now()
        if operation.object_count:
            if short := self.site.faults.strike("bulk_short"):
                _drop_last_lines(path, short.get("lines", 1))
            name = self.site.results.publish(path, self.site.store.shop)
            operation.file_size = self.site.results.files[name].size
            if not self.site.faults.strike("bulk_no_url"):
                link = self.site.results.link(base, name, operation.id, expired=expired)
                wrong = self.site.faults.strike("bulk_link")
                operation.url = wrong["url"] if wrong else link
        self.site.log.count("bulk_completed")

    async def _stop(self, operation: BulkOperation, fault: JSON | None, path: Path, base: str) -> None:
        if fault is None:
            await asyncio.sleep(CANCEL_DELAY)
            operation.status = "CANCELED"
            path.unlink(missing_ok=True)  # noqa: ASYNC240  a local file, gone in microseconds
            return
        if fault.get("partial") and operation.object_count:
            name = self.site.results.publish(path, self.site.store.shop)
            operation.partial_url = self.site.results.link(base, name, operation.id)
        self._fail(operation, fault.get("error_code", "INTERNAL_SERVER_ERROR"))

    def _fail(self, operation: BulkOperation, code: str) -> None:
        operation.status, operation.error_code = "FAILED", code
        operation.completed_at = self.site.store.now()
        self.site.log.count("bulk_failed")

    async def close(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class StoppedError(Exception):
    """Canceled (no fault), or failed on purpose."""

    def __init__(self, fault: JSON | None) -> None:
        super().__init__()
        self.fault = fault


class Writing:
    """One file on its way to disk, in slices short enough for everybody else."""

    def __init__(self, bulk: Bulk, operation: BulkOperation, path: Path) -> None:
        self.bulk, self.operation, self.path = bulk, operation, path
        faults = bulk.site.faults
        self.stuck, self.fail = faults.strike("bulk_stuck"), faults.strike("bulk_fail")
        self.lines = self.roots = 0
        self.pace = bulk.site.settings.objects_per_second

    async def write(self, context: Context, *, grouped: bool) -> None:
        request = Request(self.operation.query, None, None)
        root = next(
            iter(request.compiler(context).fields(request.root, request.operation.selection_set).values())
        )
        files = self.bulk.loaded.get(root[0].name.value)
        exact = files.pop(0) if files else None
        with self.path.open("wb") as file:
            if exact is not None:
                self._exact(file, exact)
            else:
                await self._rows(file, request, context, grouped=grouped)
        if self.fail:
            self._show()
            raise StoppedError(self.fail)
        await self._check(last=True)
        self._show()

    def _exact(self, file: BinaryIO, exact: bytes) -> None:
        file.write(exact)
        lines = [line for line in exact.split(b"\n") if line.strip()]
        self.lines, self.roots = len(lines), sum(1 for line in lines if b'"__parentId"' not in line)

    async def _rows(self, file: BinaryIO, request: Request, context: Context, *, grouped: bool) -> None:
        loop_began = began = shown = time.perf_counter()
        buffer = bytearray()
        branches = jsonl.branches(request, request.compiler(context))
        for row, is_root in jsonl.rows(branches, grouped=grouped, seed=self.operation.id):
            buffer += row
            self.lines += 1
            self.roots += is_root
            if self.lines % 64 or (now := time.perf_counter()) - began < SLICE:
                continue
            file.write(buffer)
            buffer.clear()
            ahead = self.lines / self.pace - (now - loop_began) if self.pace else 0
            await asyncio.sleep(max(0.0, ahead))
            await self._check()
            if now - shown > LUMP:
                self._show()
                shown = now
            began = time.perf_counter()
        file.write(buffer)
        if self.pace and (late := self.lines / self.pace - (time.perf_counter() - loop_began)) > 0:
            await self.bulk._wait(self.operation, late)  # noqa: SLF001  its own part

    async def _check(self, *, last: bool = False) -> None:
        """Canceled, failed or frozen by now?"""
        if self.stuck and (last or self.lines >= self.stuck.get("after", 0)):
            self._show()
            await self.bulk.canceling[self.operation.id].wait()
        if self.bulk.canceling[self.operation.id].is_set():
            raise StoppedError(None)
        if self.fail and self.lines >= self.fail.get("after", 1 << 62):
            self._show()
            raise StoppedError(self.fail)

    def _show(self) -> None:
        self.operation.object_count, self.operation.root_count = self.lines, self.roots


def _drop_last_lines(path: Path, number: int) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-number]))


def _in_progress(active: list[BulkOperation]) -> JSON:
    ids = ", ".join(f"gid://shopify/BulkOperation/{operation.id}" for operation in active)
    message = f"A bulk query operation for this app and shop is already in progress: {ids}."
    return {"field": None, "message": message, "code": "OPERATION_IN_PROGRESS"}


def finished(operation: BulkOperation, zone: str) -> JSON:
    return {
        "admin_graphql_api_id": f"gid://shopify/BulkOperation/{operation.id}",
        "completed_at": clock.local(operation.completed_at, zone),
        "created_at": clock.local(operation.created_at, zone),
        "error_code": operation.error_code and operation.error_code.lower(),
        "status": operation.status.lower(),
        "type": "query",
    }
