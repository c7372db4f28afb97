"""A server of ours on this machine: one folder with its data, password, port and log, and one child process.

lock the folder -> clear what a crash left -> start on the remembered port -> wait until it answers

It runs in the foreground, listens on 127.0.0.1 only and asks for a password. `stop` waits; `start` works
again after a `kill -9` of the server, or of us.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from backstock.children import die_with_parent
from backstock.errors import CommandError
from backstock.ports import free_port, port_is_free
from backstock.programs import Account, account_for_servers, can_enter, owned_folder

if TYPE_CHECKING:
    import signal

STOPS_WITHIN = 20.0  # seconds before a server that ignores its stop signal is killed
POLL = 0.02  # seconds between two looks at a starting server
LOG_KEPT = 5_000_000  # bytes of a server's log kept from one start to the next
START_TRIES = (
    5  # a port may be taken, or a crashed server's memory still held, in the very moment of the start
)


class EmbeddedServerError(CommandError):
    """A server that we start ourselves did not start; the message names its log."""


class AlreadyRunningError(EmbeddedServerError):
    """Another process runs a server on this folder."""


class Server(ABC):
    """What both servers share: the folder with its lock, password, port and log, and the child process."""

    name: str
    stop_signal: signal.Signals
    starts_within: float

    def __init__(self, data_dir: Path) -> None:
        self.account: Account = account_for_servers()
        self.home = _home(Path(data_dir).absolute(), self.account)
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._port: int | None = None
        self._deadline = 0.0
        self._tries_left = 0

    @property
    def port(self) -> int:
        if self._port is None:
            raise EmbeddedServerError(f"{self.name} is not started")
        return self._port

    @property
    def log_file(self) -> Path:
        return self.home / "server.log"

    @property
    def password(self) -> str:
        return (self.home / "password").read_text().strip()

    def start(self) -> Self:
        self.spawn()
        while not self.has_started():
            time.sleep(POLL)
        return self

    def spawn(self) -> None:
        """Starts the process without waiting; from the main thread (see `die_with_parent`)."""
        self._deadline = time.monotonic() + self.starts_within
        self._tries_left = START_TRIES
        self._take_lock()
        try:
            self._spawn_once()
        except BaseException:
            self.stop()
            raise

    def has_started(self) -> bool:
        """One look at the starting process; raises when it will not come up any more."""
        if time.monotonic() > self._deadline:
            raise self._failure(f"did not answer within {self.starts_within:.0f} s")
        if self.alive():
            return self.answers()
        self._tries_left -= 1
        if not self._tries_left or not self._worth_another_try():
            raise self._failure(f"did not start ({last_lines(self.log_file)})")
        time.sleep(POLL * 10)
        self._spawn_once()
        return False

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @abstractmethod
    def answers(self) -> bool: ...

    def stop(self) -> None:
        if self.process is not None:
            _end(self.process, self.stop_signal)
            self.process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _spawn_once(self) -> None:
        self._prepare()
        self._port = self._choose_port()
        self._rotate_log()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is for us; servers stop after the services
                preexec_fn=die_with_parent(self.stop_signal),  # noqa: PLW1509 - one prctl, nothing that locks
                user=self.account.uid,
                group=self.account.gid,
                extra_groups=self.account.extra_groups,
            )

    def _failure(self, what: str) -> EmbeddedServerError:
        self.stop()
        return EmbeddedServerError(f"{self.name} {what}: see {self.log_file}")

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700 if self.account.is_ours else 0o711)
        lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyRunningError(f"{self.name} on {self.home} is already running") from None
        self._lock = lock

    def _choose_port(self) -> int:
        """The port of last time, when it is free: connection strings that were handed out stay right."""
        remembered = self.home / "port"
        with contextlib.suppress(OSError, ValueError):
            port = self._port or int(remembered.read_text())
            if port_is_free(port):
                return port
        port = free_port()
        remembered.write_text(str(port))
        return port

    def _worth_another_try(self) -> bool:
        """Both pass in a moment: a port taken between look and bind, memory that a crash left behind."""
        last = last_lines(self.log_file, lines=8).lower()
        return "address already in use" in last or "still in use" in last

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_KEPT:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _secret_file(self, name: str, text: str) -> Path:
        """A file that only the server's account (and root) can read."""
        path = self.home / name
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - the mode from its first moment
            file.write(text)
        self._give(path)
        return path

    def _data_folder(self) -> Path:
        folder = self.home / "data"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give(folder)
        return folder

    def _give(self, path: Path) -> None:
        if self.account.uid is not None and self.account.gid is not None:
            os.chown(path, self.account.uid, self.account.gid)


def _home(wanted: Path, account: Account) -> Path:
    """The wanted folder, or one in /var/tmp where root's unprivileged servers can go; a note tells."""
    wanted.mkdir(parents=True, exist_ok=True)
    if can_enter(wanted.parent, account):
        return wanted
    elsewhere = owned_folder(f"backstock-data-{hashlib.sha256(str(wanted).encode()).hexdigest()[:12]}")
    (wanted / "MOVED").write_text(
        f"The server's account cannot enter this folder; the data are in {elsewhere}\n"
    )
    return elsewhere


def _end(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(stop_signal)
    try:
        process.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOPS_WITHIN)


def last_lines(log_file: Path, lines: int = 1) -> str:
    if not log_file.exists():
        return "no log"
    with log_file.open("rb") as log:
        log.seek(max(0, log_file.stat().st_size - 4096))
        written = log.read().decode(errors="replace").strip().splitlines()
    return "\n".join(written[-lines:]) or "empty log"
