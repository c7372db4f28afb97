"""`.backstock/`: keys, lock, and what the other commands find out from it."""

import os

import pytest
from cryptography.fernet import Fernet

from backstock.errors import CommandError
from backstock.home import Home, load_environment


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("BACKSTOCK_HOME", "BACKSTOCK_API_KEY", "STATUS_URL", "RECENT_DAYS"):
        monkeypatch.setenv(name, "")  # restores whatever load_environment sets
    home = Home.here()
    home.create()
    return home


def test_keys_are_made_once_and_closed_to_others(home):
    """The second start finds the keys of the first; the file is its owner's."""
    keys, is_new = home.keys()
    assert is_new
    assert home.keys() == (keys, False)
    Fernet(keys["BACKSTOCK_SECRET_KEYS"])
    assert (home.folder / "env").stat().st_mode & 0o077 == 0


def test_the_folder_cannot_be_listed_by_others(home):
    """Others see neither logs nor file names."""
    assert home.folder.stat().st_mode & 0o066 == 0
    assert home.logs.stat().st_mode & 0o077 == 0


def test_a_second_start_in_the_folder_is_told_so(home):
    """It names the folder, the process that runs there, and the way out."""
    with (
        home.locked(),
        pytest.raises(CommandError, match=rf"already running.*{os.getpid()}.*BACKSTOCK_HOME"),
        home.locked(),
    ):
        pass


def test_the_lock_is_free_after_the_end(home):
    """Stop and start again works."""
    for _ in range(2):
        with home.locked():
            assert (home.folder / "lock").read_text() == str(os.getpid())


def test_the_environment_wins_over_env_file_over_the_running_services(home, monkeypatch):
    """What is exported counts most, then .env, then what `backstock up` announced, then remembered keys."""
    home.keys()
    (home.folder.parent / ".env").write_text("RECENT_DAYS=5\nSTATUS_URL=http://from-env-file\n")
    monkeypatch.setenv("RECENT_DAYS", "7")
    announced = {"STATUS_URL": "http://announced", "BACKSTOCK_API_KEY": "announced-key-announced"}
    with home.announced(announced):
        load_environment(home)
    assert os.environ["RECENT_DAYS"] == "7"
    assert os.environ["STATUS_URL"] == "http://from-env-file"
    assert os.environ["BACKSTOCK_API_KEY"] == "announced-key-announced"
    assert home.running() == {}


def test_commands_find_a_running_demo(home):
    """With no `up` in the folder, the demo's services are the ones that answer."""
    home.demo.create()
    with home.demo.announced({"STATUS_URL": "http://demo"}):
        load_environment(home)
    assert os.environ["STATUS_URL"] == "http://demo"
