"""Does this come from Shopify? Pure: bytes and secrets in, yes or no out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable

# fullmatch, not `$`: that one also matches before a trailing newline.
_SHOP = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.myshopify\.com")


def is_webhook_signed(body: bytes, header: str, secrets: Iterable[str]) -> bool:
    """Whether the base64 HMAC-SHA256 of the raw body is one of a secret of ours (several while rotating)."""
    try:
        signature = base64.b64decode(header, validate=True)
    except (binascii.Error, ValueError):
        return False
    digests = [hmac.digest(secret.encode(), body, hashlib.sha256) for secret in secrets]
    return any([hmac.compare_digest(signature, digest) for digest in digests])  # noqa: C419 - same time for all


def shop_domain(value: str) -> str | None:
    """`Demo.myshopify.com` -> `demo.myshopify.com`; None if it is no shop's domain."""
    shop = value.strip().lower()
    return shop if _SHOP.fullmatch(shop) else None
