"""Which addresses of bulk files are fetched; names are resolved by a table."""

from __future__ import annotations

import pytest

from bulk_runner.links import addresses, why_refused

SHOP = "https://acme.myshopify.com/admin/api/2026-10/graphql.json"
SANDBOX = "http://127.0.0.1:9000/acme.myshopify.com/admin/api/2026-10/graphql.json"
GOOGLE = (
    "https://storage.googleapis.com/shopify-tiers-assets-prod-us-east1/bulk-operation-outputs/ab?Expires=1"
)

NAMES = {
    "storage.googleapis.com": ["142.250.74.27", "2a00:1450:4005::1b"],
    "nat64.example.com": ["64:ff9b::8efa:4a1b"],
    "unknown.example.com": [],
    "loopback.example.com": ["127.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "private.example.com": ["142.250.74.27", "10.1.2.3"],
    "shared.example.com": ["100.64.0.1"],
    "nothing.example.com": ["0.0.0.0"],
    "many.example.com": ["224.0.0.1"],
    "six.example.com": ["::1"],
    "local6.example.com": ["fe80::1%eth0"],
    "unique6.example.com": ["fd00::1"],
    "mapped.example.com": ["::ffff:10.0.0.1"],
    "sixtofour.example.com": ["2002:7f00:1::"],
    "nat64private.example.com": ["64:ff9b::7f00:1"],
}

NO_NAMES = ("8.8.8.8", "[2a00:1450:4005::1b]", "127.1", "2130706433", "0x7f000001", "localhost", "")


async def resolve(host):
    return NAMES[host]


@pytest.mark.parametrize(
    ("link", "origin"),
    [
        (GOOGLE, SHOP),
        (GOOGLE, SANDBOX),
        (GOOGLE.replace(".com/", ".com:443/"), SHOP),
        ("https://nat64.example.com/x", SHOP),
        ("https://unknown.example.com/x", SHOP),
        ("http://127.0.0.1:9000/bulk-results/x?Signature=y", SANDBOX),
    ],
)
async def test_public_names_and_the_configured_origin_are_fetched(link, origin):
    """Shopify's own file server; a network that knows IPv6 only; the local Shopify that a setting names."""
    assert await why_refused(link, origin, resolve) == ""


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("http://storage.googleapis.com/x", "not https"),
        ("file:///etc/passwd", "not https"),
        ("gopher://storage.googleapis.com/x", "not https"),
        ("//storage.googleapis.com/x", "not https"),
        ("", "not https"),
        ("https://storage.googleapis.com\n.example.com/x", "no address"),
        ("https://storage.googleapis.com:x/y", "no address"),
        ("https://storage.googleapis.com:99999999/x", "port 99999999"),
        ("https://user:pass@storage.googleapis.com/x", "credentials"),
        ("https://storage.googleapis.com\\@private.example.com/x", "credentials"),
        ("https://storage.googleapis.com:8443/x", "port 8443"),
        ("https://storage.googleapis.com:0/x", "port 0"),
        *((f"https://{host}/x", "not a public name") for host in NO_NAMES),
        ("https://storage.googleapis.com./x", "not a public name"),
        *((f"https://{host}/x", "private network") for host in list(NAMES)[3:]),
        ("http://127.0.0.1:9000/bulk-results/x", "not https"),
    ],
)
async def test_what_leads_elsewhere_is_refused(link, why):
    """Other schemes and ports, credentials, addresses for names, names that lead inside; each says why."""
    assert why in await why_refused(link, SHOP, resolve)


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:9001/x", "https://127.0.0.1:9000/x", "http://localhost:9000/x"]
)
async def test_a_local_shopify_opens_its_own_origin_only(link):
    """Another port, scheme or name of the same machine is as private as ever."""
    assert await why_refused(link, SANDBOX, resolve)


async def test_names_are_asked_for_as_the_system_does():
    """This machine's own name for itself; one that cannot be is nothing."""
    assert {"127.0.0.1", "::1"} & set(await addresses("localhost"))
    assert await addresses("no-such-name.invalid") == []
    assert await addresses("a" * 300 + ".example.com") == []
