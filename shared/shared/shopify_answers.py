"""An answer of the Admin API, read: data, or why there are none. Nothing here waits or sends.

HTTP 200, data, no errors        -> the data, decoded into the type that the caller names
THROTTLED                        -> ThrottledError, with the wait that Shopify's figures give
429, 430, 5xx, INTERNAL_SERVER_ERROR, no JSON, no data
                                 -> TransientError: worth another try
every other status or error code, a warning of the search, data that came with an error
                                 -> StoreError: another try is of no use
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time
from typing import Generic, TypeVar

import httpx
import msgspec

from shared.cost_bucket import Figures, Said
from shared.shopify_errors import (
    StoreError,
    access_denied,
    is_not_approved,
    public,
    refusal,
    refused_status,
)

T = TypeVar("T")

WORTH_ANOTHER_TRY = {408, 429, 430}  # and everything from 500 on


class ThrottledError(Exception):
    """The shop's bucket is empty."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class TransientError(Exception):
    """Something went wrong there that may be well in a moment. `kind` is for metrics."""

    def __init__(self, kind: str, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.kind, self.retry_after = kind, retry_after


class _Throttle(msgspec.Struct, rename="camel"):
    maximum_available: float
    currently_available: float
    restore_rate: float


class Cost(msgspec.Struct, rename="camel"):
    """What a query cost."""

    throttle_status: _Throttle
    requested_query_cost: float | None = None
    actual_query_cost: float | None = None


class _SearchWarning(msgspec.Struct):
    message: str
    field: str = ""


class _Search(msgspec.Struct):
    warnings: list[_SearchWarning] = []


class _Extensions(msgspec.Struct):
    cost: Cost | None = None
    search: list[_Search] = []


class _ErrorExtensions(msgspec.Struct, rename="camel"):
    code: str | None = None
    required_access: str | None = None


class Error(msgspec.Struct):
    """One of the `errors` of an answer."""

    message: str
    extensions: _ErrorExtensions | None = None

    @property
    def code(self) -> str:
        """Its code, also where Shopify gives none."""
        if is_not_approved(self.message):
            return "ACCESS_DENIED"
        return (self.extensions and self.extensions.code) or ""


class Envelope(msgspec.Struct):
    """All of an answer but its data."""

    errors: list[Error] = []
    extensions: _Extensions | None = None

    @property
    def cost(self) -> Cost | None:
        """The cost, which refusals of the query itself do not have."""
        return self.extensions.cost if self.extensions else None

    @property
    def warnings(self) -> list[_SearchWarning]:
        """What Shopify ignored of the searches."""
        searches = self.extensions.search if self.extensions else []
        return [warning for search in searches for warning in search.warnings]


class _Data(msgspec.Struct, Generic[T]):
    data: T | None = None


# Of several errors the first of these decides: what only a person can mend, before what time mends.
PRECEDENCE = ("SHOP_INACTIVE", "ACCESS_DENIED", "MAX_COST_EXCEEDED", "THROTTLED", "INTERNAL_SERVER_ERROR", "")


def check_status(shop: str, response: httpx.Response) -> None:
    """Raise unless it is 200."""
    status = response.status_code
    if status in WORTH_ANOTHER_TRY or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        kind = f"http_{status}" if status in WORTH_ANOTHER_TRY else "http_5xx"
        raise TransientError(kind, f"HTTP {status}", _seconds(response.headers.get("Retry-After")))
    if status != httpx.codes.OK:
        raise refused_status(shop, status)


def read_envelope(content: bytes) -> Envelope:
    """Everything but the data."""
    try:
        return msgspec.json.decode(content, type=Envelope)
    except msgspec.DecodeError as error:
        raise TransientError("malformed", f"the answer is not Shopify's JSON: {error}") from error


def check_errors(shop: str, envelope: Envelope) -> None:
    """Raise for any error, also where data came with it, and for a search that was not understood."""
    if envelope.errors:
        raise _failure(shop, min(envelope.errors, key=_precedence), envelope.cost)
    if warnings := envelope.warnings:
        # Shopify ignores a filter that it does not know and answers with everything: never take that.
        raise refusal("search_ignored", shop, f"{warnings[0].field}: {warnings[0].message}")


def read_data(shop: str, answer: type[T], content: bytes) -> T:
    """The data as `answer`."""
    try:
        found: _Data[T] = msgspec.json.decode(content, type=_Data[answer])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise refusal("unexpected_answer", shop, str(error)) from error
    if found.data is None:
        raise TransientError("malformed", "an answer without data and without errors")
    return found.data


def said_of(envelope: Envelope) -> Said:
    """What the answer tells the bucket. A query that was refused took nothing."""
    cost = envelope.cost
    if cost is None:
        refused = envelope.errors and all(e.code != "INTERNAL_SERVER_ERROR" for e in envelope.errors)
        return Said(spent=0.0 if refused else None)
    status = cost.throttle_status
    figures = Figures(status.currently_available, status.maximum_available, status.restore_rate)
    return Said(cost.actual_query_cost or 0.0, figures)


def _precedence(error: Error) -> int:
    return PRECEDENCE.index(error.code if error.code in PRECEDENCE else "")


def _failure(shop: str, error: Error, cost: Cost | None) -> Exception:
    match error.code:
        case "THROTTLED":
            return ThrottledError(_throttled_for(cost))
        case "INTERNAL_SERVER_ERROR":
            return TransientError("internal_error", public(error.message))
        case "ACCESS_DENIED":
            required = (error.extensions and error.extensions.required_access) or ""
            return access_denied(shop, error.message, required)
        case "MAX_COST_EXCEEDED" | "SHOP_INACTIVE" as code:
            return refusal(code.lower(), shop, error.message)
        case code:
            problem = refusal("graphql_error", shop, error.message).problem
            return StoreError(public(code).lower() or problem.code, problem.message, problem.action)


def _throttled_for(cost: Cost | None) -> float:
    if cost is None:
        return 0.0
    status = cost.throttle_status
    missing = (cost.requested_query_cost or status.restore_rate) - status.currently_available
    return max(0.0, missing / max(status.restore_rate, 1.0))


def _seconds(retry_after: str | None) -> float:
    """Retry-After: seconds, or a date."""
    if not retry_after:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except (ValueError, TypeError):
        return 0.0
