"""What Prometheus is told of Shopify's Admin API. No shop is a label: there may be thousands."""

from __future__ import annotations

from prometheus_client import Counter

requests = Counter("backstock_shopify_requests_total", "Requests to the Admin API by outcome", ["outcome"])
waited = Counter("backstock_shopify_waited_seconds_total", "Time spent waiting, by what for", ["why"])
throttled = Counter("backstock_shopify_throttled_total", "Queries that Shopify refused as THROTTLED")
points = Counter("backstock_shopify_points_total", "Cost points that queries took")
without_redis = Counter(
    "backstock_shopify_points_not_shared_total", "Times that Redis did not answer about cost points"
)
other_version = Counter(
    "backstock_shopify_other_version_total", "Answers in another API version than was asked for", ["served"]
)
deprecated = Counter("backstock_shopify_deprecated_total", "Answers that name a deprecated use of the API")

WHY_POINTS, WHY_THROTTLED, WHY_RETRY = "points", "throttled", "retry"
for why in (WHY_POINTS, WHY_THROTTLED, WHY_RETRY):
    waited.labels(why)
