"""compose.yaml and deploy/Dockerfile agree with the workspace they package."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from shared.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
OURS = {name: part for name, part in COMPOSE["services"].items() if "build" in part}
STORES = {"postgres", "redis"}
SETTINGS = {name.upper() for name in Settings.model_fields}


def members():
    """The folders of the workspace's packages, as `[tool.uv.workspace]` finds them."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    return [
        found for pattern in patterns for found in ROOT.glob(pattern) if (found / "pyproject.toml").exists()
    ]


def console_commands():
    """Every console command that the workspace installs."""
    projects = [tomllib.loads((member / "pyproject.toml").read_text())["project"] for member in members()]
    return {name for project in projects for name in project.get("scripts", {})}


def test_all_of_the_route_is_in_compose():
    """The stores, the one-shot migration, the four services and the sandbox are there, nothing else."""
    services = {"ingress", "bulk-runner", "promoter", "status"}
    assert set(COMPOSE["services"]) == STORES | services | {"migrate", "sandbox"}


@pytest.mark.parametrize("name", OURS)
def test_a_container_runs_a_console_command_of_the_workspace(name):
    """The image holds the command that the container starts, and the command exists."""
    program = OURS[name]["command"][0]
    assert program in console_commands()
    assert OURS[name]["build"]["args"]["SERVICE"] == program


@pytest.mark.parametrize("name", OURS)
def test_a_container_is_given_known_settings_only(name):
    """A misspelt variable would be ignored in silence."""
    assert set(OURS[name].get("environment", {})) <= SETTINGS


def test_everybody_waits_for_the_stores_and_the_migration():
    """A service starts on a healthy Postgres and Redis with current tables; the migration needs Postgres."""
    for name in ("ingress", "bulk-runner", "promoter", "status"):
        conditions = {other: how["condition"] for other, how in OURS[name]["depends_on"].items()}
        assert conditions == {
            "postgres": "service_healthy",
            "redis": "service_healthy",
            "migrate": "service_completed_successfully",
        }
    assert set(OURS["migrate"]["depends_on"]) == {"postgres"}
    assert OURS["migrate"]["restart"] == "no"


def test_only_ingress_and_status_are_reachable_and_only_from_this_machine():
    """Stores and workers publish no port."""
    published = {name: part["ports"] for name, part in COMPOSE["services"].items() if part.get("ports")}
    assert set(published) == {"ingress", "status"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", ["ingress", "bulk-runner", "promoter", "status"])
def test_a_health_check_asks_the_port_that_the_service_listens_on(name):
    """`/readyz` is asked where INGRESS_BIND, STATUS_BIND or HEALTH_BIND point."""
    bind = next(value for key, value in OURS[name]["environment"].items() if key.endswith("_BIND"))
    port = bind.rpartition(":")[2]
    assert f"127.0.0.1:{port}/readyz" in OURS[name]["healthcheck"]["test"][-1]


def test_bulk_runners_can_be_scaled():
    """A fixed name or a published port would forbid a second one."""
    assert not {"container_name", "ports", "hostname"} & set(OURS["bulk-runner"])


def test_the_sandbox_runs_only_when_asked_for():
    """A production start brings no local Shopify along."""
    assert COMPOSE["services"]["sandbox"]["profiles"] == ["demo"]


def test_the_image_copies_and_installs_every_member():
    """A package added to the workspace has to be added to the image."""
    sources = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE)
    assert all((ROOT / source).exists() for source in sources)
    installed = {
        ROOT / path for path in re.findall(r"\./([\w/-]+)", DOCKERFILE.split("--no-build-isolation")[1])
    }
    assert set(members()) <= installed
    for member in members():
        assert any(member.is_relative_to(ROOT / source) for source in sources), member


def test_the_image_runs_without_root_from_the_lock():
    """The last user is unprivileged; dependencies come from the lock, with hashes."""
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users
    assert users[-1] not in {"0", "root"}
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


def test_the_build_context_holds_what_is_copied():
    """.dockerignore lets through each source of a COPY."""
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert set(re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE)) <= let_through


def test_env_example_names_settings_only_and_all_of_them():
    """The example is the settings' reference: none is missing, none is made up."""
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z][A-Z_]+)=", example, re.MULTILINE))
    assert named == SETTINGS


def test_docker_compose_accepts_the_file(tmp_path):
    """Where the compose client is installed, it reads the file (no engine is needed for that)."""
    docker = shutil.which("docker")
    probe = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, timeout=20, check=False
    )
    if not probe or probe.returncode:
        assert COMPOSE["services"]  # no client here: the tests above have read the file themselves
        return
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    read = subprocess.run(
        [docker, "compose", "--profile", "demo", "config", "--quiet"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert read.returncode == 0, read.stderr
