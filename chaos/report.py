"""Results as a table: for the screen, and for docs/chaos.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEADINGS = (
    "seed",
    "stores",
    "faults",
    "webhooks",
    "restarts",
    "rows",
    "lost",
    "duplicated",
    "stale",
    "resurrected",
    "healed after",
    "result",
)


class Result(msgspec.Struct, frozen=True):
    """What a run did and found; times in seconds."""

    seed: int
    stores: list[str]
    skews: list[int]
    injected: list[str]
    schedule: list[str]
    rows: int
    lost: int
    duplicated: int
    stale: int
    resurrected: int
    wrong: list[str]
    webhooks: int
    webhooks_failed: int
    restarts: int
    frames: int
    healed_after: float
    took: float

    @property
    def good(self) -> bool:
        return not self.wrong

    @classmethod
    def broken(cls, seed: int, why: str) -> Result:
        """A run that did not get as far as a verdict."""
        return cls(seed, [], [], [], [], 0, 0, 0, 0, 0, [why], 0, 0, 0, 0, 0.0, 0.0)


def markdown(results: Sequence[Result]) -> str:
    """All runs, a line each, and the sums."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(_cells(result)) for result in sorted(results, key=lambda result: result.seed)]
    return "\n".join(lines)


def sums(results: Sequence[Result]) -> str:
    """One paragraph: how many of what."""
    good = [result for result in results if result.good]
    healed = sorted(result.healed_after for result in results)
    middle = healed[len(healed) // 2] if healed else 0.0
    return (
        f"{len(good)} of {len(results)} runs ended right. "
        f"{sum(r.rows for r in results):,} rows compared, "
        f"{sum(len(r.injected) for r in results)} faults, {sum(r.webhooks for r in results):,} webhooks "
        f"({sum(r.webhooks_failed for r in results):,} deliveries failed and came again), "
        f"{sum(r.restarts for r in results)} restarts of services. "
        f"Lost {sum(r.lost for r in results)}, duplicated {sum(r.duplicated for r in results)}, "
        f"stale {sum(r.stale for r in results)}, resurrected {sum(r.resurrected for r in results)}. "
        f"Healed after {middle:.0f} s (median), {max(healed, default=0):.0f} s at the most."
    )


def kinds(results: Sequence[Result]) -> str:
    """How often each kind of fault was injected."""
    counts = Counter(kind for result in results for kind in result.injected)
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))


def write_table(path: Path, results: Sequence[Result]) -> None:
    """Put the table between the page's two marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = f"{sums(results)}\n\nInjected: {kinds(results)}.\n\n{markdown(results)}"
    path.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: Result) -> list[str]:
    numbers = (result.rows, result.lost, result.duplicated, result.stale, result.resurrected)
    return [
        str(result.seed),
        ", ".join(result.stores),
        _faults(result),
        f"{result.webhooks:,}",
        str(result.restarts),
        *(f"{number:,}" for number in numbers),
        f"{result.healed_after:.0f} s",
        "equal" if result.good else f"WRONG: {result.wrong[0][:80]}",
    ]


def _faults(result: Result) -> str:
    counts = Counter(result.injected)
    return ", ".join(f"{kind} x{count}" if count > 1 else kind for kind, count in sorted(counts.items()))
