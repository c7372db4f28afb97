"""What must never stand in a log."""

from __future__ import annotations

import pytest

from shared.masking import mask


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token shpat_0123abc refused", "shpat_0123abc"),
        ("Authorization: Bearer abc.def-g", "abc.def-g"),
        ("GET /api/sync/b/events?token=abc.def&x=1", "abc.def"),
        ("customer anna.b+c@example.co.uk", "anna.b+c@example.co.uk"),
        ("DETAIL:  Key (phone)=(+49 30 1) exists", "+49 30 1"),
    ],
)
def test_a_secret_is_masked(text, secret):
    """The record keeps its sense and loses the secret."""
    assert secret not in mask(text)
    assert mask(text).startswith(text[:4])
