"""What Shopify refuses, and what of it people and logs are told."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.fernet import Fernet
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from shared.settings import Settings
from shared.shopify import Shopify, StoreError
from shared.shopify_answers import (
    ThrottledError,
    TransientError,
    check_errors,
    check_status,
    read_envelope,
    said_of,
)
from shared.shopify_errors import public
from shared.shopify_notices import REMEMBERED, Notices

SHOP = "shop.myshopify.com"
TOKEN = "shpat_0123456789abcdef"
NOT_APPROVED = (
    "This app is not approved to access the Customer object. "
    "See https://partners.shopify.com/1/apps/2/customer_data?token=secret for more details."
)


def error(message: str, code: str | None = None, **extensions: Any) -> dict[str, Any]:
    return {"message": message, "extensions": {**({"code": code} if code else {}), **extensions}}


def failure(*errors: dict[str, Any], **more: Any) -> Exception:
    content = msgspec.json.encode({"errors": errors, **more})
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what the tests look at
        check_errors(SHOP, read_envelope(content))
    return raised.value


def status(code: int, **headers: str) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        check_status(SHOP, httpx.Response(code, headers={k.replace("_", "-"): v for k, v in headers.items()}))
    return raised.value


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (301, "shop_moved"),
        (400, "unexpected_status"),
        (401, "invalid_token"),
        (402, "shop_frozen"),
        (403, "forbidden"),
        (404, "shop_not_found"),
        (423, "shop_locked"),
    ],
)
def test_a_status_that_stays_names_its_remedy(code: int, expected: str) -> None:
    """Statuses that time does not mend are told apart, each with what helps."""
    refused = status(code)
    assert isinstance(refused, StoreError)
    assert refused.problem.code == expected
    assert refused.problem.action


@pytest.mark.parametrize("code", [408, 429, 430, 500, 502, 503, 504, 530, 540, 783])
def test_a_status_that_passes_is_worth_another_try(code: int) -> None:
    """Overload and trouble at Shopify are tried again."""
    assert isinstance(status(code), TransientError)


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    """Shopify sends seconds; HTTP also allows a date; nonsense counts as nothing."""
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert status(429, Retry_After="2.5").retry_after == 2.5
    assert 55 < status(429, Retry_After=in_a_minute).retry_after <= 60
    assert status(429, Retry_After="soon").retry_after == 0
    assert status(429, Retry_After="-3").retry_after == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("MAX_COST_EXCEEDED", "max_cost_exceeded"),
        ("SHOP_INACTIVE", "shop_inactive"),
        ("BAD_REQUEST", "bad_request"),
        (None, "graphql_error"),
    ],
)
def test_an_error_code_is_passed_on_with_a_remedy(code: str | None, expected: str) -> None:
    """An answer with HTTP 200 can be a refusal as well."""
    refused = failure(error("It is so.\nMore of it.", code))
    assert isinstance(refused, StoreError)
    assert refused.problem.code == expected
    assert refused.problem.action
    assert "More of it" not in refused.problem.message


def test_a_missing_scope_is_named() -> None:
    """The remedy names the scope to grant."""
    refused = failure(
        error(
            "Access denied for customers field.",
            "ACCESS_DENIED",
            requiredAccess="`read_customers` access scope.",
        )
    )
    assert isinstance(refused, StoreError)
    assert refused.problem.code == "access_denied"
    assert refused.problem.action == "Grant the app read_customers and connect again."


@pytest.mark.parametrize("code", ["ACCESS_DENIED", None])
@pytest.mark.parametrize("what", [NOT_APPROVED, "This app is not approved to use the email field."])
def test_protected_customer_data_are_no_missing_scope(code: str | None, what: str) -> None:
    """No scope helps where Shopify has not approved the app: the remedy is another."""
    refused = failure(error(what, code))
    assert isinstance(refused, StoreError)
    assert refused.problem.code == "protected_customer_data"
    assert "Partner Dashboard" in refused.problem.action
    assert "secret" not in refused.problem.message


def test_data_beside_an_error_are_not_taken() -> None:
    """A field that was denied is null in data that look complete: the answer counts as refused."""
    refused = failure(
        error("Something else."),
        error("Access denied for email field.", "ACCESS_DENIED"),
        data={"orders": []},
    )
    assert isinstance(refused, StoreError)
    assert refused.problem.code == "access_denied"


def test_what_a_person_must_mend_decides_before_what_time_mends() -> None:
    """An internal error beside a denied field is not tried again and again."""
    denied = failure(error("x", "INTERNAL_SERVER_ERROR"), error("Access denied.", "ACCESS_DENIED"))
    assert isinstance(denied, StoreError)
    assert isinstance(failure(error("x", "INTERNAL_SERVER_ERROR")), TransientError)


def test_throttled_waits_as_long_as_the_figures_say() -> None:
    """602 points asked, 12 there, 100 a second: 5.9 seconds; and nothing was spent."""
    figures = {"maximumAvailable": 2000, "currentlyAvailable": 12, "restoreRate": 100}
    cost = {"requestedQueryCost": 602, "actualQueryCost": None, "throttleStatus": figures}
    content = {"errors": [error("Throttled", "THROTTLED")], "extensions": {"cost": cost}}
    throttled = failure(content["errors"][0], extensions=content["extensions"])
    assert isinstance(throttled, ThrottledError)
    assert throttled.seconds == pytest.approx(5.9)
    assert said_of(read_envelope(msgspec.json.encode(content))).spent == 0


def test_a_search_that_was_ignored_in_part_is_an_error() -> None:
    """Shopify answers with everything where it does not know a filter: that is never taken."""
    warning = {"field": "shop", "message": "Invalid search field for this query."}
    extensions = {"search": [{"path": ["orders"], "warnings": [warning]}]}
    refused = failure(data={}, extensions=extensions)
    assert isinstance(refused, StoreError)
    assert refused.problem.code == "search_ignored"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"errors":"Not Found"}'])
def test_what_is_not_shopifys_json_is_tried_again(content: bytes) -> None:
    """A page of some proxy is no answer."""
    with pytest.raises(TransientError):
        read_envelope(content)


def test_texts_of_shopify_lose_what_is_nobodys_business() -> None:
    """No token, no address's query, no email address, no phone number gets into logs and documents."""
    text = (
        f"Invalid {TOKEN} of jane.doe+x@example.co.uk, +49 (170) 1234567: "
        "see https://storage.example.com/file?Signature=abc&Expires=1\nRequest ID: 1"
    )
    assert public(text) == "Invalid [token] of [email], [phone]: see https://storage.example.com/file"
    assert len(public("x" * 5000)) == 300


