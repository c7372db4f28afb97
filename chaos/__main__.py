"""`python -m chaos`: one run by its seed, or many, each in a process of its own."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvloop

from backstock.up import ending_in_order
from chaos import report, scenarios
from chaos.report import Result
from chaos.run import run
from chaos.world import temporary_folder

ONE_RUN_WITHIN = 300.0  # seconds, after which a run has failed whatever it says
ENDS_WITHIN = 60.0  # seconds for a run that is told to end
KEPT = Path(".chaos")  # where the logs of failed runs stay
SHOWN = 25  # faults of a failed run shown on the screen


def main() -> int:
    """Run what is asked for; 1 if any run ended wrong."""
    asked = _parse()
    if asked.child:
        return _child(asked.seed, asked.scenario)
    if asked.scenario:
        return _child(asked.seed or 1, asked.scenario)
    first = asked.seed or asked.first
    seeds = range(first, first + (1 if asked.seed else asked.runs))
    began = time.monotonic()
    with ThreadPoolExecutor(asked.parallel) as pool:
        results = list(pool.map(_run_seed, seeds))
    return _tell(results, asked, time.monotonic() - began)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="repeat this one run")
    parser.add_argument("--runs", type=int, default=3, help="how many runs (3)")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--table", type=Path, help="write the results between the marks of this page")
    parser.add_argument("--results", type=Path, help="append the results to this file, one JSON a line")
    parser.add_argument("--scenario", choices=sorted(scenarios.SCENARIOS), help="one story instead of a seed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_seed(seed: int) -> Result:
    """In a process of its own, so that a run that hangs or dies harms no other."""
    command = [sys.executable, "-m", "chaos", "--child", "--seed", str(seed)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        said, _ = child.communicate(timeout=ONE_RUN_WITHIN)
        result = msgspec.json.decode(said.rpartition(b"\n")[2], type=Result)
    except subprocess.TimeoutExpired:
        _end(child)
        result = Result.broken(seed, f"it did not end within {ONE_RUN_WITHIN:.0f} s")
    except msgspec.DecodeError:
        result = Result.broken(seed, f"it ended with code {child.returncode} and without a result")
    _say(_summary(result))
    return result


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()  # it ends what it started
    try:
        child.communicate(timeout=ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


def _summary(result: Result) -> str:
    verdict = "equal" if result.good else "WRONG"
    name = f"seed {result.seed}" if result.seed else result.injected[0]  # a story has no seed
    line = (
        f"{name}: {verdict}, {result.rows:,} rows, lost {result.lost}, duplicated "
        f"{result.duplicated}, stale {result.stale}, resurrected {result.resurrected}, "
        f"healed after {result.healed_after:.1f} s, took {result.took:.0f} s"
    )
    if result.good:
        return line
    faults = "\n".join(f"    {fault}" for fault in result.schedule)
    wrong = "\n".join(f"    {fault}" for fault in result.wrong[:SHOWN])
    return f"{line}\n  faults:\n{faults}\n  wrong:\n{wrong}\n  logs: {KEPT / name.replace(' ', '-')}"


def _child(seed: int, scenario: str | None) -> int:
    """One run in this very process: progress on stderr, the result as JSON on stdout."""
    with temporary_folder() as folder:
        work = scenarios.SCENARIOS[scenario](folder, _say) if scenario else run(seed, folder, _say)
        try:
            result = uvloop.run(ending_in_order(work))
        except BaseException:
            _keep(folder, scenario or f"seed-{seed}")
            raise
        if not result.good:
            _keep(folder, scenario or f"seed-{seed}")
    if scenario:
        _say(_summary(result))
    else:
        print(f"\n{msgspec.json.encode(result).decode()}", end="")  # noqa: T201 - for the parent: the last line
    return 0 if result.good else 1


def _keep(folder: Path, name: str) -> None:
    kept = KEPT / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder / "logs", kept)
    for server in ("postgres", "redis"):
        if (log := folder / server / "server.log").exists():
            shutil.copy(log, kept / f"{server}.log")


def _tell(results: Sequence[Result], asked: argparse.Namespace, took: float) -> int:
    if asked.results:
        with asked.results.open("a") as file:
            file.writelines(msgspec.json.encode(result).decode() + "\n" for result in results)
        results = [msgspec.json.decode(line, type=Result) for line in asked.results.read_text().splitlines()]
    if asked.table:
        report.write_table(asked.table, results)
    _say(f"\n{report.markdown(results)}\n\n{report.sums(results)} Took {took:.0f} s.")
    return 0 if all(result.good for result in results) else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - for a person


if __name__ == "__main__":
    sys.exit(main())
