"""Access tokens stay valid: renewed once, whoever asks, and stored before they are used."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
from cryptography.fernet import Fernet

from shared.db import connect
from shared.grants import Grant
from shared.secrets import TokenVault
from shared.settings import Settings
from shared.shopify import Shopify, ShopifyUnavailableError, StoreError
from shared.tokens import Tokens, reseal

NUMBERS = itertools.count(1)
KEY = Fernet.generate_key().decode()
HOUR = timedelta(hours=1)
SHOP_NAME = "query { shop { myshopifyDomain } }"

TEN_CALLERS = """
import asyncio, json, sys
from shared.db import connect
from shared.settings import Settings
from shared.shopify import Shopify
from shared.tokens import Tokens

async def main():
    settings = Settings(_env_file=None)
    pool = await connect(settings.database_url, service="ingress")
    shopify = Shopify(settings)
    tokens = Tokens.of(pool, shopify, settings)
    print("ready", flush=True)
    connection_id, refused = json.loads(sys.stdin.readline())
    found = await asyncio.gather(*(tokens.access_token(connection_id, refused) for _ in range(10)))
    print(json.dumps(found))
    await shopify.close()
    await pool.close()

asyncio.run(main())
"""


class Account:
    """A connection whose grant came from the sandbox, and the means to keep it valid."""

    def __init__(self, tokens, settings, http, sandbox_url, shop):
        self.tokens, self.settings, self.http = tokens, settings, http
        self.pool, self.vault = tokens.pool, tokens.vault
        self.sandbox_url, self.shop, self.id = sandbox_url, shop, 0

    async def sandbox(self, method, path="", **body):
        url = f"{self.sandbox_url}/_sandbox/stores/{self.shop}{path}"
        answer = await self.http.request(method, url, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def code(self):
        """What the merchant's consent gives."""
        answer = await self.http.get(
            f"{self.sandbox_url}/{self.shop}/admin/oauth/authorize",
            params={"client_id": "sandbox-client-id", "redirect_uri": "http://x/", "auto": "1"},
        )
        return httpx.URL(answer.headers["location"]).params["code"]

    async def install(self):
        """Exchange a code for an expiring pair, and store it."""
        await self.store(await self.tokens.endpoint.by_code(self.shop, await self.code()))

    async def store(self, grant):
        """Make it the connection's grant."""
        columns = (grant.kind, self.vault.encrypt(grant.access_token), grant.expires_at)
        refresh = self.vault.encrypt(grant.refresh_token) if grant.refresh_token else None
        self.id = await self.pool.fetchval(
            "insert into control.connections (brand_id, shop, token_kind, access_token, "
            "access_token_expires_at, refresh_token) values ('acme', $1, $2, $3, $4, $5) "
            "on conflict (brand_id) do update set token_kind = $2, access_token = $3, "
            "access_token_expires_at = $4, refresh_token = $5 returning id",
            self.shop,
            *columns,
            refresh,
        )

    async def ends_in(self, seconds):
        """As if the token's life were nearly over."""
        await self.pool.execute(
            "update control.connections set access_token_expires_at = now() + $2 * interval '1 second' "
            "where id = $1",
            self.id,
            float(seconds),
        )

    async def stored(self):
        row = await self.pool.fetchrow("select * from control.connections where id = $1", self.id)
        refresh = row["refresh_token"] and self.vault.decrypt(row["refresh_token"])
        return self.vault.decrypt(row["access_token"]), refresh, row["access_token_expires_at"]

    async def asked(self):
        """How often the token endpoint was asked."""
        return (await self.sandbox("GET", "/log"))["counters"].get("tokens_asked", 0)

    async def works(self, token):
        answer = await self.http.post(
            f"{self.sandbox_url}/{self.shop}/admin/api/2026-10/graphql.json",
            json={"query": "{ shop { name } }"},
            headers={"X-Shopify-Access-Token": token},
        )
        return answer.status_code == 200


@pytest.fixture
async def account(database_url, sandbox_server):
    """A connection with an expiring offline token."""
    settings = Settings(
        **{name.lower(): value for name, value in _environment(database_url, sandbox_server).items()}
    )
    shop = f"tokens-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
    pool = await connect(database_url, service="test")
    shopify = Shopify(settings)
    async with httpx.AsyncClient(timeout=20) as http:
        wanted = {"shop": shop, "orders": 0, "customers": 0, "products": 0}
        await http.post(f"{sandbox_server}/_sandbox/stores", json=wanted)
        made = Account(Tokens.of(pool, shopify, settings), settings, http, sandbox_server, shop)
        await made.install()
        yield made
    await shopify.close()
    await pool.close()


def _environment(database_url, sandbox_server):
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1",
        "SHOPIFY_ORIGIN": f"{sandbox_server}/{{shop}}",
        "SHOPIFY_CLIENT_ID": "sandbox-client-id",
        "SHOPIFY_CLIENT_SECRET": "sandbox-client-secret",
        "BACKSTOCK_API_KEY": "0123456789abcdef",
        "BACKSTOCK_SECRET_KEYS": KEY,
    }