def test_another_version_is_logged_once_and_counted_always() -> None:
    """Shopify serves another version than asked, and says what is deprecated: one line a shop and text."""
    notices = Notices()
    headers = {
        "X-Shopify-API-Version": "2026-01",
        "X-Shopify-API-Deprecated-Reason": "https://shopify.dev/api/usage/versioning?secret=1#practices",
    }
    before = REGISTRY.get_sample_value("backstock_shopify_other_version_total", {"served": "2026-01"}) or 0
    with capture_logs() as logs:
        for _ in range(3):
            notices.heed(SHOP, "2025-01", headers)
        notices.heed(SHOP, "2026-01", {"X-Shopify-API-Version": "2026-01"})
    assert [line["event"] for line in logs] == ["shopify.other_version", "shopify.deprecated"]
    assert logs[1]["reason"] == "https://shopify.dev/api/usage/versioning"
    assert (
        REGISTRY.get_sample_value("backstock_shopify_other_version_total", {"served": "2026-01"})
        == before + 3
    )


def test_notices_stay_few() -> None:
    """However many shops there are, the memory of what was logged is bounded."""
    notices = Notices()
    with capture_logs():
        for number in range(REMEMBERED + 50):
            notices.heed(f"{number}.myshopify.com", "2026-10", {"X-Shopify-API-Version": "2026-07"})
    assert len(notices._logged) == REMEMBERED


@pytest.mark.parametrize("token", ["", "shpat_a\nb", "shpat_ü"])
async def test_a_token_that_is_no_header_is_refused_and_not_shown(token: str) -> None:
    """httpx would quote it in its error."""
    shopify = Shopify(make_settings("http://127.0.0.1:9"))
    shop = shopify.shop(SHOP, token)
    with pytest.raises(StoreError) as refused:
        await shop.query(dict[str, Any], "{ shop { id } }")
    assert refused.value.problem.code == "invalid_token"
    await shopify.close()


async def test_a_shop_does_not_show_its_token() -> None:
    """Neither in a log of the object nor in a traceback's values."""
    shopify = Shopify(make_settings("http://127.0.0.1:9"))
    assert TOKEN not in repr(shopify.shop(SHOP, TOKEN))
    await shopify.close()


async def test_a_version_that_is_gone_is_noticed(sandbox_server: str) -> None:
    """The sandbox serves 2026-01 for 2025-01, as Shopify does: the answer is taken, with a warning."""
    shop = f"version-{os.getpid()}.myshopify.com"
    async with httpx.AsyncClient() as http:
        await http.post(f"{sandbox_server}/_sandbox/stores", json={"shop": shop, "token": TOKEN, "orders": 5})
    shopify = Shopify(make_settings(f"{sandbox_server}/{{shop}}", version="2025-01"))
    with capture_logs() as logs:
        for _ in range(2):
            await shopify.shop(shop, TOKEN).query(dict[str, Any], "{ shop { id } }")
    await shopify.close()
    assert [(line["event"], line["asked"], line["served"]) for line in logs] == [
        ("shopify.other_version", "2025-01", "2026-01")
    ]


def make_settings(origin: str, version: str = "2026-10") -> Settings:
    return Settings(
        database_url="postgresql://127.0.0.1/unused",
        redis_url="redis://127.0.0.1/0",
        shopify_client_id="test",
        shopify_client_secret=SecretStr("test"),
        backstock_api_key=SecretStr("test-api-key-0123456789"),
        backstock_secret_keys=SecretStr(Fernet.generate_key().decode()),
        shopify_origin=origin,
        shopify_api_version=version,
    )
