"""Bulk files whose lines nobody thought of: what is a row lands, what is none is set aside alone.

Deterministic as it stands; `make fuzz` draws other lines from a new seed (FUZZ_EXAMPLES, SEED).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass

import pytest
from fuzzing import EXAMPLES, drawn, fuzz, mutate
from hypothesis import given
from hypothesis import strategies as st
from stores import TOKEN, Store, make_store

from bulk_runner.bulk_operation import LINES, PATHS
from bulk_runner.documents import bulk_document
from bulk_runner.resources.nodes import UNREADABLE, kind_of
from shared.secrets import TokenVault

pytestmark = pytest.mark.xdist_group("fuzz-lines")

SENT = "2026-11-20T10:00:00+00:00"
WITHIN = 90  # seconds for a whole sync in which each file is written twice
SPOILED = min(EXAMPLES, 250) or 60  # lines of a resource; more than 1,000 of a store would end its sync
RUN = "mutation($q: String!) { bulkOperationRunQuery(query: $q) { bulkOperation { id } } }"
POLL = "query($id: ID!) { bulkOperation(id: $id) { status url } }"
TIME = re.compile(r"[12]\d{3}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:?\d\d)")
AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")
GID = re.compile(r"gid://shopify/(\w+)/[0-9]+(\?.*)?", re.DOTALL)
PARENTS = {"LineItem": "Order", "ProductVariant": "Product"}


def bag(amount):
    return {"shopMoney": {"amount": amount}}


NODES = [
    (
        "orders",
        {
            "id": "gid://shopify/Order/1",
            "createdAt": "2026-11-20T10:00:00Z",
            "updatedAt": "2026-11-20T10:00:00Z",
            "totalPriceSet": bag("10.0"),
            "tags": ["a"],
            "test": False,
            "customer": {"id": "gid://shopify/Customer/3"},
            "refunds": [
                {
                    "id": "gid://shopify/Refund/5",
                    "createdAt": "2026-11-20T10:00:00Z",
                    "totalRefundedSet": bag("1.0"),
                }
            ],
        },
    ),
    (
        "orders",
        {
            "id": "gid://shopify/LineItem/4",
            "quantity": 2,
            "originalTotalSet": bag("10.0"),
            "__parentId": "gid://shopify/Order/1",
        },
    ),
    (
        "customers",
        {
            "id": "gid://shopify/Customer/3",
            "numberOfOrders": "1",
            "amountSpent": {"amount": "1.0", "currencyCode": "EUR"},
            "updatedAt": "2026-11-20T10:00:00Z",
        },
    ),
    (
        "products",
        {"id": "gid://shopify/Product/7", "publishedAt": "2026-11-20T10:00:00Z", "totalInventory": 1},
    ),
    (
        "products",
        {
            "id": "gid://shopify/ProductVariant/8",
            "price": "1.00",
            "position": 1,
            "inventoryItem": {"id": "gid://shopify/InventoryItem/9", "tracked": True},
            "__parentId": "gid://shopify/Product/7",
        },
    ),
]


@st.composite
def spoiled(draw, line: bytes) -> bytes:
    """What became of the line: values swapped or gone, bytes cut or put in, or something else altogether."""
    if draw(st.booleans()):
        node = json.loads(line)
        for _ in range(draw(st.integers(1, 3))):
            mutate(draw, node)
        return json.dumps(node).encode()
    at, some = draw(st.integers(0, len(line))), draw(st.binary(min_size=1, max_size=4))
    ways = [
        line[:at],
        line[:at] + some + line[at:],
        line[:-1] + b"," + line[1:],  # every key twice
        line.replace(b"shopify", b"other", 1),
        re.sub(rb"(Order|Customer|Product)\b", b"Metafield", line, count=1),
        some,
    ]
    # A line feed would make two lines of it; a blank one would be none.
    return draw(st.sampled_from(ways)).replace(b"\n", b"\x0b").strip() or b"?"


HOPELESS = [  # what can never be a row, `x` standing for an id
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","updatedAt":"yesterday"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","updatedAt":"NaN"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","createdAt":"infinity"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","createdAt":"0001-01-01T00:00:00Z"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","createdAt":"2026-13-41T99:00:00Z"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","amountSpent":{"amount":"NaN","currencyCode":"EUR"}}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","amountSpent":{"amount":"1e400","currencyCode":"EUR"}}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","amountSpent":{"amount":NaN}}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","amountSpent":{"amount":Infinity}}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","numberOfOrders":"1_0"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","numberOfOrders":"99999999999999999999"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/' + b"9" * 5000 + b'"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/99999999999999999999"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/-1"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/\xd9\xa1"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","note":"\xff\xfe"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","note":"a\x00b"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","note":"\\ud800"}',
    b'{"id":"gid:\\/\\/shopify\\/Customer\\/1","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"id":"gid:\\/\\/shopify\\/Metafield\\/1","key":"x"}',
    b'{"id":"gid:\\/\\/shopify\\/LineItem\\/1","title":"no order"}',
    b'{"title":"no id"}',
    b'{"customer":{"id":"gid:\\/\\/shopify\\/Customer\\/1"}}',
    b'"text"',
    b"null",
    b"[]",
    b"1e999",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"note":"' + b"x" * 3_000_000 + b'"}',
]


@fuzz(400)
@given(st.data())
def test_a_spoiled_line_is_rows_or_unreadable(data):
    """Nothing else comes out of the parsers; times and amounts in the rows are times and amounts."""
    resource, node = data.draw(st.sampled_from(NODES))
    line = data.draw(spoiled(json.dumps(node).encode()))
    with contextlib.suppress(*UNREADABLE):
        kind = kind_of(line, LINES[resource])
        decoded = kind.decoder.decode(line)
        for row in kind.rows(decoded, SENT) + kind.audited(decoded):
            for name, value in row._asdict().items():
                assert value is None or not name.endswith("_at") or TIME.fullmatch(value)
                assert (
                    value is None
                    or name not in ("total_price", "amount_spent", "amount", "price")
                    or (AMOUNT.fullmatch(value))
                )


@dataclass(frozen=True)
class File:
    """The lines of a resource's bulk file: as Shopify wrote them, and as they arrive."""

    written: list[bytes]
    arriving: list[bytes]

    @property
    def text(self) -> str:
        """The file with an empty line, CR LF and an unfinished last line; a character a byte."""
        return (b"\n\r\n" + b"\r\n".join(self.arriving)).decode("latin-1")

    @property
    def bad(self) -> set[bytes]:
        """The lines that Shopify did not write."""
        return set(self.arriving) - set(self.written)

    @property
    def untouched(self) -> set[str]:
        """The numbers of the objects that arrive whole, with their children and refunds."""
        arriving = set(self.arriving)
        touched = {_root(line) for line in self.written if line not in arriving}
        nodes = [json.loads(line) for line in self.written if _root(line) not in touched]
        nodes += [refund for node in nodes for refund in node.get("refunds", ())]
        return {node["id"].rpartition("/")[2] for node in nodes}


