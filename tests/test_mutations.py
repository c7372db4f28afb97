"""The catalogue of mutations still fits the code; `make mutations` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutations.__main__ import ROOT, mutate
from mutations.catalogue import MUTATIONS


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.mechanism)
def test_a_mutation_finds_its_mechanism_and_its_test(mutation):
    """Its text stands exactly once, Python stays Python, and the test that must notice exists."""
    path = ROOT / mutation.file
    broken = mutate(path.read_text("utf-8"), mutation)
    if path.suffix == ".py":
        compile(broken, str(path), "exec")
    file, _, function = mutation.test.partition("::")
    assert f"def {function.partition('[')[0]}(" in Path(ROOT / file).read_text("utf-8")
