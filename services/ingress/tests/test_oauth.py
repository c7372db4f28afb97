"""Connecting by OAuth and by client credentials: a running ingress, the sandbox's consent page, browsers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import os
import time
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import asyncpg
import httpx
import pytest
from cryptography.fernet import Fernet

from ingress.browsers import Browsers
from ingress.signatures import is_redirect_signed
from shared.secrets import TokenVault
from shared.widget_tokens import WidgetTokens

NUMBERS = itertools.count(1)
SECRET = "sandbox-client-secret"
CODE_GIVES = {"token_kind": "offline", "brand_id": "acme", "sync_status": "connecting"}


class Merchant:
    """A browser on its way through OAuth, with the services' database and the sandbox in sight."""

    def __init__(self, services, browser, db):
        self.services, self.browser, self.db = services, browser, db

    async def begin(self, shop, brand="acme", browser=None):
        """Click on "connect"; returns the answer."""
        url = f"{self.services.ingress_url}/auth/shopify"
        return await (browser or self.browser).get(url, params={"shop": shop, "brand": brand})

    async def consent(self, shop, brand="acme", browser=None):
        """Click on "connect" and, at Shopify, on "Install"; returns the parameters of the way back."""
        begun = await self.begin(shop, brand, browser)
        assert begun.status_code == 302, begun.text
        answer = await (browser or self.browser).get(begun.headers["location"] + "&auto=1")
        assert answer.status_code == 302, answer.text
        assert answer.headers["location"].startswith(f"{self.services.ingress_url}/auth/shopify/callback?")
        return dict(parse_qsl(urlsplit(answer.headers["location"]).query))

    async def come_back(self, pairs, browser=None):
        """Load the callback with these parameters; pairs or a dict."""
        url = f"{self.services.ingress_url}/auth/shopify/callback?{urlencode(pairs)}"
        return await (browser or self.browser).get(url)

    async def connect(self, shop, brand="acme"):
        """The whole way; returns the last answer."""
        return await self.come_back(await self.consent(shop, brand))

    async def api(self, method, path, body=None):
        url = self.services.ingress_url + path
        return await self.browser.request(method, url, json=body, headers=self.services.headers)

    async def new_shop(self, **wanted):
        """Another shop of the sandbox; returns its domain."""
        shop = f"oauth-{os.getpid()}-{next(NUMBERS)}.myshopify.com"
        wanted = {"shop": shop, "orders": 0, "customers": 0, "products": 0, **wanted}
        answer = await self.browser.post(f"{self.services.sandbox_url}/_sandbox/stores", json=wanted)
        assert answer.status_code == 201, answer.text
        return shop

    async def sandbox(self, shop, method="GET", path="", **body):
        url = f"{self.services.sandbox_url}/_sandbox/stores/{shop}{path}"
        answer = await self.browser.request(method, url, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def connection(self, brand="acme"):
        return await self.db.fetchrow("select * from control.connections where brand_id = $1", brand)

    async def count(self, event):
        return await self.db.fetchval("select count(*) from control.outbox where event_type = $1", event)


@asynccontextmanager
async def running(services, **env):
    process = await services.start("ingress", **env)
    db = await asyncpg.connect(services.env["DATABASE_URL"])
    try:
        async with httpx.AsyncClient(timeout=30) as browser:
            yield Merchant(services, browser, db)
    finally:
        await db.close()
    for secret in ("shpat_", "shprt_", SECRET, "code="):
        assert secret not in process.log, "a secret in the log"


@pytest.fixture
async def merchant(services):
    """A running ingress and a browser."""
    async with running(services) as found:
        yield found


def signed(pairs, secret=SECRET):
    """The parameters with a signature that fits them."""
    kept = {name: value for name, value in pairs.items() if name != "hmac"}
    message = "&".join(f"{name}={kept[name]}" for name in sorted(kept))
    return {**kept, "hmac": hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()}


def assert_problem(answer, status, *words):
    """It is a problem document of that status that says what it should, and nothing secret."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    for word in words:
        assert word in answer.json()["title"] + ": " + answer.json()["detail"]
    assert SECRET not in answer.text
    assert "shpat_" not in answer.text


def test_a_redirects_signature_is_checked_as_documented():
    """The published example fits; the order of names and `signature` do not matter; any change does."""
    example = {
        "timestamp": "1337178173", "code": "0907a61c0c8d55e99db179b68161bc00",
        "state": "0.6784241404160823", "shop": "some-shop.myshopify.com",
        "hmac": "700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf",
    }  # fmt: skip
    assert is_redirect_signed(example, ["hush"])
    assert is_redirect_signed(dict(reversed(example.items())) | {"signature": "old"}, ["new", "hush"])
    assert not is_redirect_signed(example, ["other"])
    assert not is_redirect_signed(example, [])
    assert not is_redirect_signed({**example, "hmac": "ä"}, ["hush"])
    for name, value in example.items():
        assert not is_redirect_signed({**example, name: value + "0"}, ["hush"])
        assert not is_redirect_signed({n: v for n, v in example.items() if n != name}, ["hush"])


def test_a_browsers_cookie_cannot_be_made_up():
    """What we issued is read, also after a rotation of keys; everything else is nobody."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    cookie = Browsers((old,)).issue()
    assert Browsers((old,)).read(cookie) == Browsers((new, old)).read(cookie) == cookie.partition(".")[0]
    wrong = ("", ".", "a.b", cookie + "0", "0" + cookie, cookie.partition(".")[0], "ä.ö")
    assert [Browsers((new, old)).read(value) for value in wrong] == [None] * len(wrong)
    assert Browsers((new,)).read(cookie) is None


async def test_the_way_to_shopify(merchant):
    """302 to the shop's consent page with what Shopify needs; a cookie that scripts cannot read."""
    shop = await merchant.new_shop()
    answer = await merchant.begin(shop.upper())
    assert answer.status_code == 302
    location = urlsplit(answer.headers["location"])
    assert answer.headers["location"].startswith(
        f"{merchant.services.sandbox_url}/{shop}/admin/oauth/authorize?"
    )
    query = parse_qs(location.query)
    state = query.pop("state")[0]
    assert query == {
        "client_id": ["sandbox-client-id"],
        "scope": ["read_orders,read_all_orders,read_customers,read_products,read_inventory"],
        "redirect_uri": [f"{merchant.services.ingress_url}/auth/shopify/callback"],
    }
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/auth/shopify" in cookie
    assert "Secure" not in cookie  # INGRESS_URL is http here
    assert answer.headers["cache-control"] == "no-store"
    stored = await merchant.db.fetchrow("select * from control.oauth_states")
    assert stored["state_hash"] == hashlib.sha256(state.encode()).digest()
    assert (stored["shop"], stored["brand_id"], stored["used_at"]) == (shop, "acme", None)


async def test_behind_https_the_cookie_is_secure(services):
    """With an https INGRESS_URL below a path, cookie and redirect follow it."""
    async with running(services, INGRESS_URL="https://example.com/in") as merchant:
        answer = await merchant.begin(await merchant.new_shop())
        assert "Secure" in answer.headers["set-cookie"]
        assert "Path=/in/auth/shopify" in answer.headers["set-cookie"]
        assert "redirect_uri=https%3A%2F%2Fexample.com%2Fin%2Fauth" in answer.headers["location"]


async def test_who_may_not_begin(merchant):
    """A shop or brand that is none is 400; a brand of another store is 409, and does not say whose."""
    shop, other = await merchant.new_shop(), await merchant.new_shop()
    wrong_shops = ("", "shop.example.com", "a.myshopify.com.evil.com", f"{shop}/x", "evil.com#.myshopify.com")
    for wrong in wrong_shops:
        assert_problem(await merchant.begin(wrong), 400, "shop")
    for wrong in ("", "-a", "a b", "a" * 101, "a\n"):
        assert_problem(await merchant.begin(shop, wrong), 400, "brand")
    assert (await merchant.connect(shop)).status_code == 302
    refused = await merchant.begin(other)
    assert_problem(refused, 409, "Brand in use")
    assert shop not in refused.text
    assert await merchant.db.fetchval("select count(*) from control.oauth_states") == 1


async def test_without_a_client_id_nobody_begins(services):
    """OAuth that is not configured says which setting is missing."""
    async with running(services, SHOPIFY_CLIENT_ID="") as merchant:
        assert_problem(await merchant.begin(await merchant.new_shop()), 503, "SHOPIFY_CLIENT_ID")


async def test_the_way_back_connects_the_store(merchant):
    """The tokens are stored encrypted with scopes and ends; one ConnectionCreated; on to the dashboard."""
    shop = await merchant.new_shop()
    answer = await merchant.connect(shop)
    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["location"].startswith(merchant.services.status_url + "/?")
    query = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    keys = (merchant.services.env["BACKSTOCK_SECRET_KEYS"],)
    assert query["brand"] == WidgetTokens(keys).brand(query["token"]) == "acme"

    row = await merchant.connection()
    assert {name: row[name] for name in CODE_GIVES} == CODE_GIVES
    assert row["scopes"] == sorted(
        ["read_orders", "read_all_orders", "read_customers", "read_products", "read_inventory"]
    )
    vault = TokenVault(keys)
    assert vault.decrypt(row["access_token"]).startswith("shpat_")
    assert vault.decrypt(row["refresh_token"]).startswith("shprt_")
    assert 3500 < row["access_token_expires_at"].timestamp() - time.time() <= 3600
    assert 89 < (row["refresh_token_expires_at"].timestamp() - time.time()) / 86400 <= 90
    assert await merchant.count("ConnectionCreated") == 1


async def test_scopes_that_the_merchant_withheld_are_on_record(services):
    """What was granted is stored, with what it implies; the log says what is missing."""
    async with running(services, SHOPIFY_SCOPES="write_orders,read_all_orders,read_customers") as merchant:
        shop = await merchant.new_shop(scopes=["write_orders", "read_customers"])
        assert (await merchant.connect(shop)).status_code == 302
        assert (await merchant.connection())["scopes"] == ["read_customers", "read_orders", "write_orders"]
        log = services.processes[0].log
        assert '"missing": ["read_all_orders"], "event": "oauth.scopes_missing"' in log


async def test_a_page_that_is_loaded_again_leads_to_the_dashboard(merchant):
    """Reloads, and ten callbacks at the same moment, connect once; another browser gets nowhere with it."""
    shop = await merchant.new_shop()
    pairs = await merchant.consent(shop)
    answers = await asyncio.gather(*(merchant.come_back(pairs) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {302}
    assert (await merchant.come_back(pairs)).status_code == 302
    assert await merchant.count("ConnectionCreated") == 1
    log = await merchant.sandbox(shop, path="/log")
    assert log["counters"]["tokens_asked"] == 1

    async with httpx.AsyncClient() as stranger:
        assert_problem(await merchant.come_back(pairs, stranger), 403, "Another browser")
        await merchant.begin(await merchant.new_shop(), "other", stranger)  # it has a cookie of its own now
        assert_problem(await merchant.come_back(pairs, stranger), 403, "State not valid")
    await merchant.db.execute("update control.oauth_states set expires_at = now() where brand_id = 'acme'")
    assert_problem(await merchant.come_back(pairs), 403, "State not valid")


async def test_a_forged_callback_is_refused(merchant):
    """Tampered, unsigned, doubled, foreign, stale or unknown: each has its status, and nothing is stored."""
    shop, other = await merchant.new_shop(), await merchant.new_shop()
    pairs = await merchant.consent(shop)
    again = list(pairs.items())
    now = int(time.time())
    cases = [
        (401, "Bad signature", {**pairs, "hmac": "0" * 64}),
        (401, "Bad signature", {**pairs, "shop": other}),
        (401, "Bad signature", {**pairs, "code": "f" * 32}),
        (401, "Bad signature", {**pairs, "extra": "1"}),
        (401, "Bad signature", signed(pairs, "wrong")),
        (400, "twice", [*again, ("shop", other)]),
        (400, "twice", [*again, ("hmac", pairs["hmac"])]),
        (400, "hmac is missing", {n: v for n, v in pairs.items() if n != "hmac"}),
        (400, "state is missing", signed({n: v for n, v in pairs.items() if n != "state"})),
        (400, "code is missing", signed({**pairs, "code": ""})),
        (400, "myshopify.com", signed({**pairs, "shop": "evil.example.com"})),
        (400, "myshopify.com", signed({**pairs, "shop": shop + "\n"})),
        (400, "form", signed({**pairs, "timestamp": "soon"})),
        (400, "form", signed({**pairs, "code": "a&b"})),
        (400, "too many", signed({**pairs, "host": "x" * 5000})),
        (400, "too old", signed({**pairs, "timestamp": str(now - 3600)})),
        (400, "clock", signed({**pairs, "timestamp": str(now + 3600)})),
        (403, "State not valid", signed({**pairs, "shop": other})),
        (403, "State not valid", signed({**pairs, "state": "made-up"})),
    ]
    for status, words, forged in cases:
        assert_problem(await merchant.come_back(forged), status, words, "/auth/shopify")
    assert_problem(
        await merchant.browser.get(f"{merchant.services.ingress_url}/auth/shopify/callback?%ff=%ff"), 400
    )
    assert await merchant.connection() is None
    assert (await merchant.come_back(pairs)).status_code == 302  # none of them used the state up


async def test_an_expired_state_is_refused_and_forgotten(merchant):
    """Ten minutes after the start it is too late; the next start clears the row away."""
    shop = await merchant.new_shop()
    pairs = await merchant.consent(shop)
    lives = "select extract(epoch from expires_at - now())::int from control.oauth_states"
    assert 590 < await merchant.db.fetchval(lives) <= 600
    await merchant.db.execute("update control.oauth_states set expires_at = now() - interval '1 second'")
    assert_problem(await merchant.come_back(pairs), 403, "State not valid", "start again")
    await merchant.begin(shop)
    assert await merchant.db.fetchval("select count(*) from control.oauth_states") == 1


async def test_two_tabs_of_a_browser_do_not_disturb_each_other(merchant):
    """Two stores are begun before the first comes back; both are connected."""
    first, second = await merchant.new_shop(), await merchant.new_shop()
    one, two = await merchant.consent(first, "one"), await merchant.consent(second, "two")
    assert (await merchant.come_back(one)).status_code == 302
    assert (await merchant.come_back(two)).status_code == 302
    assert [(await merchant.connection(brand))["shop"] for brand in ("one", "two")] == [first, second]


async def test_a_code_that_shopify_refuses_is_a_problem_with_a_remedy(merchant):
    """A used code is 422, an outage 503; both leave nothing, and the next start succeeds."""
    shop = await merchant.new_shop()
    pairs = await merchant.consent(shop)
    refused = await merchant.come_back(signed({**pairs, "code": "0" * 32}))
    assert_problem(refused, 422, "authorization code was not found", "/auth/shopify")
    assert refused.json()["code"] == "invalid_request"
    assert_problem(await merchant.come_back(pairs), 403)  # its state is gone with it

    pairs = await merchant.consent(shop)
    await merchant.sandbox(shop, "PATCH", "/faults", token_http={"status": 503})
    assert_problem(await merchant.come_back(pairs), 503, "does not answer")
    await merchant.sandbox(shop, "PATCH", "/faults", token_http={"status": 503, "times": 2})
    assert (await merchant.connect(shop)).status_code == 302  # two bad answers are sat out
    assert await merchant.db.fetchval("select count(*) from control.connections") == 1


async def test_both_secrets_count_while_they_are_rotated(services):
    """A redirect that Shopify signed with the previous secret is taken; tokens are asked for with the new."""
    async with running(services, SHOPIFY_CLIENT_SECRET_PREVIOUS="the-old-secret") as merchant:
        pairs = await merchant.consent(await merchant.new_shop())
        assert_problem(await merchant.come_back(signed(pairs, "an-older-secret")), 401)
        assert (await merchant.come_back(signed(pairs, "the-old-secret"))).status_code == 302


async def test_a_shop_of_another_brand_stays_with_it(merchant):
    """409 after consent, and the first brand's connection is as it was."""
    shop = await merchant.new_shop()
    assert (await merchant.connect(shop, "acme")).status_code == 302
    before = await merchant.connection("acme")
    answer = await merchant.connect(shop, "second")
    assert_problem(answer, 409, "Shop in use")
    assert "acme" not in answer.text
    assert await merchant.connection("acme") == before
    assert await merchant.connection("second") is None


async def test_the_apps_own_credentials_connect_a_store_of_its_organization(merchant):
    """Without accessToken: a day's token by client credentials; refusals come with their remedy."""
    shop = await merchant.new_shop()
    body = {"brandId": "acme", "shop": shop}
    answer = await merchant.api("POST", "/api/connections", body)
    assert answer.status_code == 201, answer.text
    row = await merchant.connection()
    assert (row["token_kind"], row["refresh_token"]) == ("client_credentials", None)
    assert 86_300 < row["access_token_expires_at"].timestamp() - time.time() < 86_400
    gone = {"brandId": "other", "shop": "not-there.myshopify.com"}
    assert_problem(await merchant.api("POST", "/api/connections", gone), 422, "gives no access token")


async def test_a_store_that_comes_back_is_the_same_connection(merchant, until):
    """Uninstalled, then installed again: same id, new tokens, webhooks registered, the sync begins anew."""
    shop = await merchant.new_shop()
    await merchant.connect(shop)
    first = await merchant.connection()
    await until(lambda: merchant.count("WebhooksRegistered"))
    await merchant.sandbox(shop, "POST", "/uninstall")
    gone = await merchant.connection()
    assert gone["sync_status"] == "removed"
    assert [gone[c] for c in ("access_token", "refresh_token", "access_token_expires_at")] == [None] * 3

    await merchant.connect(shop)
    again = await merchant.connection()
    assert (again["id"], again["sync_status"], again["removed_at"]) == (first["id"], "connecting", None)
    assert again["access_token"] != first["access_token"]
    assert await merchant.count("ConnectionCreated") == 2
    await until(lambda: _registered(merchant, shop))


async def test_an_uninstallation_that_nobody_heard_of_is_noticed(merchant, until):
    """Shopify has none of our webhooks any more: connecting again registers them and begins anew."""
    shop = await merchant.new_shop()
    await merchant.connect(shop)
    await until(lambda: merchant.count("WebhooksRegistered"))
    await merchant.sandbox(shop, "PATCH", "/faults", webhook_drop=True)
    await merchant.sandbox(shop, "POST", "/uninstall")
    assert (await merchant.connection())["removed_at"] is None

    await merchant.connect(shop)
    assert await merchant.count("ConnectionCreated") == 2
    await until(lambda: _registered(merchant, shop))
    await merchant.connect(shop)  # once more, with everything in place: a new token and nothing else
    assert await merchant.count("ConnectionCreated") == 2


async def test_late_news_of_an_uninstallation_do_not_undo_the_next_installation(merchant):
    """The webhook that Shopify sends again after the store was connected again changes nothing."""
    shop = await merchant.new_shop()
    await merchant.connect(shop)
    sent = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - 60))
    uri = f"{merchant.services.ingress_url}/webhooks/shopify"
    await merchant.connect(shop)
    news = {"topic": "app/uninstalled", "body": "{}", "uri": uri}
    late = await merchant.sandbox(shop, "POST", "/deliver", **news, headers={"X-Shopify-Triggered-At": sent})
    assert late["status"] == 200
    assert (await merchant.connection())["removed_at"] is None
    await merchant.sandbox(shop, "POST", "/deliver", **news)
    assert (await merchant.connection())["sync_status"] == "removed"


async def test_a_rotated_key_goes_on_to_read_and_then_is_not_needed(services, until):
    """With a new key in front, ingress reads old tokens and encrypts them anew; then the old key can go."""
    async with running(services) as merchant:
        shop = await merchant.new_shop()
        await merchant.connect(shop)
        before = await merchant.connection()
        new = Fernet.generate_key().decode()
        both = f"{new},{services.env['BACKSTOCK_SECRET_KEYS']}"
        await services.processes[0].kill(15)
        await services.start("ingress", BACKSTOCK_SECRET_KEYS=both)

        async def resealed():
            return (await merchant.connection())["access_token"] != before["access_token"]

        await until(resealed)
        after = await merchant.connection()
        old_vault, new_vault = TokenVault((services.env["BACKSTOCK_SECRET_KEYS"],)), TokenVault((new,))
        for column in ("access_token", "refresh_token"):
            assert new_vault.decrypt(after[column]) == old_vault.decrypt(before[column])


async def _registered(merchant, shop):
    return len((await merchant.sandbox(shop))["webhook_subscriptions"]) == 17
