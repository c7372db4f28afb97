"""What the documentation says and can be checked by a machine, is checked."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import asyncpg
import httpx
import pytest

from backstock.main import app
from shared.events import EVENTS
from shared.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "sandbox" / "README.md"])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
SQL = re.compile(r"^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"`((?:GET|POST|DELETE) [^`]+)`")
SETTING = re.compile(r"`([A-Z][A-Z_]+)`")
BESIDE_OPENAPI = {  # answered without the framework, or pages
    "POST /webhooks/shopify",
    "GET /api/sync/{brand_id}/events",
    "GET /widget.js",
    "GET /",
    "GET /connections",
}
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Revisit when"]
LONGEST_RECORD = 40  # lines


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _within_a_transaction(sql: str) -> str:
    return re.sub(r"^(begin|commit);$", "", sql, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link names a file of the repository, and its anchor a heading there."""
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        found = (page.parent / target).resolve()
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            assert anchor.removeprefix("#") in map(_anchor, headings), (
                f"{page.name} links to {target}{anchor}"
            )


async def test_the_page_of_tables_is_current(database_url):
    """docs/tables.md says what the migrations' comments say; each table and column has one."""
    spec = importlib.util.spec_from_file_location("generate_tables", ROOT / "docs" / "generate_tables.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = await generator.render(database_url)

    assert page == (ROOT / "docs" / "tables.md").read_text("utf-8"), (
        "run: python docs/generate_tables.py DATABASE_URL > docs/tables.md"
    )
    assert "|  |" not in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_sql_runs(database_url, page):
    """Every piece of SQL that a page offers runs on a migrated database."""
    connection = await asyncpg.connect(database_url)
    try:
        for sql in SQL.findall(page.read_text("utf-8")):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(_within_a_transaction(sql))
            await transaction.rollback()
    finally:
        await connection.close()


@pytest.mark.parametrize("service", ["ingress", "status"])
async def test_every_call_is_explained(services, service):
    """docs/api.md has each call that the services describe as OpenAPI, and no other."""
    process = await services.start(service)
    async with httpx.AsyncClient() as http:
        paths = (await http.get(f"{process.url}/schema/openapi.json")).json()["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    text = (ROOT / "docs" / "api.md").read_text("utf-8").partition(f"## {service.capitalize()}")[2]
    rows = [row for row in text.partition("\n## ")[0].splitlines() if row.startswith("| `")]
    named = {call for row in rows for call in CALL.findall(row)}

    assert named - BESIDE_OPENAPI == described


def test_every_setting_is_explained():
    """The table in docs/operations.md names the settings that the services read, no more and no fewer."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = text.partition("## Settings")[2].partition("\n## ")[0]
    names = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    named = {name for cell in names for name in SETTING.findall(cell)}

    assert named == {name.upper() for name in Settings.model_fields}


def test_every_command_is_explained():
    """The table of commands in README.md has each command of the CLI."""
    text = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"^\| `backstock ([a-z-]+)", text, re.MULTILINE))
    group = {info.name or info.callback.__name__.replace("_", "-") for info in app.registered_commands}
    group |= {info.name for info in app.registered_groups}

    assert named == group


def test_every_event_is_explained():
    """docs/route.md lists each event with the services that consume it."""
    text = (ROOT / "docs" / "route.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", text, re.MULTILINE))

    assert {name: rows.get(name, "").strip() for name in EVENTS} == {
        name: ", ".join(event.consumed_by) for name, event in EVENTS.items()
    }


@pytest.mark.parametrize("record", sorted(ROOT.glob("docs/decisions/*.md")), ids=lambda record: record.name)
def test_decisions_have_one_form(record):
    """A number, a sentence, five sections, one page."""
    text = record.read_text("utf-8")

    assert text.startswith(f"# {record.name[:4]}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert len(text.splitlines()) <= LONGEST_RECORD
