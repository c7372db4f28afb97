"""What a process reads from its environment, and the one line that it says when something is wrong."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from shared.errors import SettingError
from shared.listeners import bind_address
from shared.settings import Settings, load_settings, read_settings

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
GOOD = {
    "DATABASE_URL": "postgresql://u:p@127.0.0.1:5432/backstock",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "SHOPIFY_CLIENT_SECRET": "hush-of-the-app",
    "BACKSTOCK_API_KEY": "0123456789abcdef",
    "BACKSTOCK_SECRET_KEYS": KEY,
}


@pytest.fixture
def env(monkeypatch, tmp_path):
    """An environment with nothing but what is needed; `env(NAME=value)` changes it, None takes away."""
    monkeypatch.chdir(tmp_path)  # no .env of a checkout
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def change(**values):
        for name, value in {**GOOD, **values}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return read_settings

    change()
    return change


def test_the_defaults_are_those_of_the_design(env):
    """Where nothing is said, the documented defaults hold."""
    settings = env()()
    assert settings.shopify_api_version == "2026-10"
    assert settings.shopify_origin == "https://{shop}"
    assert settings.shop_url("a.myshopify.com") == "https://a.myshopify.com"
    assert settings.shopify_scopes == (
        "read_orders,read_all_orders,read_customers,read_products,read_inventory"
    )
    assert (settings.ingress_url, settings.status_url) == ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
    assert (settings.ingress_bind, settings.status_bind) == ("127.0.0.1:8001", "127.0.0.1:8002")
    assert settings.recent_days == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", "127.0.0.1:5432"),
        ("REDIS_URL", None),
        ("REDIS_URL", "http://127.0.0.1"),
        ("SHOPIFY_CLIENT_SECRET", None),
        ("SHOPIFY_CLIENT_SECRET", ""),
        ("SHOPIFY_API_VERSION", "2026-11"),
        ("SHOPIFY_API_VERSION", "latest"),
        ("SHOPIFY_ORIGIN", "{shop}"),
        ("INGRESS_URL", "localhost:8001"),
        ("STATUS_URL", "ftp://x"),
        ("INGRESS_BIND", "8001"),
        ("STATUS_BIND", "127.0.0.1:99999"),
        ("HEALTH_BIND", ":80"),
        ("BACKSTOCK_API_KEY", None),
        ("BACKSTOCK_API_KEY", "hunter2"),
        ("BACKSTOCK_SECRET_KEYS", None),
        ("BACKSTOCK_SECRET_KEYS", " , "),
        ("BACKSTOCK_SECRET_KEYS", f"{KEY},not-a-key"),
        ("RECENT_DAYS", "0"),
        ("RECENT_DAYS", "61"),
        ("RECENT_DAYS", "many"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(env, name, value):
    """One line: the setting, what is wrong, what helps; and never a secret's value."""
    with pytest.raises(SettingError) as wrong:
        env(**{name: value})()
    said = str(wrong.value)
    assert said.startswith(name + " ")
    assert ": " in said
    assert "\n" not in said
    if value and "KEY" in name:
        assert value not in said


def test_a_wrong_setting_ends_the_process(env, capsys):
    """The process ends with code 78 and says why on stderr, in one line."""
    env(DATABASE_URL=None)
    with pytest.raises(SystemExit) as end:
        load_settings()
    assert end.value.code == 78
    assert capsys.readouterr().err.startswith("backstock: DATABASE_URL ")


def test_redis_may_come_in_parts(env):
    """Host, port and a password with odd characters make the URL; a URL wins over the parts."""
    settings = env(REDIS_URL=None, REDIS_HOST="cache", REDIS_PORT="6380", REDIS_PASSWORD="p@ss/w:rd")()
    assert settings.redis_url == "redis://:p%40ss%2Fw%3Ard@cache:6380/0"
    assert env(REDIS_URL=None, REDIS_HOST="cache", REDIS_PASSWORD=None)().redis_url == "redis://cache:6380/0"
    assert env(REDIS_URL="rediss://x:1/0", REDIS_HOST="cache")().redis_url == "rediss://x:1/0"


def test_keys_and_secrets_come_newest_first(env):
    """While rotating, the newest key and the newest secret stand in front, blanks are ignored."""
    old = Fernet.generate_key().decode()
    settings = env(BACKSTOCK_SECRET_KEYS=f" {KEY} , {old},", SHOPIFY_CLIENT_SECRET_PREVIOUS="before")()
    assert settings.secret_keys == (KEY, old)
    assert settings.client_secrets == ("hush-of-the-app", "before")
    assert env(SHOPIFY_CLIENT_SECRET_PREVIOUS="")().client_secrets == ("hush-of-the-app",)


def test_urls_lose_their_last_slash(env):
    """Paths are put behind them, and a double slash would be another path."""
    settings = env(INGRESS_URL="https://x.example/", SHOPIFY_ORIGIN="http://127.0.0.1:8003/{shop}/")()
    assert settings.ingress_url == "https://x.example"
    assert settings.shop_url("a.myshopify.com") == "http://127.0.0.1:8003/a.myshopify.com"


def test_settings_do_not_show_their_secrets(env):
    """Printed or logged by mistake, they hide every key and secret."""
    shown = repr(env()())
    for name in ("SHOPIFY_CLIENT_SECRET", "BACKSTOCK_API_KEY", "BACKSTOCK_SECRET_KEYS"):
        assert GOOD[name] not in shown


def test_an_env_file_is_read_and_the_environment_wins(env, tmp_path, monkeypatch):
    """`.env` in the working folder fills in what the environment does not say."""
    (tmp_path / ".env").write_text("RECENT_DAYS=7\nLOG_LEVEL=DEBUG\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    settings = env()()
    assert (settings.recent_days, settings.log_level) == (7, "ERROR")


@pytest.mark.parametrize(
    ("value", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8001", ("::1", 8001)), ("host:65535", ("host", 65535))],
)
def test_an_address_is_host_and_port(value, address):
    """IPv6 hosts stand in brackets."""
    assert bind_address(value) == address
