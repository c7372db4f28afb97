"""Which browser is this? A random id in a cookie that only we can have signed. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets

ID_BYTES = 16  # nobody guesses 128 bits


class Browsers:
    """Makes and reads the cookie's value, `<id>.<signature>`; the newest key signs, every key is believed."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        # Derived, so that a signature says nothing about the key that encrypts tokens.
        self._keys = [hashlib.sha256(b"browser:" + key.encode()).digest() for key in keys]

    def issue(self) -> str:
        """The cookie of a browser that has none."""
        browser = secrets.token_urlsafe(ID_BYTES)
        return f"{browser}.{_sign(browser, self._keys[0])}"

    def read(self, cookie: str) -> str | None:
        """The browser's id; None if the cookie is missing or not of our making."""
        browser, _, signature = cookie.partition(".")
        signatures = [_sign(browser, key) for key in self._keys]
        known = any([hmac.compare_digest(signature.encode(), s.encode()) for s in signatures])  # noqa: C419 - same time for all
        return browser if known else None


def _sign(browser: str, key: bytes) -> str:
    return hmac.new(key, browser.encode(), hashlib.sha256).hexdigest()
