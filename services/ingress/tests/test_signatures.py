"""Does it come from Shopify? Signatures over raw bytes, and domains of shops."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.signatures import is_webhook_signed, shop_domain


def sign(body: bytes, secret: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def test_a_known_signature_is_accepted():
    """A signature that was worked out elsewhere (openssl dgst -sha256 -hmac hush) is the one we expect."""
    signature = "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY="
    assert sign(b'{"id":1}', "hush") == signature
    assert is_webhook_signed(b'{"id":1}', signature, ("hush",))


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40))
def test_the_raw_bytes_are_what_is_signed(body, secret):
    """Whatever the bytes are, valid UTF-8 or not, their signature is accepted, and no other body's."""
    signature = sign(body, secret)
    assert is_webhook_signed(body, signature, (secret,))
    assert not is_webhook_signed(body + b" ", signature, (secret,))


def test_an_equal_json_with_other_bytes_is_refused():
    """Escapes and spaces count: a body that was decoded and written again is another body."""
    signature = sign(b'{"url":"a\\/b"}', "hush")
    assert not is_webhook_signed(b'{"url":"a/b"}', signature, ("hush",))


def test_either_secret_serves_while_rotating():
    """For up to an hour after a rotation Shopify signs with the old secret; a third one stays out."""
    secrets = ("new", "old")
    assert is_webhook_signed(b"{}", sign(b"{}", "new"), secrets)
    assert is_webhook_signed(b"{}", sign(b"{}", "old"), secrets)
    assert not is_webhook_signed(b"{}", sign(b"{}", "other"), secrets)
    assert not is_webhook_signed(b"{}", sign(b"{}", "new"), ())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "é",
        "\u2028",
        "not base64!",
        "AAAA",
        sign(b"{}", "hush")[:-2],
        sign(b"{}", "hush") + "\n",
        "=" * 44,
    ],
)
def test_a_header_that_is_no_signature_is_refused(header):
    """Empty, beyond ASCII, no base64, too short, or with something behind it: no, and no error."""
    assert not is_webhook_signed(b"{}", header, ("hush",))


@pytest.mark.parametrize(
    ("given_", "domain"),
    [
        ("demo.myshopify.com", "demo.myshopify.com"),
        (" Demo-1.MyShopify.com ", "demo-1.myshopify.com"),
        ("demo.myshopify.com\n", "demo.myshopify.com"),
        ("a" * 63 + ".myshopify.com", "a" * 63 + ".myshopify.com"),
        ("a" * 64 + ".myshopify.com", None),
        ("-demo.myshopify.com", None),
        ("demo.myshopify.com.evil.example", None),
        ("evil.example/demo.myshopify.com", None),
        ("demo.myshopify.com/x", None),
        ("demo_1.myshopify.com", None),
        ("démo.myshopify.com", None),
        ("de\nmo.myshopify.com", None),
        ("a.b.myshopify.com", None),
        ("myshopify.com", None),
        ("demo.example.com", None),
        ("", None),
    ],
)
def test_only_a_shops_domain_is_a_shop(given_, domain):
    """Letters, digits and hyphens below myshopify.com, in lower case; nothing that leads elsewhere."""
    assert shop_domain(given_) == domain
