"""Random choices at one C call each: `random.choice` costs five times as much."""

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sandbox import texts

T = TypeVar("T")
AWKWARD_SHARE = 0.02


class Draw:
    def __init__(self, seed: object) -> None:
        self.random = random.Random(repr(seed)).random

    def pick(self, of: Sequence[T]) -> T:
        return of[int(self.random() * len(of))]

    def between(self, low: int, high: int) -> int:
        """Low and high included."""
        return low + int(self.random() * (high - low + 1))

    def text(self, usual: str, awkward: float = AWKWARD_SHARE) -> str:
        return self.pick(texts.AWKWARD) if self.random() < awkward else usual

    def tags(self, most: int = 3) -> tuple[str, ...]:
        """As Shopify gives them back: without repeats, in alphabetical order."""
        return sorted_tags(self.pick(texts.TAGS) for _ in range(int(self.random() * (most + 1))))


def sorted_tags(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({tag.strip() for tag in tags if tag.strip()}, key=lambda tag: (tag.lower(), tag)))
