"""GET /auth/shopify -> Shopify's consent page -> GET /auth/shopify/callback -> a connection, its dashboard.

What ties the two calls together is the state, a random text that Shopify hands back. It works once, for
STATE_SECONDS, for one shop and brand, and in the browser that began, which holds a signed cookie. Postgres
knows states and browsers by their hashes only. The same browser may load the callback again: it is sent on
to the dashboard, without another connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import structlog
from litestar import Controller, Request, Response, get
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import Parameter

from ingress.browsers import Browsers
from ingress.connecting import BrandTakenError, connect, refused, unavailable, valid_brand, with_implied
from ingress.signatures import is_redirect_signed, shop_domain
from ingress.starts import Starts
from shared.answers import ProblemError
from shared.db import load_queries
from shared.grants import Grant
from shared.http import problems
from shared.settings import Settings
from shared.shopify import ShopifyUnavailableError, StoreError
from shared.tokens import Tokens
from shared.widget_tokens import WidgetTokens

log = structlog.get_logger()
queries = load_queries("ingress")

START_PATH = "/auth/shopify"
CALLBACK_PATH = START_PATH + "/callback"
COOKIE = "backstock_browser"
STATE_SECONDS = 600  # to log in at Shopify and read what the app asks for
STATE_BYTES = 32
CLOCKS_DIFFER = 300  # seconds between Shopify's timestamp and our clock, with the way in between
FINISHING = 15.0  # seconds a second call waits for the first, which asks Shopify twice
LOOK_AGAIN = 0.1  # seconds
LONGEST_QUERY = 4096  # bytes; Shopify's have about 400
NEEDED = ("code", "hmac", "shop", "state", "timestamp")
PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")

AnyRequest = Request[Any, Any, Any]
Name = Annotated[str, Parameter(max_length=256)]


class OAuth:
    """What the two calls work with."""

    def __init__(self, tokens: Tokens, settings: Settings) -> None:
        self.tokens, self.pool, self.settings = tokens, tokens.pool, settings
        self.browsers = Browsers(settings.secret_keys)
        self.widgets = WidgetTokens(settings.secret_keys)
        self.starts = Starts()

    async def begin(self, shop: str, brand_id: str, cookie: str) -> Response[None]:
        """To Shopify's consent page; ProblemError if this brand cannot have this shop."""
        await self._check_free(shop, brand_id)
        cookie = cookie if self.browsers.read(cookie) else self.browsers.issue()
        state = secrets.token_urlsafe(STATE_BYTES)
        await self.pool.execute(queries["forget_oauth"])
        browser = self.browsers.read(cookie) or ""
        await self.pool.execute(
            queries["begin_oauth"], _hash(state), _hash(browser), shop, brand_id, STATE_SECONDS
        )
        log.info("oauth.begun", brand=brand_id, shop=shop)
        return _redirect(self._consent_page(shop, state), self._cookie(cookie))

    async def finish(self, query: bytes, cookie: str) -> Response[None]:
        """To the dashboard, with a connection behind it; ProblemError says what was wrong, and the remedy."""
        pairs = self._signed(query)
        shop = _shop_of(pairs)
        browser = self.browsers.read(cookie)
        if browser is None:
            raise _other_browser(self.settings.ingress_url)
        key = (_hash(pairs["state"]), _hash(browser), shop)
        brand_id = await self._loaded_again(key)
        if brand_id is None:
            _check_fresh(pairs["timestamp"])
            brand_id = await self._use(key, pairs["code"])
        return _redirect(self._dashboard(brand_id))

    async def _check_free(self, shop: str, brand_id: str) -> None:
        if not self.settings.shopify_client_id:
            raise ProblemError(
                503, "Not configured", "SHOPIFY_CLIENT_ID is not set: copy it from Shopify's Dev Dashboard"
            )
        taken_by = await self.pool.fetchval(queries["shop_of_brand"], brand_id)
        if taken_by not in (None, shop):
            raise _brand_in_use(brand_id)

    def _consent_page(self, shop: str, state: str) -> str:
        query = {
            "client_id": self.settings.shopify_client_id,
            "scope": ",".join(self.settings.scopes),
            "redirect_uri": self.settings.ingress_url + CALLBACK_PATH,
            "state": state,
        }
        return f"{self.settings.shop_url(shop)}/admin/oauth/authorize?{urlencode(query)}"

    def _cookie(self, value: str) -> Cookie:
        public = urlsplit(self.settings.ingress_url)
        return Cookie(
            key=COOKIE,
            value=value,
            path=public.path + START_PATH,
            max_age=STATE_SECONDS,
            secure=public.scheme == "https",
            httponly=True,
            samesite="lax",  # Shopify's redirect is a top-level navigation: "strict" would lose it
        )

    def _signed(self, query: bytes) -> dict[str, str]:
        pairs = _read(query)
        if not is_redirect_signed(pairs, self.settings.client_secrets):
            raise ProblemError(
                401,
                "Bad signature",
                "hmac does not fit the other parameters under the app's secret: "
                "check SHOPIFY_CLIENT_SECRET, then start again at /auth/shopify",
            )
        return pairs

    async def _loaded_again(self, key: tuple[bytes, bytes, str]) -> str | None:
        """The brand of a state that this browser has used; waits for the call that does so just now."""
        deadline = time.monotonic() + FINISHING
        while row := await self.pool.fetchrow(queries["used_oauth"], *key):
            if row["finished_at"] is not None:
                return str(row["brand_id"])
            if time.monotonic() > deadline:
                raise unavailable(key[2])
            await asyncio.sleep(LOOK_AGAIN)
        return None

    async def _use(self, key: tuple[bytes, bytes, str], code: str) -> str:
        """Use the state up and connect its brand; returns the brand."""
        brand_id: str | None = await self.pool.fetchval(queries["use_oauth"], *key)
        if brand_id is None:
            brand_id = await self._loaded_again(key)  # another call was quicker
            if brand_id is None:
                raise _unknown_state()
            return brand_id
        try:
            await self._connect(brand_id, key[2], code)
        except Exception:
            await self.pool.execute(queries["abandon_oauth"], key[0])
            raise
        await self.pool.execute(queries["finish_oauth"], key[0])
        return brand_id

    async def _connect(self, brand_id: str, shop: str, code: str) -> None:
        grant = await self._exchange(shop, code)
        try:
            row = await connect(self.tokens, brand_id, shop, grant)
        except BrandTakenError:
            raise _brand_in_use(brand_id) from None
        granted = with_implied([*row["scopes"], *grant.scopes])
        if missing := [scope for scope in self.settings.scopes if scope not in granted]:
            log.warning("oauth.scopes_missing", connection=row["id"], missing=missing)

    async def _exchange(self, shop: str, code: str) -> Grant:
        try:
            return await self.tokens.endpoint.by_code(shop, code)
        except StoreError as error:
            raise refused(error) from error
        except ShopifyUnavailableError as error:
            raise unavailable(shop) from error

    def _dashboard(self, brand_id: str) -> str:
        token, _ = self.widgets.issue(brand_id)
        return f"{self.settings.status_url}/?{urlencode({'brand': brand_id, 'token': token})}"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _redirect(location: str, *cookies: Cookie) -> Response[None]:
    headers = {"Location": location, **PRIVATE}
    return Response(None, status_code=302, headers=headers, cookies=list(cookies))


