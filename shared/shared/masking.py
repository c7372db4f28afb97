"""Defence in depth: what looks like a secret or a person is masked where a log record becomes a line."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

MASK = "[masked]"

_SECRETS = (
    (re.compile(r"\bshp[a-z]{2,3}_\w+"), MASK),
    (re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+"), rf"\1 {MASK}"),
    (re.compile(r"(?i)([?&](?:token|code|hmac|signature|access_token|key)=)[^&\s\"']+"), rf"\1{MASK}"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"), MASK),
    (re.compile(r"(DETAIL:|Key \([^)]*\)=).*"), rf"\1 {MASK}"),  # Postgres quotes the row
)


def mask(text: str) -> str:
    """The text without tokens, secrets of addresses, e-mail addresses and Postgres's row values."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def mask_record(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor."""
    for key, value in record.items():
        if isinstance(value, str):
            record[key] = mask(value)
    return record
