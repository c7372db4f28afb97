"""Flags and their SANDBOX_* environment names; what is wrong is said in one line, with its remedy."""

import argparse
import os
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from sandbox import clock


@dataclass(frozen=True)
class Settings:
    bind: str = "127.0.0.1:8003"
    shop: str = "demo-store.myshopify.com"
    orders: int = 20_000
    seed: int = 7
    currency: str = "USD"
    now: str = ""
    client_id: str = "sandbox-client-id"
    client_secret: str = "sandbox-client-secret"  # noqa: S105  a sandbox has no secrets
    token: str = field(default="shpat_sandbox_demo")
    objects_per_second: float = 20_000
    bucket: float = 2000
    restore_rate: float = 100
    max_operations: int = 5
    live_orders_per_minute: float = 0
    webhook_retry_seconds: float = 1.0
    access_token_seconds: int = 3600

    @property
    def host(self) -> str:
        return self.bind.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.bind.rpartition(":")[2])

    @property
    def anchor(self) -> int | None:
        return clock.parse(self.now) if self.now else None


HELP = {
    "bind": "host:port to listen on",
    "shop": "the store made at the start ('' for none)",
    "orders": "how many orders it has",
    "seed": "the same seed and --now make the same store",
    "currency": "its currency: USD, JPY, KWD, ...",
    "now": "what time it is in the store, ISO (default: the real time)",
    "client_id": "the app's client id",
    "client_secret": "the app's secret: signs webhooks and OAuth redirects",
    "token": "custom-app token of the start store",
    "objects_per_second": "pace of each bulk operation (0 = as fast as it goes)",
    "bucket": "points the rate-limit bucket holds",
    "restore_rate": "points it gets back each second",
    "max_operations": "bulk operations at a time",
    "live_orders_per_minute": "simulated trade with webhooks (0 = a quiet shop)",
    "webhook_retry_seconds": "pause before the first webhook retry; doubles eight times",
    "access_token_seconds": "life of an expiring access token",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"sandbox: {message} (see sandbox --help)", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)


def parse(arguments: list[str] | None = None) -> Settings:
    parser = _Parser(prog="sandbox", description="A local Shopify for demos and tests.", allow_abbrev=False)
    for name, text in HELP.items():
        default = Settings.__dataclass_fields__[name].default
        flag, variable = "--" + name.replace("_", "-"), "SANDBOX_" + name.upper()
        kind = type(default)
        parser.add_argument(
            flag,
            dest=name,
            type=kind,
            default=os.environ.get(variable, default),
            metavar=kind.__name__.upper(),
            help=f"{text} [{variable}, default {default!r}]",
        )
    found = Settings(**vars(parser.parse_args(arguments)))
    return _checked(parser, found)


def _checked(parser: _Parser, found: Settings) -> Settings:
    host, _, port = found.bind.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004
        parser.error(f"--bind {found.bind!r} is not host:port; write for example --bind 127.0.0.1:8003")
    if (
        found.orders < 0
        or found.objects_per_second < 0
        or found.max_operations < 1
        or found.live_orders_per_minute < 0
    ):
        parser.error(
            "--orders, --objects-per-second and --live-orders-per-minute must not be negative, "
            "--max-operations at least 1"
        )
    if found.bucket <= 0 or found.restore_rate <= 0:
        parser.error("--bucket and --restore-rate must be above 0")
    try:
        _ = found.anchor
    except ValueError:
        parser.error(f"--now {found.now!r} is not a date; write for example --now 2026-11-22T12:00:00Z")
    return found