def _root(line: bytes) -> str:
    node = json.loads(line)
    return node.get("__parentId", node["id"])


@st.composite
def spoiled_line_of(draw, lines: list[bytes]) -> tuple[int, bytes]:
    """Which line, and what became of it."""
    number = draw(st.integers(0, len(lines) - 1))
    return number, draw(spoiled(lines[number]))


def arriving(lines: list[bytes]) -> File:
    """The file with some of its lines spoiled, hopeless ones between them, and the last one torn."""
    became = dict(drawn(spoiled_line_of(lines), SPOILED))
    found = [became.get(number, line) for number, line in enumerate(lines)]
    apart = len(found) // len(HOPELESS)
    for number, line in enumerate(HOPELESS):
        found.insert(number * apart, line)
    return File(lines, [*found, b'{"id":"gid:\\/\\/shopify\\/Order\\/1","na'])


async def bulk_files(store: Store, until) -> dict[str, list[bytes]]:
    """What Shopify would give us for each resource, by line."""

    async def ask(query, **variables):
        answer = await store.http.post(
            f"{store.services.sandbox_url}/{store.shop}/admin/api/2026-10/graphql.json",
            json={"query": query, "variables": variables},
            headers={"X-Shopify-Access-Token": TOKEN},
        )
        return answer.json()["data"]

    async def written(gid):
        return (await ask(POLL, id=gid))["bulkOperation"]["url"]

    async def file_of(resource, path):
        document = bulk_document(path, f"Bulk{resource.capitalize()}", "", "# of the test")
        gid = (await ask(RUN, q=document))["bulkOperationRunQuery"]["bulkOperation"]["id"]
        url = await until(lambda: written(gid), 20, f"the file of {resource}")
        return (await store.http.get(url)).content.split(b"\n")[:-1]

    return {resource: await file_of(resource, path) for resource, path in PATHS.items()}


