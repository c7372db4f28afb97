"""Child processes that end with us: even a `kill -9` of the parent leaves no orphan on Linux."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    """For `preexec_fn`. From the main thread only: Linux sends the signal when the *thread* that forked ends.

    It runs after the change of the user, which would clear the wish again.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: a forked child should do as little as it can
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # the parent died before the wish was heard
            os._exit(1)

    return ask
