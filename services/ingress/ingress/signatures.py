"""Does this come from Shopify? Pure: bytes and secrets in, yes or no out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

# fullmatch, not `$`: that one also matches before a trailing newline.
_SHOP = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.myshopify\.com")
UNSIGNED = {"hmac", "signature"}  # parameters of a redirect that its HMAC leaves out


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
    shop = value.strip().lower() if value.isascii() else ""  # the Kelvin sign's lower case is a plain k
    return shop if _SHOP.fullmatch(shop) else None


def is_redirect_signed(pairs: Mapping[str, str], secrets: Iterable[str]) -> bool:
    """Whether `hmac` is the HMAC-SHA256, in hex, of the other decoded parameters in order of their names."""
    signature = pairs.get("hmac", "")
    signed = "&".join(f"{name}={pairs[name]}" for name in sorted(pairs) if name not in UNSIGNED)
    digests = [hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest() for secret in secrets]
    return any([hmac.compare_digest(signature.encode(), d.encode()) for d in digests])  # noqa: C419 - same time for all
