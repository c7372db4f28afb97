"""What may stand between us and a store, each with a word on what helps.

BackstockError
├── ShopifyUnavailableError   no proper answer, however often it was asked: later, perhaps
└── PermanentError
    └── StoreError            somebody has to do something; `problem` says what
        └── UnexpectedAnswerError

No text here holds a token, the query of an address, or a person's data.
"""

from __future__ import annotations

import re

from shared.errors import BackstockError, PermanentError
from shared.events import Problem

LONGEST_TEXT = 300  # characters of Shopify's that are passed on

_REDACTED = (
    (re.compile(r"(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*"), r"\1"),
    (re.compile(r"\bshp[a-z]{2}_\w+"), "[token]"),
    (re.compile(r"[\w.+%-]+@[\w-]+(\.[\w-]+)+"), "[email]"),
    (re.compile(r"\+\d[\d ()./-]{6,}\d"), "[phone]"),
)
_NOT_APPROVED = re.compile(r"not approved to (?:access|use) the (\w+)", re.IGNORECASE)
_SCOPE = re.compile(r"`(\w+)`")

# code -> what it is, what helps; {shop} and {detail} are filled in.
REFUSALS = {
    "invalid_token": (
        "{shop} does not accept the access token.",
        "Connect the store again with a valid token.",
    ),
    "shop_frozen": ("{shop} is frozen.", "Its owner must settle Shopify's bill, then sync again."),
    "forbidden": (
        "{shop} forbids the request.",
        "Check that the app is installed and that its scopes are granted.",
    ),
    "shop_not_found": ("There is no shop {shop}.", "Check the shop's domain."),
    "shop_locked": ("{shop} is locked.", "Wait until Shopify unlocks it, then sync again."),
    "shop_moved": (
        "{shop} answers from another address.",
        "Connect the store by its current .myshopify.com domain.",
    ),
    "unexpected_status": (
        "{shop} answered with HTTP {detail}.",
        "Look at shopifystatus.com; if all is well there, report this.",
    ),
    "shop_inactive": ("{shop} is inactive.", "Its owner must reactivate it, then sync again."),
    "access_denied": ("{detail}", "Grant the app the scope it lacks and connect again."),
    "protected_customer_data": (
        "{detail}",
        "Request access to protected customer data in Shopify's Partner Dashboard, then sync again.",
    ),
    "max_cost_exceeded": ("{detail}", "Report this query: it reads too much at once."),
    "search_ignored": (
        "Shopify ignored part of a search: {detail}",
        "Report this: the query does not fit the API version.",
    ),
    "unexpected_answer": (
        "Shopify's answer has not the expected form: {detail}",
        "Report this with the API version.",
    ),
    "link_refused": (
        "The address that {shop} gave for a bulk file is not fetched: {detail}.",
        "Load the history again; if that does not help, report this: nothing was asked for there.",
    ),
    "graphql_error": ("{detail}", "Report this query."),
}
STATUSES = {
    301: "shop_moved",
    302: "shop_moved",
    307: "shop_moved",
    308: "shop_moved",
    401: "invalid_token",
    402: "shop_frozen",
    403: "forbidden",
    404: "shop_not_found",
    423: "shop_locked",
}


class StoreError(PermanentError):
    """The store, the app or the query stands in the way, and somebody has to do something about it."""

    def __init__(self, code: str, message: str, action: str) -> None:
        super().__init__(message)
        self.problem = Problem(code=code, message=message, action=action)


class UnexpectedAnswerError(StoreError):
    """Shopify's answer has not the form that its API promises."""


class ShopifyUnavailableError(BackstockError):
    """Shopify did not give a proper answer, however often it was asked."""


def refusal(code: str, shop: str, detail: str = "", *, action: str = "") -> StoreError:
    """The error of a known code."""
    message, remedy = REFUSALS[code]
    kind = UnexpectedAnswerError if code == "unexpected_answer" else StoreError
    return kind(code, message.format(shop=shop, detail=public(detail)), action or remedy)


def refused_status(shop: str, status: int) -> StoreError:
    """The error that an HTTP status means."""
    return refusal(STATUSES.get(status, "unexpected_status"), shop, str(status))


def access_denied(shop: str, message: str, required: str) -> StoreError:
    """A scope that was not granted, or data of customers that the app was not approved for."""
    if _NOT_APPROVED.search(message):
        return refusal("protected_customer_data", shop, message)
    scopes = _SCOPE.findall(required) or _SCOPE.findall(message)
    action = f"Grant the app {', '.join(scopes)} and connect again." if scopes else ""
    return refusal("access_denied", shop, message, action=action)


def is_not_approved(message: str) -> bool:
    """Whether Shopify names protected customer data, whatever code it gives the error."""
    return _NOT_APPROVED.search(message) is not None


def public(text: str) -> str:
    """The first line of a text of Shopify's, fit for logs and documents."""
    line = text.strip().partition("\n")[0]
    for secret, instead in _REDACTED:
        line = secret.sub(instead, line)
    return line[:LONGEST_TEXT]