def _read(query: bytes) -> dict[str, str]:
    """The decoded parameters of the callback, each there once; ProblemError otherwise."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise _bad_request("the address is not one that Shopify makes") from None
    found = dict(pairs)
    if len(query) > LONGEST_QUERY or len(found) != len(pairs):
        raise _bad_request("a parameter stands there twice, or there are too many")
    if missing := [name for name in NEEDED if not found.get(name)]:
        raise _bad_request(f"{', '.join(missing)} is missing")
    return found


def _shop_of(pairs: dict[str, str]) -> str:
    shop = shop_domain(pairs["shop"])
    if shop is None or shop != pairs["shop"]:
        raise _bad_request("shop is not a domain below myshopify.com")
    if not _CODE.fullmatch(pairs["code"]) or not _TIMESTAMP.fullmatch(pairs["timestamp"]):
        raise _bad_request("code or timestamp has not Shopify's form")
    return shop


def _check_fresh(timestamp: str) -> None:
    if abs(time.time() - int(timestamp)) > CLOCKS_DIFFER:
        raise _bad_request("the redirect is too old; if it is not, this machine's clock is wrong")


def _bad_request(what: str) -> ProblemError:
    return ProblemError(400, "Bad request", f"{what}: start again at /auth/shopify?shop=...&brand=...")


def _other_browser(ingress_url: str) -> ProblemError:
    return ProblemError(
        403,
        "Another browser",
        "this browser did not begin here, or it refuses cookies: "
        f"start again at {ingress_url}/auth/shopify?shop=...&brand=...",
    )


def _too_many(wait: float) -> ProblemError:
    return ProblemError(
        429,
        "Too many starts",
        "this address began too often: wait, then start again",
        headers={"Retry-After": str(math.ceil(wait))},
    )


def _brand_in_use(brand_id: str) -> ProblemError:
    """Without the other store's name: anybody may ask."""
    return ProblemError(
        409, "Brand in use", f"brand {brand_id} belongs to another store: choose another brand for this one"
    )


def _unknown_state() -> ProblemError:
    return ProblemError(
        403,
        "State not valid",
        "state is unknown, used up, too old, or of another shop or browser: "
        "start again at /auth/shopify?shop=...&brand=...",
    )


class OAuthApi(Controller):
    """`/auth/shopify`: where a merchant's browser begins, and where Shopify sends it back."""

    path = START_PATH
    tags = ("oauth",)

    @get(status_code=302, responses=problems(400, 409, 429, 503))
    async def begin(
        self, request: AnyRequest, oauth: NamedDependency[OAuth], shop: Name = "", brand: Name = ""
    ) -> Response[None]:
        """Connect a brand's store: on to Shopify, which asks the merchant."""
        domain = shop_domain(shop)
        if domain is None:
            raise ProblemError(
                400, "Bad request", "shop: give the shop's domain, such as my-store.myshopify.com"
            )
        if wait := oauth.starts.wait(request.client.host if request.client else ""):
            raise _too_many(wait)
        return await oauth.begin(domain, valid_brand(brand, "brand"), request.cookies.get(COOKIE, ""))

    @get("/callback", status_code=302, responses=problems(400, 401, 403, 409, 422, 503))
    async def finish(self, request: AnyRequest, oauth: NamedDependency[OAuth]) -> Response[None]:
        """Shopify sends the merchant back: the store is connected, on to its dashboard."""
        return await oauth.finish(request.scope["query_string"], request.cookies.get(COOKIE, ""))
