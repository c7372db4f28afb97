"""The app's way in: consent, one-time codes, tokens that last or expire, refreshing and client credentials.

A refreshed token's old refresh token stays good until the new pair is first used, so that a lost answer
can be asked for again (Shopify changelog 2026-08-28). Errors are those of Shopify's token endpoint.
"""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from sandbox.context import JSON

if TYPE_CHECKING:
    from sandbox.settings import Settings
    from sandbox.site import Site
    from sandbox.store import Store

REFRESH_SECONDS = 90 * 86_400
CODE_SECONDS = 600
CREDENTIALS_SECONDS = 86_399
OFFLINE = "urn:shopify:params:oauth:token-type:offline-access-token"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class RefusedError(Exception):
    """Answered as HTTP 400 with {"error", "error_description"}."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.body = {"error": error, "error_description": description}


@dataclass
class Grant:
    scopes: tuple[str, ...]
    expires: float | None = None
    replaces: str | None = None  # the refresh token that dies when this grant is first used


@dataclass
class Code:
    scopes: tuple[str, ...]
    expires: float


@dataclass
class Refresh:
    scopes: tuple[str, ...]
    expires: float


class Tokens:
    def __init__(self, scopes: tuple[str, ...]) -> None:
        self.offered = scopes
        self.grants: dict[str, Grant] = {}
        self.codes: dict[str, Code] = {}
        self.refreshes: dict[str, Refresh] = {}

    def allow(self, token: str, scopes: tuple[str, ...]) -> None:
        self.grants[token] = Grant(scopes)

    def check(self, token: str) -> tuple[str, ...] | None:
        """The scopes a token carries, or None."""
        grant = self.grants.get(token)
        if grant is None or (grant.expires is not None and grant.expires < time.time()):
            return None
        if grant.replaces:
            self.refreshes.pop(grant.replaces, None)
            grant.replaces = None
        return grant.scopes

    def revoke(self) -> None:
        self.grants.clear()
        self.refreshes.clear()

    def new_code(self, scope: str) -> str:
        asked = {name.strip() for name in scope.split(",") if name.strip()}
        code = secrets.token_hex(16)
        scopes = tuple(sorted(asked & set(self.offered))) if asked else self.offered
        self.codes[code] = Code(scopes, time.time() + CODE_SECONDS)
        return code

    def exchange(self, form: dict[str, str], settings: "Settings") -> JSON:
        """The token endpoint."""
        if form.get("client_id") != settings.client_id or form.get("client_secret") != settings.client_secret:
            raise RefusedError("invalid_client", "Client authentication failed")
        match form.get("grant_type") or "authorization_code":
            case "authorization_code":
                return self._by_code(form, settings)
            case "refresh_token":
                return self._by_refresh(form.get("refresh_token", ""), settings)
            case "client_credentials":
                return self._by_credentials()
            case grant if grant == EXCHANGE:
                return self._by_token(form, settings)
        raise RefusedError("unsupported_grant_type", "The authorization grant type is not supported")

    def _by_code(self, form: dict[str, str], settings: "Settings") -> JSON:
        code = self.codes.pop(form.get("code", ""), None)
        if code is None or code.expires < time.time():
            raise RefusedError("invalid_request", "The authorization code was not found or was already used")
        return self._issue(code.scopes, settings, expiring=_yes(form.get("expiring")))

    def _by_refresh(self, token: str, settings: "Settings") -> JSON:
        known = self.refreshes.get(token)
        if known is None or known.expires < time.time():
            raise RefusedError("invalid_grant", "The refresh token is invalid or has expired")
        answer = self._issue(known.scopes, settings, expiring=True)
        self.grants[answer["access_token"]].replaces = token
        return answer

    def _by_credentials(self) -> JSON:
        token = "shpat_" + secrets.token_hex(16)
        self.grants[token] = Grant(self.offered, time.time() + CREDENTIALS_SECONDS)
        return {"access_token": token, "scope": ",".join(self.offered), "expires_in": CREDENTIALS_SECONDS}

    def _by_token(self, form: dict[str, str], settings: "Settings") -> JSON:
        """A lasting token for an expiring one; the old one is dead then."""
        if form.get("subject_token_type") != OFFLINE:
            raise RefusedError(
                "invalid_subject_token", "The subject token is invalid or of a type that is not supported"
            )
        grant = self.grants.pop(form.get("subject_token", ""), None)
        if grant is None:
            raise RefusedError("invalid_subject_token", "The subject token is invalid or has expired")
        return self._issue(grant.scopes, settings, expiring=_yes(form.get("expiring")))

    def _issue(self, scopes: tuple[str, ...], settings: "Settings", *, expiring: bool) -> JSON:
        token = "shpat_" + secrets.token_hex(16)
        answer: JSON = {"access_token": token, "scope": ",".join(scopes)}
        if not expiring:
            self.grants[token] = Grant(scopes)
            return answer
        refresh, seconds = "shprt_" + secrets.token_hex(16), settings.access_token_seconds
        self.grants[token] = Grant(scopes, time.time() + seconds)
        self.refreshes[refresh] = Refresh(scopes, time.time() + REFRESH_SECONDS)
        return {
            **answer,
            "expires_in": seconds,
            "refresh_token": refresh,
            "refresh_token_expires_in": REFRESH_SECONDS,
        }


def answer(site: "Site", form: dict[str, str]) -> tuple[int, JSON]:
    """What the token endpoint says, with the shop's own pace and faults."""
    if broken := site.faults.strike("token_http"):
        return int(broken.get("status", 503)), {"errors": "Simulated outage"}
    try:
        return 200, site.tokens.exchange(form, site.settings)
    except RefusedError as refused:
        return 400, refused.body


def _yes(text: str | None) -> bool:
    return str(text).lower() in {"1", "true"}


def sign_query(pairs: dict[str, str], secret: str) -> str:
    message = "&".join(f"{name}={pairs[name]}" for name in sorted(pairs) if name not in {"hmac", "signature"})
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


def callback(store: "Store", tokens: Tokens, query: dict[str, str], settings: "Settings") -> str:
    """Where the browser goes after Install."""
    host = (
        base64.b64encode(f"admin.shopify.com/store/{store.shop.partition('.')[0]}".encode())
        .decode()
        .rstrip("=")
    )
    pairs = {
        "code": tokens.new_code(query.get("scope", "")),
        "host": host,
        "shop": store.shop,
        "state": query.get("state", ""),
        "timestamp": str(int(time.time())),
    }
    pairs["hmac"] = sign_query(pairs, settings.client_secret)
    target = query["redirect_uri"]
    return f"{target}{'&' if '?' in target else '?'}{urlencode(pairs)}"


def consent_page(store: "Store", query: dict[str, str]) -> str:
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in query.items()
    )
    scopes = "".join(f"<li>{escape(scope)}</li>" for scope in query.get("scope", "").split(",") if scope)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>Install app on {escape(store.name)}</title>"
        "<style>body{font:16px system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}"
        "button{font:inherit;padding:.6rem 1.4rem}</style>"
        f"<h1>Install app</h1><p>An app asks for access to <b>{escape(store.shop)}</b> "
        f"(a sandbox store):</p><ul>{scopes}</ul>"
        f'<form method="get">{fields}<input type="hidden" name="approved" value="1">'
        "<button>Install</button></form>"
    )
