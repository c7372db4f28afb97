"""seed -> which stores there are and what breaks when: pure, and the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

SERVICES = ("ingress", "bulk-runner-1", "bulk-runner-2", "promoter-1", "promoter-2", "status")
STORES = ("postgres", "redis")
WIRES = (*STORES, "shopify", "webhooks")
SEIZED = (
    "control.outbox",
    "control.jobs",
    "control.bulk_operations",
    "control.batches",
    "control.progress",
    "shopify.orders",
)
CURRENCIES = ("USD", "EUR", "JPY", "KWD", "CAD", "INR")
SKEWS = (0, 0, 0, -90, -20, -3, 3, 20, 90)  # seconds that a store's clock is off
FIRST, LAST = 0.3, 16.0  # seconds after the connecting within which faults begin
FEWEST, MOST = 8, 14  # faults a run


@dataclass(frozen=True)
class StorePlan:
    """A shop: how large, in which currency, how busy, and how wrong its clock is."""

    orders: int
    currency: str
    seed: int
    changes_per_second: float
    objects_per_second: float
    clock_skew: int
    connects_at: float


@dataclass(frozen=True, order=True)
class Fault:
    """What begins at `at` seconds, lasts for `seconds`, and whom it strikes."""

    at: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    how: Mapping[str, float | str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        how = " ".join(f"{name}={value}" for name, value in self.how.items())
        lasting = f"for {self.seconds:.1f} s" if self.seconds else ""
        return " ".join(filter(None, (f"{self.at:5.1f} s", self.kind, self.target, lasting, how)))


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    stores: tuple[StorePlan, ...]
    faults: tuple[Fault, ...]
    paged_up_to: int
    redis_keeps_a_file: bool
    traffic_seconds: float


def draw(seed: int) -> Plan:
    """The run that belongs to a seed."""
    random = Random(seed)
    stores = tuple(_store(random, seed, number) for number in range(random.choice((2, 2, 3))))
    faults = tuple(sorted(_fault(random) for _ in range(random.randint(FEWEST, MOST))))
    return Plan(
        seed=seed,
        stores=stores,
        faults=faults,
        paged_up_to=random.choice((0, 0, 250, 700)),
        redis_keeps_a_file=random.random() < 0.5,
        traffic_seconds=max(fault.at + fault.seconds for fault in faults) + 1.0,
    )


def _store(random: Random, seed: int, number: int) -> StorePlan:
    return StorePlan(
        orders=random.choice((300, 600, 1000, 1500, 2000)),
        currency=random.choice(CURRENCIES),
        seed=seed * 10 + number,
        changes_per_second=random.choice((4, 8, 12)),
        objects_per_second=random.choice((300, 600, 1200)),
        clock_skew=random.choice(SKEWS),
        connects_at=0.0 if number == 0 else round(random.uniform(0, 6), 1),
    )


def _fault(random: Random) -> Fault:
    kind = random.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    target, seconds, how = KINDS[kind][1](random)
    return Fault(round(random.uniform(FIRST, LAST), 1), kind, target, round(seconds, 1), how)


Drawn = tuple[str, float, dict[str, float | str]]


def _at_once(targets: tuple[str, ...]) -> Callable[[Random], Drawn]:
    return lambda random: (random.choice(targets), 0.0, {})


def _for_a_while(targets: tuple[str, ...], shortest: float, longest: float) -> Callable[[Random], Drawn]:
    return lambda random: (random.choice(targets), random.uniform(shortest, longest), {})


def _with(
    targets: tuple[str, ...], shortest: float, longest: float, **choices: tuple[float | str, ...]
) -> Callable[[Random], Drawn]:
    def drawn(random: Random) -> Drawn:
        how = {name: random.choice(values) for name, values in choices.items()}
        return random.choice(targets), random.uniform(shortest, longest), how

    return drawn


# What can go wrong: how often, and with which target, length and settings. inject.py does it.
KINDS: dict[str, tuple[int, Callable[[Random], Drawn]]] = {
    "kill": (14, _at_once(SERVICES)),
    "terminate": (6, _at_once(SERVICES)),
    "pause": (5, _for_a_while(SERVICES, 1, 6)),
    "pause_past_lease": (6, _for_a_while(SERVICES, 13, 17)),
    "redis_kill": (5, _at_once(("redis",))),
    "redis_flush": (6, _at_once(("redis",))),
    "redis_empty_disk": (3, _at_once(("redis",))),
    "postgres_kill": (5, _at_once(("postgres",))),
    "postgres_crash": (3, _at_once(("postgres",))),
    "postgres_drop_connections": (5, _at_once(("postgres",))),
    "postgres_full": (3, _for_a_while(("postgres",), 2, 5)),
    "postgres_lock": (5, _for_a_while(SEIZED, 2, 7)),
    "wire_cut": (6, _at_once(WIRES)),
    "wire_stall": (5, _for_a_while(WIRES, 1, 7)),
    "wire_delay": (5, _with(WIRES, 3, 8, milliseconds=(20, 80, 250))),
    "wire_refuse": (4, _for_a_while(WIRES, 1, 5)),
    "wire_slow": (3, _with(("shopify",), 3, 8, bytes_per_second=(60_000, 250_000))),
    "http": (6, _with(("shopify",), 2, 6, status=(429, 500, 502, 503), rate=(0.3, 0.7))),
    "internal_error": (2, _with(("shopify",), 2, 6, rate=(0.3,))),
    "throttle": (3, _with(("shopify",), 2, 6, rate=(0.3, 0.6))),
    "reset": (3, _with(("shopify",), 2, 6, rate=(0.2, 0.5))),
    "latency": (3, _with(("shopify",), 3, 8, per_request=(0.3, 1.5), rate=(0.5,))),
    "download_cut": (5, _with(("shopify",), 4, 12, bytes=(0, 20_000, 300_000), times=(2, 4))),
    "download_http": (2, _with(("shopify",), 4, 12, status=(403, 503), times=(2,))),
    "bulk_fail": (4, _with(("shopify",), 4, 12, after=(0, 200), times=(1,))),
    "bulk_stuck": (3, _with(("shopify",), 6, 14, after=(0, 200), times=(1,))),
    "bulk_expired": (2, _with(("shopify",), 4, 12, times=(1,))),
    "bulk_no_url": (2, _with(("shopify",), 4, 12, times=(1,))),
    "webhook_drop": (6, _with(("shopify",), 3, 8, rate=(0.2, 0.5))),
    "webhook_duplicate": (5, _with(("shopify",), 4, 12, rate=(0.3, 0.8))),
    "webhook_delay": (4, _with(("shopify",), 4, 12, rate=(0.3,), pause=(2, 5))),
    "webhook_reorder": (5, _with(("shopify",), 4, 12, rate=(0.5, 1.0), pause=(1, 4))),
}
