import socket
import subprocess
import sys

import pytest

from sandbox import money, truth
from sandbox.app import listen
from sandbox.arithmetic import line_total
from sandbox.generate import RECENT, generate, tally_of
from sandbox.settings import Settings, parse

ANCHOR = 1_795_000_000


def make(**options):
    return generate("a.myshopify.com", options.pop("orders", 400), anchor=ANCHOR, **options)


def all_rows(store):
    return {table: list(rows(store)) for table, rows in truth.TABLES.items()}


def test_the_same_seed_and_anchor_make_the_same_store():
    """Down to every row; another seed makes another."""
    assert all_rows(make(seed=3)) == all_rows(make(seed=3))
    assert all_rows(make(seed=3)) != all_rows(make(seed=4))


@pytest.mark.parametrize("currency", ["USD", "JPY", "KWD"])
def test_money_adds_up(currency):
    """Totals are the sum of their parts, refunds never exceed payments, and customers equal their orders."""
    store = make(orders=1500, currency=currency)
    by_customer = {}
    for order in store.orders.values():
        by_customer.setdefault(order.customer_id, []).append(order)
        assert order.subtotal == sum(line_total(line) for line in order.lines)
        assert order.total == order.subtotal + order.shipping + (0 if order.taxes_included else order.tax)
        assert order.refunded == sum(refund.total for refund in order.refunds) <= order.received
        assert 0 <= order.current_total <= order.total
        assert order.updated_at >= order.created_at
        if order.cancelled_at:
            assert (order.current_total, order.closed_at) == (0, order.cancelled_at)
            assert order.financial_status in {"REFUNDED", "VOIDED"}
    for customer in store.customers.values():
        found = (customer.number_of_orders, customer.amount_spent, customer.last_order_id)
        assert found == tally_of(by_customer.get(customer.id, []))


def test_a_store_has_what_breaks_naive_copies():
    """Guests, refunds, cancellations, edits, tests, custom items, deleted products, long orders, awkward texts."""  # noqa: E501
    store = make(orders=4000)
    orders = list(store.orders.values())
    lines = [line for order in orders for line in order.lines]
    assert sum(1 for order in orders if order.created_at > ANCHOR - RECENT) >= 60
    assert any(order.customer_id is None for order in orders)
    assert any(order.test for order in orders)
    assert any(order.edited for order in orders)
    assert any(len(order.lines) > 50 for order in orders)
    assert any(order.fx for order in orders)
    assert {order.financial_status for order in orders} >= {
        "PAID",
        "PENDING",
        "AUTHORIZED",
        "REFUNDED",
        "PARTIALLY_REFUNDED",
        "VOIDED",
    }
    assert any(line.product_id is None for line in lines)
    assert any(line.product_id and line.product_id not in store.products for line in lines)
    assert any(len(product.variant_ids) == 100 for product in store.products.values())
    assert any("\n" in (order.note or "") for order in orders)
    assert any(order.note == "" for order in orders)
    assert 2 < len(lines) / len(orders) < 2.7


def test_money_is_printed_as_shopify_does():
    """Amounts trim zeros but keep one decimal, the scalar keeps two, currencies have their own decimals."""
    assert [money.trimmed(minor, 2) for minor in (3190, 0, 1000, 3195, -50)] == [
        "31.9",
        "0.0",
        "10.0",
        "31.95",
        "-0.5",
    ]
    assert (money.trimmed(1200, 0), money.trimmed(1250, 3)) == ("1200.0", "1.25")
    assert (money.scalar(3190, 2), money.fixed(1250, 3), money.fixed(1200, 0)) == ("31.90", "1.250", "1200")


@pytest.mark.parametrize(
    "wrong", [["--bind", "nowhere"], ["--orders", "many"], ["--now", "noon"], ["--colour", "red"]]
)
def test_a_bad_flag_is_one_line_and_exit_code_2(wrong, capsys):
    """The line names what is wrong."""
    with pytest.raises(SystemExit) as stopped:
        parse(wrong)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("sandbox: ")
    assert said.count("\n") == 1


def test_settings_come_from_the_environment_too(monkeypatch):
    """SANDBOX_ORDERS stands in for --orders; a flag wins."""
    monkeypatch.setenv("SANDBOX_ORDERS", "12")
    assert parse([]).orders == 12
    assert parse(["--orders", "13"]).orders == 13


def test_a_busy_port_is_one_line_and_exit_code_2():
    """Instead of a traceback, the remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "sandbox.app", "--bind", bind, "--shop", ""],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 2
    assert "--bind" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_is_taken_before_the_server_runs():
    """A client that comes at once waits instead of being refused; another sandbox does not get the port."""
    with listen(Settings(bind="127.0.0.1:0")) as sock:
        host, port = sock.getsockname()
        socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(OSError, match="in use"):
            listen(Settings(bind=f"{host}:{port}"))
