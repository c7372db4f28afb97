"""Processor time of each process of the route, and of Postgres by whom it works for."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from route import Route

TICKS = os.sysconf("SC_CLK_TCK")
OWN = slice(11, 13)  # utime and stime, counted after the command's name
IDLE = (3, 4)  # idle and waiting for input and output, in the machine's line
WHOSE = "select pid, application_name from pg_stat_activity where application_name <> ''"


@dataclass(frozen=True)
class Used:
    """Seconds of a processor by process, until a moment; `machine`: of everything that runs here."""

    at: float
    seconds: Counter[str]
    machine: float

    def __sub__(self, before: Used) -> Used:
        spent = Counter({name: s - before.seconds[name] for name, s in self.seconds.items()})
        return Used(self.at - before.at, spent, self.machine - before.machine)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.most_common())
        ours = self.seconds.total()
        return (
            f"{ours:.1f} processor seconds in {self.at:.1f} s, {self.machine - ours:.1f} of others: {parts}"
        )


async def used(route: Route) -> Used:
    """What every process has used since it started."""
    seconds = Counter({name: _of(pid) for name, pid in route.pids.items()})
    whose = {row["pid"]: row["application_name"] for row in await route.db.fetch(WHOSE)}
    for pid in _children(route.pids["Postgres"]):
        seconds[f"Postgres for {whose.get(pid, 'itself')}"] += _of(pid)
    return Used(time.perf_counter(), seconds, _of_the_machine())


def _of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return sum(int(field) for field in fields[OWN]) / TICKS


def _of_the_machine() -> float:
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    return sum(int(field) for number, field in enumerate(fields) if number not in IDLE) / TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
