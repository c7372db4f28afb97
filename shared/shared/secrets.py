"""Keeping Shopify's tokens, and texts of Shopify's, secret at rest."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from shared.errors import PermanentError


class TokenVault:
    """Encrypts access tokens; the newest key writes, every key reads, so keys can be rotated."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._newest = Fernet(keys[0])
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, token: str) -> bytes:
        """A token, as it may be stored."""
        return self._fernet.encrypt(token.encode())

    def decrypt(self, stored: bytes) -> str:
        """The token again; PermanentError if none of the keys made it."""
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise PermanentError(
                "no key in BACKSTOCK_SECRET_KEYS opens the stored access token: "
                "add the key that was used before, or connect the store again"
            ) from None

    def seal(self, text: bytes) -> bytes:
        """A text of Shopify's, as it may be stored."""
        return self._newest.encrypt(text)

    def unseal(self, stored: bytes) -> bytes:
        """The text again; PermanentError if none of the keys made it."""
        try:
            return self._fernet.decrypt(stored)
        except InvalidToken:
            raise PermanentError(
                "no key in BACKSTOCK_SECRET_KEYS opens the stored text: add the key that was used before"
            ) from None

    def reseal(self, stored: bytes) -> bytes | None:
        """The token under the newest key; None if it is so already, PermanentError if no key opens it."""
        try:
            self._newest.decrypt(stored)
        except InvalidToken:
            return self.encrypt(self.decrypt(stored))
        return None
