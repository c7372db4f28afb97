"""Tokens at rest."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PermanentError
from shared.secrets import TokenVault

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


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
