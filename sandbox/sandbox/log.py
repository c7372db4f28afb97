"""What happened lately, for tests and for whoever wonders why a sync is slow."""

from collections import Counter, deque

from sandbox import clock
from sandbox.context import JSON

KEPT = 500


class Log:
    def __init__(self) -> None:
        self.requests: deque[JSON] = deque(maxlen=KEPT)
        self.counters: Counter[str] = Counter()

    def count(self, name: str) -> None:
        self.counters[name] += 1

    def request(self, operation: str, status: int, cost: int | None = None, note: str | None = None) -> None:
        self.counters["requests"] += 1
        row = {"at": clock.iso_now(), "operation": operation, "status": status, "cost": cost, "note": note}
        self.requests.append(row)

    def shown(self) -> JSON:
        return {"requests": list(self.requests), "counters": dict(self.counters)}
