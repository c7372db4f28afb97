"""Postgres and Redis on this machine, for whoever sets no DATABASE_URL or REDIS_URL.

How both are started and stopped is in `server.py`; here is what differs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from backstock.children import die_with_parent
from backstock.ports import HOST
from backstock.programs import find_postgres, find_redis
from backstock.server import (
    POLL,
    STOPS_WITHIN,
    AlreadyRunningError,
    EmbeddedServerError,
    Server,
    last_lines,
)

if TYPE_CHECKING:
    from backstock.programs import PostgresPrograms

POSTGRES_STARTS_WITHIN = 60.0  # seconds; recovery replays up to max_wal_size after a crash
REDIS_STARTS_WITHIN = 60.0  # seconds; a large append-only file is read back first
LEFTOVER_ENDS_WITHIN = 20.0  # seconds for a server whose launcher was killed

POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "200",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
FIRST_WITH_BUILTIN_LOCALE = 17


class EmbeddedPostgres(Server):
    """A Postgres of our own. `durable=False` is for tests: fast, and worthless after a power cut."""

    name = "Postgres"
    stop_signal = signal.SIGINT  # fast shutdown: rolls back what is open, writes a checkpoint
    starts_within = POSTGRES_STARTS_WITHIN

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        super().__init__(data_dir)
        self.durable = durable
        self._programs: PostgresPrograms | None = None

    @property
    def programs(self) -> PostgresPrograms:
        if self._programs is None:
            self._programs = find_postgres(self.account, major=_major_of(self.home / "data"))
        return self._programs

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.password}@{HOST}:{self.port}/{database}"

    def answers(self) -> bool:
        probe = [self.programs.path("pg_isready"), "--quiet", "--host", HOST, "--port", str(self.port)]
        return subprocess.run(probe, cwd="/", check=False, timeout=STOPS_WITHIN).returncode == 0

    def _prepare(self) -> None:
        if _major_of(self.home / "data") is None:
            self._create()
        else:
            self._end_leftover()

    def _create(self) -> None:
        """A half-made folder of an interrupted first start holds nothing: it is made again."""
        shutil.rmtree(self.home / "data", ignore_errors=True)
        password_file = self._secret_file("password", secrets.token_urlsafe(24))
        made = subprocess.run(
            [
                self.programs.path("initdb"),
                f"--pgdata={self._data_folder()}",
                "--username=postgres",
                "--auth=scram-sha-256",
                f"--pwfile={password_file}",
                "--encoding=UTF8",
                *self._locale(),
                *([] if self.durable else ["--no-sync"]),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            timeout=self.starts_within,
            start_new_session=True,  # the terminal's Ctrl-C is for us: we stop when it has ended, in order
            preexec_fn=die_with_parent(signal.SIGTERM),
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=self.account.extra_groups,
        )
        if made.returncode:
            self.log_file.write_text(made.stdout + made.stderr)
            shutil.rmtree(self.home / "data", ignore_errors=True)
            raise EmbeddedServerError(f"initdb failed ({last_lines(self.log_file)}): see {self.log_file}")

    def _locale(self) -> list[str]:
        """The same order of text on every machine, whatever locales it has."""
        if self.programs.major >= FIRST_WITH_BUILTIN_LOCALE:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"]

    def _end_leftover(self) -> None:
        """We hold the lock: a server that still runs on this folder has lost its launcher and has to go."""
        pid_file = self.home / "data" / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            if not _runs_on(
                pid, self.home / "data"
            ):  # a number that another process has by now would block the start
                pid_file.unlink(missing_ok=True)
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.stop_signal)
            _wait_until_gone(pid, self.home / "data")

    def _command(self) -> list[str]:
        settings = POSTGRES_SETTINGS | {"port": str(self.port)} | ({} if self.durable else NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self.programs.path("postgres"), "-D", str(self.home / "data"), *options]


class EmbeddedRedis(Server):
    """A Redis (or Valkey) of our own."""

    name = "Redis"
    stop_signal = signal.SIGTERM
    starts_within = REDIS_STARTS_WITHIN

    def __init__(self, data_dir: Path, *, aof: bool = True) -> None:
        super().__init__(data_dir)
        self.aof = aof
        self._program: Path | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=None)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still reading its file back
            return False
        finally:
            client.close()

    def _prepare(self) -> None:
        self._program = self._program or find_redis(self.account)
        if not (self.home / "password").exists():
            self._secret_file("password", secrets.token_urlsafe(24))
        self._data_folder()

    def _command(self) -> list[str]:
        return [str(self._program), str(self._secret_file("redis.conf", self._settings()))]

    def _settings(self) -> str:
        """In a file, because a command line shows the password to everybody on the machine."""
        lines = {
            "bind": HOST,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": f'"{self.home / "data"}"',
            "save": '""',
            "appendonly": "yes" if self.aof else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _major_of(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text())
    except (OSError, ValueError):
        return None


def _runs_on(pid: int, data: Path) -> bool:
    """Whether the process is a server of this folder (`ps` where there is no /proc)."""
    if Path("/proc/self/cmdline").exists():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # gone before, or while, we looked
            return False
    else:
        ps = ["/bin/ps", "-o", "command=", "-p", str(pid)]
        words = subprocess.run(ps, capture_output=True, check=False, timeout=STOPS_WITHIN).stdout
    return os.fsencode(data) in words


def _wait_until_gone(pid: int, data: Path) -> None:
    deadline = time.monotonic() + LEFTOVER_ENDS_WITHIN
    while _runs_on(pid, data):
        if time.monotonic() > deadline:
            raise AlreadyRunningError(
                f"a Postgres on {data} (process {pid}) does not stop: end it, then start again"
            )
        time.sleep(POLL)