async def test_a_token_with_life_left_is_used_as_it_is(account):
    """No renewal before five minutes of the end."""
    first, *_ = await account.stored()
    await account.ends_in(330)
    assert await account.tokens.access_token(account.id) == first
    assert await account.asked() == 1


@pytest.mark.parametrize("seconds", [200, -10])
async def test_a_token_is_renewed_ahead_of_its_end_and_after(account, seconds):
    """The next pair is stored, both halves and the new end, before the token is handed out."""
    first, refresh, _ = await account.stored()
    await account.ends_in(seconds)
    token = await account.tokens.access_token(account.id)
    stored, next_refresh, end = await account.stored()
    assert token == stored != first
    assert next_refresh != refresh
    assert end > datetime.now(UTC) + HOUR * 0.9
    assert await account.works(token)
    assert await account.asked() == 2


async def test_ten_callers_in_each_of_two_processes_renew_once(account):
    """Whoever comes first renews; all twenty get the same new token, and Shopify was asked once."""
    for refused in (False, True):
        first, *_ = await account.stored()
        before = await account.asked()
        await account.ends_in(3000 if refused else -1)
        found = await _in_two_processes(account, first if refused else "")
        stored, *_ = await account.stored()
        assert found == [stored] * 20
        assert stored != first
        assert await account.asked() - before == 1


async def _in_two_processes(account, refused):
    environment = os.environ | _environment(account.settings.database_url, account.sandbox_url)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", TEN_CALLERS,
            env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    line = json.dumps([account.id, refused]).encode() + b"\n"
    answers = await asyncio.gather(*(process.communicate(line) for process in processes))
    return [token for out, _ in answers for token in json.loads(out.splitlines()[-1])]


async def test_a_call_that_is_refused_is_made_again_with_a_new_token(account):
    """A 401 in the middle of the token's life: renewed and asked again; callers notice nothing."""
    first, *_ = await account.stored()
    shop = await account.tokens.shop(account.id)
    await account.sandbox("PATCH", "/faults", token_revoked={"times": 1})
    assert (await shop.query(dict, SHOP_NAME))["shop"]["myshopifyDomain"] == account.shop
    assert (await account.stored())[0] != first
    assert await account.asked() == 2


async def test_a_shop_that_stays_open_follows_its_token(account):
    """An opened shop outlives its token: each call takes the valid one, whoever stored it."""
    shop = await account.tokens.shop(account.id)
    await account.ends_in(-1)
    await shop.query(dict, SHOP_NAME)
    assert await account.asked() == 2
    await account.sandbox("POST", "/tokens", token="shpat_given_by_hand")
    await account.store(Grant("custom", "shpat_given_by_hand"))
    await shop.query(dict, SHOP_NAME)
    await account.pool.execute("update control.connections set access_token = null")
    with pytest.raises(StoreError) as caught:
        await shop.query(dict, SHOP_NAME)
    assert caught.value.problem.code == "disconnected"


async def test_a_token_that_lasts_is_never_renewed(account):
    """A custom app's token is used until Shopify refuses it; then somebody has to connect again."""
    await account.store(Grant("custom", "shpat_lasts"))
    assert await account.tokens.access_token(account.id) == "shpat_lasts"
    with pytest.raises(StoreError) as caught:
        await (await account.tokens.shop(account.id)).query(dict, SHOP_NAME)
    assert caught.value.problem.code == "invalid_token"
    assert "onnect" in caught.value.problem.action
    assert await account.asked() == 1


async def test_the_apps_own_credentials_are_used_again(account):
    """A client-credentials token near its end, or refused, is asked for anew."""
    await account.store(await account.tokens.endpoint.by_credentials(account.shop))
    first, *_ = await account.stored()
    await account.ends_in(100)
    second = await account.tokens.access_token(account.id)
    third = await account.tokens.access_token(account.id, refused=second)
    assert len({first, second, third}) == 3
    assert await account.works(third)
    assert (await account.stored())[0] == third


async def test_a_dead_refresh_token_asks_for_a_new_connection(account):
    """After an uninstallation nothing can be renewed: a StoreError that says what to do, asked once."""
    await account.sandbox("POST", "/uninstall")
    await account.ends_in(-1)
    before = await account.asked()
    with pytest.raises(StoreError) as caught:
        await account.tokens.access_token(account.id)
    assert caught.value.problem.code == "invalid_grant"
    assert "Connect the store again" in caught.value.problem.action
    assert await account.asked() - before == 1


async def test_an_outage_is_sat_out(account):
    """Two bad answers, then a good one: one new token."""
    await account.sandbox("PATCH", "/faults", token_http={"status": 503, "times": 2})
    await account.ends_in(-1)
    token = await account.tokens.access_token(account.id)
    assert await account.works(token)
    assert await account.asked() == 4


