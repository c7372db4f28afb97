"""Break each mechanism once, in a copy of the repository, and see its test fail: `make mutations`.

copy of the repository -> one text replaced -> that one test
   fails           -> killed: the mechanism is what keeps the guarantee, and the test sees it
   passes          -> SURVIVED: the test does not see it; exit 1
   anything else   -> BROKEN: no such text, no such test, no answer in time; exit 1
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mutations.catalogue import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "shared",
    "services/ingress",
    "services/bulk-runner",
    "services/promoter",
    "services/status",
    "sandbox",
    "cli",
)
TEST_WITHIN = 180.0  # seconds; the slowest of these tests takes twenty alone
TABLE = ROOT / "docs" / "guarantees.md"
MARK = "<!-- written by `make mutations ARGS=--write` -->\n"
AT_ONCE = 2  # each brings its own Postgres and Redis
PASSED, FAILED = 0, 1  # pytest's exit codes; all others say that nothing was tested


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation, in a word, and pytest's own last words."""

    mutation: Mutation
    word: str
    seconds: float
    output: str = ""


def mutate(text: str, mutation: Mutation) -> str:
    """The file's text without the mechanism; ValueError unless the line stands there as it should."""
    found = text.count(mutation.before)
    if found != mutation.times:
        raise ValueError(
            f"{mutation.mechanism}: its text stands {found} times in {mutation.file}, not {mutation.times}"
        )
    return text.replace(mutation.before, mutation.after)


def judge(mutation: Mutation, python: str) -> Verdict:
    """Run the mutation's test against a copy of the repository that lacks the mechanism."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="backstock-mutation-") as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        broken = copy / mutation.file
        try:
            broken.write_text(mutate(broken.read_text("utf-8"), mutation), "utf-8")
            run = _pytest(mutation.test, copy, python)
        except (ValueError, subprocess.TimeoutExpired) as error:
            return Verdict(mutation, "BROKEN", time.monotonic() - began, str(error))
    word = {PASSED: "SURVIVED", FAILED: "killed"}.get(run.returncode, "BROKEN")
    return Verdict(mutation, word, time.monotonic() - began, run.stdout)


def _pytest(test: str, copy: Path, python: str) -> subprocess.CompletedProcess[str]:
    # In front of the installed packages, for the test as for every service that it starts.
    paths = os.pathsep.join(str(copy / package) for package in PACKAGES)
    return subprocess.run(
        [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TEST_WITHIN,
        check=False,
    )


def rows(verdicts: Iterable[Verdict]) -> list[str]:
    """A table for people and for `docs/guarantees.md`."""
    lines = ["| mechanism | switched off | the test that fails | |", "|---|---|---|---|"]
    for verdict in verdicts:
        m = verdict.mutation
        lines.append(f"| {m.mechanism} | {m.without} | `{m.test}` | {verdict.word} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all mutations, or those whose mechanism is named; 1 unless every one was killed."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("mechanism", nargs="*", help="some of them only; all unless given")
    parser.add_argument("--write", action="store_true", help=f"put the table into {TABLE.relative_to(ROOT)}")
    parser.add_argument("--verbose", action="store_true", help="show what pytest said of each")
    chosen = parser.parse_args(arguments)
    known = {mutation.mechanism for mutation in MUTATIONS}
    if unknown := set(chosen.mechanism) - known:
        parser.error(f"no mechanism {min(unknown)!r}; there are: {', '.join(sorted(known))}")
    wanted = [m for m in MUTATIONS if not chosen.mechanism or m.mechanism in chosen.mechanism]
    verdicts: dict[Mutation, Verdict] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in as_completed([pool.submit(judge, mutation, sys.executable) for mutation in wanted]):
            verdict = done.result()
            verdicts[verdict.mutation] = verdict
            print(
                f"{len(verdicts):3d}/{len(wanted)} {verdict.word:8} {verdict.seconds:5.1f} s "
                f"{verdict.mutation.mechanism}",
                flush=True,
            )
            if verdict.word != "killed" or chosen.verbose:
                print(verdict.output[-3000:], flush=True)
    table = "\n".join(rows(verdicts[mutation] for mutation in wanted))
    print(table)
    if chosen.write:
        TABLE.write_text(TABLE.read_text("utf-8").partition(MARK)[0] + MARK + "\n" + table + "\n", "utf-8")
    return int(any(verdict.word != "killed" for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
