"""What can go wrong on purpose. Each fault has a `rate` (default 1) and may be limited to a number of
`times`.

http {status, retry_after}  internal_error  throttle  latency {seconds}  reset  unanswered {of}
download_cut {bytes}  download_http {status}
bulk_fail {partial, error_code, after}  bulk_stuck {after}  bulk_cancel {refused}  bulk_expired  bulk_no_url
bulk_link {url}  bulk_short {lines}
token_revoked  token_http {status}  nodes_null  nodes_wrong {nodes: {gid: {field: value}}}
webhook_drop  webhook_duplicate  webhook_delay {seconds}  webhook_reorder {seconds}
"""

import random

from sandbox.context import JSON

NAMES = frozenset(
    {
        "http",
        "internal_error",
        "throttle",
        "latency",
        "reset",
        "unanswered",
        "download_cut",
        "download_http",
        "bulk_fail",
        "bulk_stuck",
        "bulk_cancel",
        "bulk_expired",
        "bulk_no_url",
        "bulk_link",
        "bulk_short",
        "nodes_null",
        "nodes_wrong",
        "token_revoked",
        "token_http",
        "webhook_drop",
        "webhook_duplicate",
        "webhook_delay",
        "webhook_reorder",
    }
)


class Faults:
    def __init__(self, seed: int) -> None:
        self.set: dict[str, JSON] = {}
        self.random = random.Random(seed).random

    def patch(self, wanted: JSON) -> None:
        """Merges; null or false takes a fault away, true is a fault without settings."""
        for name, setting in wanted.items():
            if name not in NAMES:
                raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(NAMES))}")
            if setting is None or setting is False:
                self.set.pop(name, None)
            else:
                self.set[name] = {"rate": 1, **({} if setting is True else setting)}

    def strike(self, name: str, document: str = "") -> JSON | None:
        """The fault's settings if it strikes now (and names part of `document`); counts down `times`."""
        fault = self.set.get(name)
        if fault is None or fault.get("of", "") not in document or self.random() >= fault["rate"]:
            return None
        if "times" in fault:
            if fault["times"] <= 0:
                return None
            fault["times"] -= 1
        return fault