async def test_during_a_long_outage_a_living_token_is_used_and_a_dead_one_is_not(account):
    """Ahead of the end an outage costs nothing but a warning; after it the caller is told to try again."""
    first, *_ = await account.stored()
    await account.sandbox("PATCH", "/faults", token_http={"status": 503})
    await account.ends_in(60)
    assert await account.tokens.access_token(account.id) == first
    asked = await account.asked()
    assert await account.tokens.access_token(account.id) == first  # without asking at once again
    assert await account.asked() == asked
    await account.ends_in(-1)
    with pytest.raises(ShopifyUnavailableError):
        await account.tokens.access_token(account.id)
    assert (await account.stored())[0] == first


async def test_a_pair_that_was_lost_on_the_way_is_asked_for_again(account):
    """Shopify's answer did not arrive or was not stored: the old refresh token gives another pair."""
    _, refresh, _ = await account.stored()
    await account.tokens.endpoint.by_refresh(account.shop, refresh)  # and the answer is lost
    await account.ends_in(-1)
    assert await account.works(await account.tokens.access_token(account.id))


async def test_who_lost_the_lease_throws_its_pair_away(account):
    """A process that slept through its lease finds the pair of the one that took over, and uses that."""
    await account.ends_in(-1)
    slow, ask = account.tokens, account.tokens.endpoint.by_refresh

    async def paused(shop, refresh_token):
        grant = await ask(shop, refresh_token)
        await account.pool.execute("update control.leases set expires_at = now() - interval '1 second'")
        account.tokens.endpoint.by_refresh = ask
        other = Tokens.of(account.pool, slow.shopify, account.settings)
        assert await other.access_token(account.id) != grant.access_token
        return grant

    account.tokens.endpoint.by_refresh = paused
    token = await slow.access_token(account.id)
    assert token == (await account.stored())[0]
    assert await account.works(token)
    assert await account.asked() == 3


async def test_a_connection_made_anew_during_a_renewal_keeps_its_own_token(account):
    """The merchant connects again while the old grant is refreshed: the new grant stands."""
    await account.ends_in(-1)
    ask = account.tokens.endpoint.by_refresh

    async def interrupted(shop, refresh_token):
        grant = await ask(shop, refresh_token)
        await account.install()
        return grant

    account.tokens.endpoint.by_refresh = interrupted
    token = await account.tokens.access_token(account.id)
    assert token == (await account.stored())[0]
    assert await account.asked() == 3  # the first grant, the refresh, the second grant


async def test_old_keys_read_and_the_newest_writes(account):
    """Tokens of an old key are encrypted anew, both halves; unreadable ones are left for a person."""
    before = await account.stored()
    new = Fernet.generate_key().decode()
    await account.pool.execute(
        "insert into control.connections (brand_id, shop, access_token) values ('lost', 'lost', $1)",
        TokenVault((Fernet.generate_key().decode(),)).encrypt("shpat_x"),
    )
    await reseal(account.pool, TokenVault((new, KEY)))
    row = await account.pool.fetchrow("select * from control.connections where id = $1", account.id)
    alone = TokenVault((new,))
    assert (alone.decrypt(row["access_token"]), alone.decrypt(row["refresh_token"])) == before[:2]
    await reseal(account.pool, TokenVault((new, KEY)))  # nothing is left to do
    again = await account.pool.fetchrow("select * from control.connections where id = $1", account.id)
    assert again == row


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, '{"error":"invalid_client","error_description":"no"}', "invalid_client"),
        (
            400,
            "Oauth error shop_not_permitted: Client credentials cannot be performed.",
            "shop_not_permitted",
        ),
        (404, "<html>", "token_refused"),
        (302, "", "token_refused"),
        (200, "<html>", "unexpected_answer"),
        (200, '{"access_token": 5}', "unexpected_answer"),
    ],
)
async def test_what_shopify_says_instead_of_a_token(account, status, body, code):
    """Every other answer is a StoreError with a remedy, without a word of the request."""

    def answer(request):
        assert msgspec.json.decode(request.content)["grant_type"] == "client_credentials"
        return httpx.Response(status, text=body)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        endpoint = type(account.tokens.endpoint)(account.settings, http)
        with pytest.raises(StoreError) as caught:
            await endpoint.by_credentials(account.shop)
    problem = caught.value.problem
    assert problem.code == code
    assert problem.action
    assert "sandbox-client-secret" not in repr(problem)


def test_a_grant_does_not_show_its_tokens():
    """Neither token is in the text of a grant."""
    text = repr(Grant("offline", "shpat_secret", refresh_token="shprt_secret"))
    assert "secret" not in text


async def test_unknown_connections_have_no_token(account):
    """A connection that is not there is like one that was disconnected."""
    with pytest.raises(StoreError):
        await account.tokens.access_token(10**9)
