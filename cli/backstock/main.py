"""The `backstock` command. Each function is one command; what it does is in the module it calls.

up -> up.py, demo -> demo.py, watch -> watch.py, doctor -> checks.py, the others -> api.py
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.markup import escape

from backstock import demo as demonstration
from backstock import progress
from backstock.api import LIVE, Api, Progress
from backstock.audit import audit as compare_now
from backstock.checks import check_postgres, findings
from backstock.dead_letters_commands import dead_letters_app
from backstock.dead_letters_commands import replay as replay_dead_letters
from backstock.doctor import checks
from backstock.errors import CommandError
from backstock.home import Home, load_environment
from backstock.terminal import FAILED, guarded
from backstock.terminal import run as _run
from backstock.up import (
    SERVICES,
    Plan,
    local_urls,
    running,
    settle_addresses,
    until_cancelled,
)
from backstock.watch import bars
from backstock.watch import watch as show_progress
from shared.db import migrate as apply_migrations
from shared.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

P = ParamSpec("P")
T = TypeVar("T")

LOG_WIDTH = 160  # characters
DEMO_ORDERS = 20_000
DEMO_WITHIN = 600.0  # seconds; it takes a fraction of that on two busy cores
AUDIT_WITHIN = 3600.0  # seconds; a large store is read whole, by bulk operations
DASHBOARDS_SHOWN = 10
DEFAULT_JOBS = ("bulk_orders", "bulk_customers", "bulk_products")

app = typer.Typer(
    help="Copy Shopify stores into your own Postgres, and prove that nothing is missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(dead_letters_app, name="dead-letters")
# A log has no width of its own, and 80 characters would cut the proof's table.
console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)

BrandArgument = Annotated[str, typer.Argument(metavar="BRAND", help="Your own name for the store's owner.")]
OrdersOption = Annotated[int, typer.Option(min=1, help="How many orders the demo store holds.")]
RunnersOption = Annotated[int, typer.Option(min=1, max=64, help="How many bulk runners work side by side.")]


def command(function: Callable[P, T]) -> Callable[P, T]:
    """One of the app's commands, see terminal.py."""
    return app.command()(guarded(function))


@command
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Add a local Shopify and a connected demo store.")
    ] = False,
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help=f"Start only some of: {', '.join(SERVICES)}.")
    ] = "",
    bulk_runners: RunnersOption = 1,
    orders: OrdersOption = DEMO_ORDERS,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    configure_logs("backstock", "WARNING")
    if demo and only:
        raise CommandError("--demo needs every service: leave --only out")
    if demo:
        plan, _ = demonstration.plan_demo(Home.here(), orders, _print_log, bulk_runners=bulk_runners)
        _run(_up(plan, is_new_key=False, demo=True))
        return
    home = Home.here()
    home.create()
    keys, is_new = home.keys()
    load_environment(home, running=False)
    env = {name: value for name, value in os.environ.items() if value}
    settle_addresses(env, avoid_busy=False)
    plan = Plan(home, keys | env, _print_log, only=_chosen(only), bulk_runners=bulk_runners)
    _run(_up(plan, is_new_key=is_new))


@command
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, to look around.")] = False,
    orders: OrdersOption = DEMO_ORDERS,
    limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Give up after so long.")
    ] = DEMO_WITHIN,
) -> None:
    """Copy a demo store and prove that every table equals Shopify's; exit code 0 only then."""
    configure_logs("backstock", "WARNING")
    plan, sandbox = demonstration.plan_demo(Home.here(), orders, lambda _name, _line: None)
    if not _run(demonstration.run(plan, sandbox, console, keep=keep, limit=limit)):
        raise CommandError(f"the copy differs from the demo store: logs in {plan.home.logs}")
    console.print("[green]Everything that Shopify holds is here.[/]")


@command
def migrate() -> None:
    """Bring the database's tables up to date."""
    configure_logs("backstock", "WARNING")
    load_environment(Home.here())
    url = os.environ.get("DATABASE_URL", "")
    if not url:
        raise CommandError(
            "DATABASE_URL is missing: set it, or run `backstock up`, which migrates its own database"
        )

    async def work() -> list[str]:
        await check_postgres(url)
        try:
            return await apply_migrations(url)
        except asyncpg.PostgresError as error:
            raise CommandError(f"the database refuses the migration: {error}") from None

    applied = _run(work())
    console.print("\n".join(f"applied {name}" for name in applied) or "The database is up to date.")


@command
def connect(
    shop: Annotated[str, typer.Argument(help="The shop's domain, such as my-store.myshopify.com.")],
    brand: Annotated[str, typer.Option(help="Your own name for the store's owner.")],
    token: Annotated[
        str,
        typer.Option(
            help="Admin API access token.", envvar="SHOPIFY_ACCESS_TOKEN", prompt=True, hide_input=True
        ),
    ],
) -> None:
    """Connect a store with its access token; the sync starts at once."""

    async def work(api: Api) -> str:
        connection = await api.connect(brand, shop, token)
        return f"Connected {connection.shop} as brand '{brand}'. Dashboard: {await api.dashboard(brand)}"

    console.print(escape(_call(work)), soft_wrap=True)


@command
def status(
    brand: BrandArgument, as_json: Annotated[bool, typer.Option("--json", help="The whole document.")] = False
) -> None:
    """Say how far a brand's sync is."""
    if as_json:
        print(_call(lambda api: api.progress_json(brand)).decode())
        return

    async def work(api: Api) -> tuple[Progress, str]:
        return await api.progress(brand), await api.dashboard(brand)

    document, dashboard = _call(work)
    console.print(bars(document, console.width))
    console.print(f"Dashboard: {dashboard}", soft_wrap=True, markup=False, highlight=False)


