"""`.backstock/`: what one machine remembers between two starts: keys, data of the embedded servers, logs.

.backstock/env          keys that we made                             (0600)
.backstock/running.env  where the running `backstock up` answers      (0600, gone when it stops)
.backstock/logs/        one bounded log per service
.backstock/postgres, redis, demo/
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet
from dotenv import dotenv_values

from backstock.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = ".backstock"
API_KEY_BYTES = 32


@dataclass(frozen=True)
class Home:
    folder: Path

    @classmethod
    def here(cls) -> Home:
        return cls(Path(os.environ.get("BACKSTOCK_HOME") or FOLDER).absolute())

    @property
    def demo(self) -> Home:
        return Home(self.folder / "demo")

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def create(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"BACKSTOCK_HOME: {self.folder} cannot be a folder ({error.strerror}): "
                "name one that exists or can be made"
            ) from None
        # As root the servers run under another account, which has to walk through (it can list nothing).
        self.folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `backstock up` a folder. The kernel frees the lock however the process ends."""
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(
                    f"Backstock is already running in {self.folder} ({self._holder()}): "
                    "stop it, or set BACKSTOCK_HOME to another folder"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def keys(self) -> tuple[dict[str, str], bool]:
        """The keys that encrypt tokens and open the management API, and whether they were made just now."""
        path = self.folder / "env"
        known = _values(path)
        made = {
            "BACKSTOCK_API_KEY": secrets.token_urlsafe(API_KEY_BYTES),
            "BACKSTOCK_SECRET_KEYS": Fernet.generate_key().decode(),
        }
        keys = made | known
        if keys != known:
            write_env(path, keys)
        return keys, "BACKSTOCK_API_KEY" not in known

    def running(self) -> dict[str, str]:
        return _values(self.folder / "running.env")

    @contextmanager
    def announced(self, env: Mapping[str, str]) -> Iterator[None]:
        """Tells the other commands (`status`, `watch`, ...) where this one answers."""
        path = self.folder / "running.env"
        write_env(path, env)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _holder(self) -> str:
        pid = (self.folder / "lock").read_text().strip()
        return f"process {pid}" if pid else "another process"


def load_environment(home: Home, *, running: bool = True) -> None:
    """Adds to our environment what it lacks: from `.env`, a running `up` (or its demo), the keys we made."""
    answering = home.running() if running else {}
    keys = home
    if running and not answering and (answering := home.demo.running()):
        keys = home.demo
    for source in (_values(Path(".env")), answering, _values(keys.folder / "env")):
        for name, value in source.items():
            if not os.environ.get(name):
                os.environ[name] = value


def write_env(path: Path, values: Mapping[str, str]) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    draft.replace(path)


def _values(path: Path) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(path).items() if value}
