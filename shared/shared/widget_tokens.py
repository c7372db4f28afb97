"""Letting a widget read one brand for a short while."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

WIDGET_LIFETIME = timedelta(hours=1)  # long enough for a page that stays open; it asks again
LONGEST_WIDGET_TOKEN = 1_000  # characters; ours have about 200


class WidgetTokens:
    """Short-lived tokens that read the progress of one brand and nothing else."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        # Derived, so that a signature says nothing about the key that encrypts tokens.
        self._keys = [OctKey.import_key(hashlib.sha256(b"widget:" + key.encode()).digest()) for key in keys]

    def issue(self, brand_id: str, lifetime: timedelta = WIDGET_LIFETIME) -> tuple[str, datetime]:
        """A token for the brand, and when it ends."""
        expires_at = datetime.now(UTC).replace(microsecond=0) + lifetime
        claims = {"sub": brand_id, "aud": "status", "exp": int(expires_at.timestamp())}
        return jwt.encode({"alg": "HS256"}, claims, self._keys[0]), expires_at

    def brand(self, token: str) -> str | None:
        """The brand that the token may read; None if it is forged, foreign or over."""
        if len(token) > LONGEST_WIDGET_TOKEN:
            return None
        rules = jwt.JWTClaimsRegistry(aud={"essential": True, "value": "status"}, exp={"essential": True})
        for key in self._keys:
            try:
                claims = jwt.decode(token, key, algorithms=["HS256"]).claims
                rules.validate(claims)
            except (JoseError, ValueError, TypeError, RecursionError):  # whatever a forger may think of
                continue
            return str(claims["sub"])
        return None