@command
def watch(brand: BrandArgument) -> None:
    """Follow a brand's sync until it is live; exit code 1 if it waits for somebody's help."""

    def lost() -> None:
        console.print("status does not answer at the moment; trying again ...", highlight=False)

    last = _call(lambda api: show_progress(console, api.follow(brand, lost)))
    if last is not None and last.sync_status != LIVE:
        raise typer.Exit(1)


@command
def sync(
    brand: BrandArgument,
    job: Annotated[
        list[str] | None, typer.Option(help="A job to run again; may be given more than once.")
    ] = None,
) -> None:
    """Run a brand's jobs again: all bulk jobs, unless told which."""
    jobs = job or list(DEFAULT_JOBS)
    _call(lambda api: api.sync(brand, jobs))
    console.print(
        f"Queued for {escape(brand)}: {', '.join(jobs)}. Follow it with `backstock watch {escape(brand)}`."
    )


@command
def rebuild_progress(
    brand: Annotated[str | None, typer.Argument(metavar="[BRAND]", help="Whose; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Of every brand.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Let percent fall to what the events say, if it was shown higher.")
    ] = False,
) -> None:
    """Read how far stores are anew from the events; safe while everything runs."""
    if every == (brand is not None):
        raise CommandError("name a brand, or say --all")
    load_environment(Home.here())
    url, scopes = os.environ.get("DATABASE_URL", ""), os.environ.get("SHOPIFY_SCOPES", "")
    if not url:
        raise CommandError("DATABASE_URL is missing: set it, or run `backstock up` in this folder first")

    configure_logs("backstock", "WARNING")
    console.print(progress.table(_run(progress.rebuild_progress(url, brand, scopes, reset=reset))))


@command
def audit(
    brand: BrandArgument,
    heal: Annotated[
        bool, typer.Option("--heal", help="Wait until what differs is repaired and compared again.")
    ] = False,
    limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Give up after so long.")
    ] = AUDIT_WITHIN,
) -> None:
    """Compare a brand's rows with Shopify's now; exit code 0 only if all are equal."""
    if not _call(lambda api: compare_now(api, console, brand, heal=heal, limit=limit)):
        hint = "" if heal else f"; it is being repaired: `backstock audit {brand} --heal` waits for that"
        raise CommandError(f"{brand} differs from Shopify{hint}")
    console.print("[green]Everything that Shopify holds is here.[/]")


@command
def disconnect(brand: BrandArgument) -> None:
    """Disconnect a brand's store: its token and webhooks go, its data stay."""
    connection = _call(lambda api: api.disconnect(brand))
    console.print(f"Disconnected {escape(connection.shop)}; its rows stay in the database.")


command(replay_dead_letters)


@command
def doctor() -> None:
    """Check every setting and everything Backstock needs; say what to do."""
    load_environment(Home.here())
    results = _run(findings(checks()))
    for finding in results:
        mark = "[green]ok[/]   " if finding.ok else "[bold red]wrong[/]"
        console.print(f"{mark} {finding.subject}: {escape(finding.detail)}", soft_wrap=True, highlight=False)
    if not all(finding.ok for finding in results):
        raise typer.Exit(FAILED)


async def _up(plan: Plan, *, is_new_key: bool, demo: bool = False) -> None:
    async with running(plan):
        api_key = plan.env["BACKSTOCK_API_KEY"]
        async with _api(plan.env | local_urls(plan), api_key) as api:
            if demo:
                await demonstration.connect(api, console)
            elif {"ingress", "status"} <= set(plan.only):
                await _print_dashboards(api, plan.env["STATUS_URL"])
        if is_new_key:
            console.print(
                f"API key (kept in {plan.home.folder / 'env'}): {api_key}", soft_wrap=True, highlight=False
            )
        console.print(f"Running: {', '.join(plan.only)}. Ctrl-C stops everything.")
        await until_cancelled()
    console.print("Stopped.")


async def _print_dashboards(api: Api, status_url: str) -> None:
    connections = [connection for connection in await api.connections() if connection.removed_at is None]
    for connection in connections[:DASHBOARDS_SHOWN]:
        console.print(
            f"Dashboard of {connection.brand_id}: {await api.dashboard(connection.brand_id)}",
            soft_wrap=True,
            markup=False,
        )
    if not connections:
        console.print(
            f"Dashboard: {status_url}/ (no store yet: `backstock connect SHOP --brand B --token T`)",
            soft_wrap=True,
            markup=False,
        )


def _api(env: dict[str, str], api_key: str) -> AbstractAsyncContextManager[Api]:
    """On the machine of `backstock up` its local addresses, elsewhere the public ones."""
    ingress, status = (env.get(f"{name}_LOCAL") or env[f"{name}_URL"] for name in ("INGRESS", "STATUS"))
    return Api.open(ingress, status, api_key, public_status_url=env["STATUS_URL"])


def _chosen(only: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    if unknown := [name for name in names if name not in SERVICES]:
        raise CommandError(
            f"--only: there is no service '{unknown[0]}'; the services are {', '.join(SERVICES)}"
        )
    return names or SERVICES


def _print_log(service: str, line: str) -> None:
    print(f"{service:<13}| {line}", flush=True)


def _call(work: Callable[[Api], Coroutine[None, None, T]]) -> T:
    """Runs one conversation with the services that the settings name, or that `backstock up` runs here."""
    load_environment(Home.here())
    env = {name: value for name, value in os.environ.items() if value}
    settle_addresses(env, avoid_busy=False)
    if "BACKSTOCK_API_KEY" not in env:
        raise CommandError("BACKSTOCK_API_KEY is missing: set it, or run `backstock up` in this folder first")

    async def conversation() -> T:
        async with _api(env, env["BACKSTOCK_API_KEY"]) as api:
            return await work(api)

    return _run(conversation())
