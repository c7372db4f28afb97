"""What Shopify's headers say about the API version: logged once a shop and text, counted every time."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from shared.shopify_errors import public
from shared.shopify_metrics import deprecated, other_version

log = structlog.get_logger()

REMEMBERED = 1_000  # notices; with more than that, some are logged again
VERSION, DEPRECATED = "X-Shopify-API-Version", "X-Shopify-API-Deprecated-Reason"
VERSIONS_COUNTED = 12  # label values; Shopify supports four versions at a time


class Notices:
    """Heeds the headers of every answer of a process."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], None] = {}
        self._versions: set[str] = set()

    def heed(self, shop: str, asked: str, headers: Mapping[str, str]) -> None:
        """Shopify serves the oldest version that it still supports where the asked one is gone."""
        served = public(headers.get(VERSION, ""))
        if served and served != asked:
            other_version.labels(self._label(served)).inc()
            if self._is_new(shop, served):
                log.warning("shopify.other_version", shop=shop, asked=asked, served=served)
        if reason := public(headers.get(DEPRECATED, "")):
            deprecated.inc()
            if self._is_new(shop, reason):
                log.warning("shopify.deprecated", shop=shop, reason=reason)

    def _is_new(self, shop: str, text: str) -> bool:
        if (shop, text) in self._logged:
            return False
        if len(self._logged) >= REMEMBERED:
            del self._logged[next(iter(self._logged))]
        self._logged[shop, text] = None
        return True

    def _label(self, version: str) -> str:
        if len(self._versions) < VERSIONS_COUNTED:
            self._versions.add(version)
        return version if version in self._versions else "other"
