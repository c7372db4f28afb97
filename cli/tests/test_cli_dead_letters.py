"""`backstock dead-letters` as an operator runs it, on a real database."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from test_cli_commands import one_line, run

from backstock.dead_letters import masked, moment
from backstock.errors import CommandError
from shared.db import connect
from shared.dead_letters import Aside, bury, set_aside
from shared.errors import BadPayloadError, PermanentError
from shared.events import StagedBatch
from shared.secrets import TokenVault
from shared.trouble import reconsider

__all__ = ["run"]  # a fixture

KEY = Fernet.generate_key().decode()
WEBHOOK = (
    b'{"id":4711,"email":"anna@example.com","customer":{"first_name":"Anna","phone":"+49 30 1"},"total":"x"}'
)


async def fill(url):
    """A live connection with one letter of each kind."""
    pool = await connect(url, service="test", size=1)
    async with pool.acquire() as tx, tx.transaction():
        connection = await tx.fetchval(
            "insert into control.connections (brand_id, shop, sync_status) "
            "values ('acme', 'a.myshopify.com', 'live') returning id"
        )
        event = StagedBatch(connection_id=connection, brand_id="acme", batch_id=1, source="webhook", rows={})
        aside = Aside(uuid4(), "webhook orders/updated", WEBHOOK, BadPayloadError("no anna@example.com"), {})
        await set_aside(tx, aside, "ingress", connection, TokenVault((KEY,)), None)
        await bury(
            tx,
            event_id=event.event_id,
            event_type="StagedBatch",
            service="promoter",
            payload=event.model_dump_json(),
            error=PermanentError("no such batch"),
            deliveries=1,
            event=event,
        )
        await reconsider(tx, connection)
    await pool.close()


async def ask(url, query):
    pool = await connect(url, service="test", size=1)
    try:
        return await pool.fetchval(query)
    finally:
        await pool.close()


def test_letters_are_listed_shown_replayed_and_dropped(run, database_url):
    """Nothing personal is shown unless asked for; what is closed leaves the list, and the brand heals."""
    settings = {"DATABASE_URL": database_url, "BACKSTOCK_SECRET_KEYS": KEY}
    asyncio.run(fill(database_url))
    status = "select sync_status from control.connections"

    table = run("dead-letters", "list", "--brand", "acme", **settings)
    assert "no such batch" in table.stdout, table.stderr
    assert "anna@" not in table.stdout
    (webhook,) = json.loads(run("dead-letters", "list", "--json", "--type", "webhook", **settings).stdout)
    assert (webhook["brand"], webhook["service"], webhook["state"]) == ("acme", "ingress", "open")
    shown = json.loads(run("dead-letters", "show", str(webhook["id"]), **settings).stdout)["payload"]
    assert shown == {
        "id": 4711,
        "email": "***",
        "customer": {"first_name": "***", "phone": "***"},
        "total": "***",
    }
    unmasked = run("dead-letters", "show", "--unmasked", str(webhook["id"]), **settings).stdout
    assert json.loads(unmasked)["payload"] == json.loads(WEBHOOK)

    assert "say --yes" in one_line(run("replay", "--brand", "acme", **settings))
    assert "say --yes" in one_line(run("dead-letters", "drop", "1", **settings))
    assert run("dead-letters", "replay", "--type", "StagedBatch", **settings).stdout.startswith("Replayed 1.")
    assert asyncio.run(ask(database_url, status)) == "attention"
    assert run("dead-letters", "drop", "--yes", str(webhook["id"]), **settings).stdout == "Dropped 1.\n"
    assert asyncio.run(ask(database_url, status)) != "attention"
    kept = "select count(*) from control.dead_letters where sealed is not null"
    assert asyncio.run(ask(database_url, kept)) == 0
    assert run("dead-letters", "list", **settings).stdout == "No dead letters.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "Give ids of letters"),
        (["replay", "99"], "there is no open letter 99"),
        (["list", "--type", "Nothing"], "there is no 'Nothing'; the types are ConnectionCreated"),
        (["list", "--since", "soon"], "--since: 'soon' is no time"),
    ],
)
def test_a_wrong_call_is_one_line(run, database_url, arguments, says):
    """It names what is wrong and what would be right."""
    assert says in one_line(run("dead-letters", *arguments, DATABASE_URL=database_url))


def test_times_are_dates_moments_or_ages():
    """What an operator types: an age counts back from now, a time without a zone is UTC."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert moment("90m", "--since", now) == now - timedelta(minutes=90)
    assert moment("2026-11-22", "--since", now) == datetime(2026, 11, 22, tzinfo=UTC)
    assert moment("2026-11-22T14:00+02:00", "--since", now) == now
    assert moment(None, "--since", now) is None
    with pytest.raises(CommandError, match="--until"):
        moment("2026-13-01", "--until", now)


def test_masking_keeps_keys_and_harmless_values_only():
    """Whatever is not known to be harmless is masked, also in what is no JSON."""
    text = '{"__parentId":"gid://1","note":"x","zip":12345,"n":1,"ok":true,"lines":[{"title":"t"}]}'
    assert masked(text) == {
        "__parentId": "gid://1",
        "note": "***",
        "zip": "***",
        "n": 1,
        "ok": True,
        "lines": [{"title": "***"}],
    }
    assert masked('{"email":"anna@example.com"') == {"unreadable": "27 characters", "keys": ["email"]}