async def shows_what_was_set_aside(store: Store) -> bool:
    query = "select sync_status, problem::text from control.connections where brand_id = $1"
    row = await store.db.fetchrow(query, store.brand)
    return bool(row["sync_status"] == "attention" and '"code": "set_aside"' in row["problem"])


async def test_spoiled_files_lose_no_good_line(services, until):
    """All that Shopify wrote whole is here; any other line is a row of its own or a letter with its text."""
    processes = await services.start_all()
    async with make_store(services, orders=3 * SPOILED, customers=2 * SPOILED, products=SPOILED) as store:
        written = await bulk_files(store, until)
        files = {resource: await asyncio.to_thread(arriving, lines) for resource, lines in written.items()}
        # Twice: a file with a line that is no JSON is had written once more.
        texts = {resource: file.text for resource, file in files.items()}
        await store.post("load", bulk=texts, times=2, encoding="latin-1")
        connection = await store.connect()
        await until(lambda: shows_what_was_set_aside(store), WITHIN)

        for process in processes.values():
            assert process.alive
            assert "event.failed" not in process.log
        letters = await texts_aside(store, connection)
        for resource, file in files.items():
            aside = letters.pop(resource)
            assert aside <= file.bad
            assert {*HOPELESS, file.arriving[-1]} <= aside
            assert [line[:200] for line in file.bad - aside if not is_well_formed(line, resource)] == []
        assert letters == {}
        untouched = set.union(*(file.untouched for file in files.values()))
        assert len(untouched) > SPOILED
        assert [text for text in await store.differences() if text.split()[1] in untouched] == []
        assert untouched & await ids_that_an_audit_brought(store) == set()
        query = (
            "select array_agg(attempt) from control.bulk_operations o join control.jobs j on j.id = o.job_id "
            "where o.connection_id = $1 and j.kind like 'bulk_%'"
        )
        assert await store.db.fetchval(query, connection) == [2, 2, 2]


async def texts_aside(store: Store, connection: int) -> dict[str, set[bytes]]:
    """The texts of the dead letters by resource; each has its reason."""
    vault = TokenVault((store.services.env["BACKSTOCK_SECRET_KEYS"],))
    query = "select event_type, sealed, error from control.dead_letters where connection_id = $1"
    found: dict[str, set[bytes]] = {}
    for letter in await store.db.fetch(query, connection):
        assert letter["error"]
        found.setdefault(letter["event_type"].removeprefix("bulk line "), set()).add(
            vault.unseal(letter["sealed"]).removesuffix(b"\r")
        )
    return found


async def ids_that_an_audit_brought(store: Store) -> set[str]:
    """What had not come by its line."""
    tables = ("orders", "order_line_items", "refunds", "customers", "products", "product_variants")
    query = "select id::text from shopify.{} where source = 'audit'"
    return {row["id"] for row in await store.db.fetch(" union all ".join(map(query.format, tables)))}


def is_well_formed(line: bytes, resource: str) -> bool:
    """By Python's own JSON: an object of a type that was asked for, with its parent, times and amounts."""
    node = json.loads(line)
    kind = GID.fullmatch(node["id"])[1]
    times = [value for name, value in node.items() if name.endswith("At") and value is not None]
    parent = GID.fullmatch(node["__parentId"])[1] if kind in PARENTS else None
    return kind in LINES[resource] and parent == PARENTS.get(kind) and all(map(TIME.fullmatch, times))
