"""The short-lived tokens with which a widget reads one brand."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from shared.widget_tokens import WidgetTokens

NEW, OTHER = (Fernet.generate_key().decode() for _ in range(2))
WIDGETS = WidgetTokens((NEW,))


def test_a_widget_token_opens_its_brand():
    """It says which brand, for the time that was asked, and survives a key rotation."""
    token, ends = WIDGETS.issue("acme", timedelta(minutes=5))
    assert WIDGETS.brand(token) == "acme"
    assert timedelta(minutes=4) < ends - datetime.now(UTC) <= timedelta(minutes=5)
    assert WidgetTokens((OTHER, NEW)).brand(token) == "acme"
    assert WidgetTokens((OTHER,)).brand(token) is None


def test_a_widget_token_ends():
    """After its time it opens nothing."""
    token, _ = WIDGETS.issue("acme", timedelta(seconds=-10))
    assert WIDGETS.brand(token) is None


def test_a_forged_widget_token_opens_nothing():
    """Another brand put in, the signature taken off, another algorithm, another audience: all closed."""
    token, _ = WIDGETS.issue("acme")
    head, claims, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert set(told) == {"sub", "aud", "exp"}

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for forged in (
        f"{head}.{part({**told, 'sub': 'other'})}.{signature}",
        f"{head}.{claims}.",
        f"{part({'alg': 'none'})}.{claims}.",
        f"{part({'alg': 'none'})}.{claims}.{signature}",
        f"{head}.{claims}.{signature[:-4]}AAAA",
        f"{head}.{claims}",
    ):
        assert WIDGETS.brand(forged) is None


@given(st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}\.[A-Za-z0-9_-]{0,30}"))
def test_no_text_breaks_the_check(text):
    """Whatever somebody sends as a token, the answer is no, and no error."""
    assert WIDGETS.brand(text) is None
