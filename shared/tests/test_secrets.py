"""Tokens at rest, and the short-lived ones of the widget."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PermanentError
from shared.secrets import TokenVault, WidgetTokens

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
WIDGETS = WidgetTokens((NEW,))


@given(st.text(max_size=60))
def test_a_token_comes_back_as_it_was(token):
    """What is stored differs each time, does not hold the token, and opens to it."""
    vault = TokenVault((NEW,))
    stored = vault.encrypt(token)
    assert vault.decrypt(stored) == token
    assert stored != vault.encrypt(token)
    assert len(token) < 4 or token.encode() not in stored


def test_keys_can_be_rotated():
    """A token under the old key opens while that key is listed; without it the error says what to do."""
    stored = TokenVault((OLD,)).encrypt("shpat_1")
    assert TokenVault((NEW, OLD)).decrypt(stored) == "shpat_1"
    with pytest.raises(PermanentError, match="BACKSTOCK_SECRET_KEYS") as refused:
        TokenVault((NEW,)).decrypt(stored)
    assert "shpat_1" not in str(refused.value)
    assert TokenVault((NEW,)).decrypt(TokenVault((NEW, OLD)).encrypt("shpat_2")) == "shpat_2"


@pytest.mark.parametrize("at", [0, 10, 40, -1])
def test_a_changed_ciphertext_does_not_open(at):
    """A flipped character anywhere is noticed."""
    stored = bytearray(TokenVault((NEW,)).encrypt("shpat_1"))
    stored[at] = ord("A") if stored[at] != ord("A") else ord("B")
    with pytest.raises(PermanentError):
        TokenVault((NEW,)).decrypt(bytes(stored))


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
