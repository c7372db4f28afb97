"""What every process reads from its environment (and from `.env`): one class, checked at the start."""

from __future__ import annotations

import sys
from typing import Self
from urllib.parse import quote, urlsplit

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import SettingError
from shared.listeners import check_bind

REMEDIES = {
    "database_url": "set DATABASE_URL, for example postgresql://user:password@127.0.0.1:5432/backstock, "
    "or run `backstock up`, which brings a Postgres along",
    "redis_url": "set REDIS_URL, for example redis://127.0.0.1:6379/0, "
    "or run `backstock up`, which brings a Redis along",
    "backstock_secret_keys": "make one with: python -c "
    "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'",
    "backstock_api_key": "set BACKSTOCK_API_KEY to at least 16 random characters",
    "shopify_api_version": "use a version such as 2026-10",
    "recent_days": "use a number of days from 1 to 60",
    "start_within": "use a number of seconds from 0 to 3600",
    "request_within": "use a number of seconds from 0.5 to 600",
    "redis_port": "use a port from 1 to 65535",
    "shopify_client_secret": "copy the client secret of your app from Shopify's Dev Dashboard",
}


class Settings(BaseSettings):
    """The settings of section 4.1 of the design; names are the environment's, in lower case."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", env_ignore_empty=True, validate_default=True
    )

    database_url: str = ""
    redis_url: str = ""
    redis_host: str = ""
    redis_port: int = Field(6379, ge=1, le=65535)
    redis_password: SecretStr = SecretStr("")

    shopify_client_id: str = ""
    shopify_client_secret: SecretStr = SecretStr("")
    shopify_client_secret_previous: SecretStr = SecretStr("")
    shopify_api_version: str = Field("2026-10", pattern=r"^(20\d\d-(01|04|07|10)|unstable)$")
    shopify_origin: str = "https://{shop}"
    shopify_scopes: str = "read_orders,read_all_orders,read_customers,read_products,read_inventory"

    ingress_url: str = "http://127.0.0.1:8001"
    status_url: str = "http://127.0.0.1:8002"
    ingress_bind: str = "127.0.0.1:8001"
    status_bind: str = "127.0.0.1:8002"
    health_bind: str = ""

    backstock_api_key: SecretStr = SecretStr("")
    backstock_secret_keys: SecretStr = SecretStr("")
    recent_days: int = Field(3, ge=1, le=60)
    paged_up_to: int = Field(250, ge=0, le=10_000)
    bulk_stuck_after: float = Field(900, ge=1)
    catch_up_every: float = Field(3600, ge=1)
    audit_every: float = Field(86400, ge=1)
    webhook_check_every: float = Field(3600, ge=1)
    keep_events_days: float = Field(30, ge=0, le=3650)
    start_within: float = Field(30, ge=0, le=3600)
    request_within: float = Field(10, ge=0.5, le=600)
    log_level: str = Field("INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, value: str) -> str:
        return _checked_url(value, "postgresql", "postgres")

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        return _checked_url(value, "redis", "rediss", "unix") if value else value

    @field_validator("shopify_origin", "ingress_url", "status_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        return _checked_url(value, "http", "https").rstrip("/")

    @field_validator("ingress_bind", "status_bind", "health_bind")
    @classmethod
    def _to_listen_on(cls, value: str) -> str:
        if value:
            check_bind(value)
        return value

    @field_validator("backstock_api_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:  # noqa: PLR2004 - below that it can be guessed
            raise ValueError("is missing or shorter than 16 characters")
        return value

    @field_validator("backstock_secret_keys")
    @classmethod
    def _fernet_keys(cls, value: SecretStr) -> SecretStr:
        keys = [key.strip() for key in value.get_secret_value().split(",") if key.strip()]
        if not keys:
            raise ValueError("is missing")
        for number, key in enumerate(keys, 1):
            try:
                Fernet(key)
            except ValueError as error:
                raise ValueError(f"key {number} is not 32 url-safe base64 bytes") from error
        return value

    @field_validator("shopify_client_secret")
    @classmethod
    def _secret_is_set(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            raise ValueError("is missing")
        return value

    @model_validator(mode="after")
    def _redis_from_parts(self) -> Self:
        if not self.redis_url:
            if not self.redis_host:
                raise ValueError("REDIS_URL is missing")
            password = quote(self.redis_password.get_secret_value(), safe="")
            login = f":{password}@" if password else ""
            self.redis_url = f"redis://{login}{self.redis_host}:{self.redis_port}/0"
        return self

    @property
    def client_secrets(self) -> tuple[str, ...]:
        """The app's secrets, newest first: after a rotation Shopify uses the old one for up to an hour."""
        both = (self.shopify_client_secret, self.shopify_client_secret_previous)
        return tuple(secret.get_secret_value() for secret in both if secret.get_secret_value())

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are asked for, in the order given."""
        return tuple(scope.strip() for scope in self.shopify_scopes.split(",") if scope.strip())

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """Our encryption keys, newest first."""
        return tuple(k.strip() for k in self.backstock_secret_keys.get_secret_value().split(",") if k.strip())

    def shop_url(self, shop: str) -> str:
        """Where a shop answers: `https://{shop}` unless SHOPIFY_ORIGIN says otherwise."""
        return self.shopify_origin.replace("{shop}", shop)


def _checked_url(value: str, *schemes: str) -> str:
    """The URL, if it is one of these schemes; the error never shows it, for there may be a password in it."""
    try:
        parts = urlsplit(value)
        _ = parts.port, parts.hostname
    except ValueError:
        raise ValueError("is not a URL: percent-encode special characters in the password") from None
    if parts.scheme not in schemes:
        raise ValueError(f"is not a {schemes[0]}:// URL")
    return value


def read_settings() -> Settings:
    """Read and check the settings; SettingError names the first one that is wrong, and the remedy."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "redis_url"
        ours = first["type"] == "value_error"  # pydantic's own words speak of patterns and types
        said = first["msg"].removeprefix("Value error, ").removeprefix("REDIS_URL ")
        what = said if ours else "has a value that it cannot have"
        remedy = REMEDIES.get(name, "see .env.example")
        raise SettingError(f"{name.upper()} {what}: {remedy}") from None


def load_settings() -> Settings:
    """The settings, or the end of the process with one clear line (exit code 78, "configuration error")."""
    try:
        return read_settings()
    except SettingError as error:
        print(f"backstock: {error}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(78) from None
