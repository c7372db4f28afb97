"""Values that are none, and how they get into JSON. Deterministic, unless `make fuzz` sets FUZZ_EXAMPLES."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

ODD_TEXTS = (
    "yesterday",
    "now",
    "infinity",
    "NaN",
    "a\x00b",
    "\ud800",
    "\u202e",
    "",
    "\\N",
    "\\.",
    "9" * 400,
    "{,}",
)
ODD = st.one_of(
    st.sampled_from([*ODD_TEXTS, None, True, [], {}, 0, -1, 2**31, 2**63, 2**64, 10**30, 1e308, 0.5]),
    st.text(max_size=8),
    st.integers(),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=20),
)


def fuzz(examples: int):
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


def mutate(draw, node):
    """Swap, double or take away one value somewhere in the JSON."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if isinstance(node[key], (dict, list)) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        match draw(st.integers(0, 5)):
            case 0:
                del node[key]
            case 1 if isinstance(node, list):
                node.append(node[key])
            case _:
                node[key] = draw(ODD)
        return


def drawn(strategy, number):
    """So many examples together: one call per example would cost a start of the services each."""
    found = []

    @settings(fuzz(number), max_examples=number)
    @given(strategy)
    def keep(example):
        found.append(example)

    keep()
    return found
