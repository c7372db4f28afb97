"""Asks PyPI's advisory service about every locked package: `make audit`.

a known vulnerability            -> exit 1, a line each
listed in audit-accepted.txt     -> reported, no failure; the list says why and until when
the service cannot be reached    -> said so, exit 0: another's outage is not our fault, nor a clean bill
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).parent
ROOT = HERE.parent
AUDITOR = "pip-audit==2.10.1"
INSTALL_WITHIN, ASK_WITHIN = 180, 240  # seconds


class Vulnerability(TypedDict):
    """An advisory, and the versions that mend it."""

    id: str
    fix_versions: list[str]


class Package(TypedDict, total=False):
    """What the auditor says of one locked package."""

    name: str
    version: str
    skip_reason: str
    vulns: list[Vulnerability]


def main() -> int:
    """Print what was found; 1 if a vulnerability was that nobody has accepted."""
    try:
        packages = ask(auditor())
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        print(f"audit: could not ask for advisories ({type(error).__name__}): nothing was audited")
        return 0
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, each) for package in packages for each in package.get("vulns", [])]
    accepted = {
        line.split()[0]
        for line in (HERE / "audit-accepted.txt").read_text().splitlines()
        if line[:1] not in {"", "#"}
    }
    for package, each in found:
        verdict = "accepted" if each["id"] in accepted else "VULNERABLE"
        mended = ", ".join(each["fix_versions"]) or "no version yet"
        print(f"audit: {verdict}: {package['name']} {package['version']}: {each['id']}, mended in {mended}")
    if skipped:
        print(f"audit: the advisory service does not answer for {len(skipped)} of {len(packages)} packages")
    print(f"audit: {len(packages) - len(skipped)} packages audited, {len(found)} advisories")
    return int(any(each["id"] not in accepted for _, each in found))


def auditor() -> Path:
    """The program, in an environment of its own: what audits the lock is not part of it."""
    folder = ROOT / ".venv" / "audit"
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "-qq", AUDITOR],
            check=True,
            timeout=INSTALL_WITHIN,
        )
    return program


def ask(program: Path) -> list[Package]:
    """Every package of the lock with what is known against it; it exits 1 when it knows something."""
    answer = subprocess.run(
        [
            program,
            "--requirement",
            "requirements.lock",
            "--disable-pip",
            "--require-hashes",
            "--format",
            "json",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=ASK_WITHIN,
        check=False,
    )
    packages: list[Package] = json.loads(answer.stdout)["dependencies"]
    return packages


if __name__ == "__main__":
    sys.exit(main())
