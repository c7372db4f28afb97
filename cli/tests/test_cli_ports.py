"""Free ports: nobody else is given one that was chosen and is not listened on yet."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

CHOOSER = """
import sys
from backstock import ports
ports.OURS = range(18_000, 18_000 + int(sys.argv[1]))
print(*(ports.free_port() for _ in range(20)), flush=True)
sys.stdin.read()
"""


def chooser(stack, folder, among):
    """A process that chooses twenty ports out of `among`, and keeps them until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHOOSER, str(among)],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def test_processes_that_choose_at_once_are_given_different_ports(tmp_path):
    """Three processes choose sixty of seventy ports; all of them differ."""
    with ExitStack() as stack:
        choosers = [chooser(stack, tmp_path, among=70) for _ in range(3)]
        chosen = [port for process in choosers for port in process.stdout.readline().split()]
        assert len(chosen) == len(set(chosen)) == 60


def test_ports_of_a_process_that_ended_are_given_again_and_their_lack_is_an_error(tmp_path):
    """Twenty ports are enough for one process after another, and not for two at once."""
    with ExitStack() as stack:
        first = chooser(stack, tmp_path, among=20)
        assert first.stdout.readline()
        second = chooser(stack, tmp_path, among=20)
        assert not second.stdout.readline()
        assert "no port from 18000 to 18019 of 127.0.0.1 is free" in second.stderr.read()
        first.kill()
        for process in (first, second):
            process.wait()
        assert chooser(stack, tmp_path, among=20).stdout.readline()
