"""A read whose reply is lost on the way leaves its entries where they are, and the commands in their order (I3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.stack.embedded import EmbeddedRedis
from support.gateway import Gateway, a_gateway, eventually
from support.lossy_wire import LossyWire, a_lossy_wire

CARD = "4111111111111111"
READ = b"$4\r\nread\r\n"  # how a reply of read-2 begins


@pytest.fixture
def wire(redis_server: EmbeddedRedis) -> Iterator[LossyWire]:
    with a_lossy_wire(redis_server.port) as running:
        yield running


@pytest.fixture
def gateway(database: str, redis_url: str, wire: LossyWire, tmp_path: Path) -> Iterator[Gateway]:
    """Its worker alone is behind the wire. The lease outlives the break: the same partition consumer goes on."""
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_LEASE_MS": "5000"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        database_of_redis = redis_url.rpartition("/")[2]
        running.start("worker", PENSTOCK_REDIS_URL=f"redis://127.0.0.1:{wire.port}/{database_of_redis}")
        assert running.pay(CARD, wait=10).status_code == 201  # all scripts are known from here on
        yield running


def test_a_refund_does_not_overtake_a_capture_that_was_lost_on_the_way(gateway: Gateway, wire: LossyWire) -> None:
    payment = gateway.pay(CARD, wait=10).json()["id"]

    wire.lose(READ, b"the-capture")
    gateway.post(f"/v1/payments/{payment}/capture", key="the-capture")
    assert wire.lost.wait(10)
    refunded = gateway.post(f"/v1/payments/{payment}/refund", wait=20)

    assert (refunded.status_code, refunded.json()["status"]) == (200, "refunded")
    assert _events(gateway, payment) == ["created", "authorized", "captured", "refunded"]
    gateway.settled()


def test_a_capture_waits_for_an_authorize_that_was_lost_on_the_way(gateway: Gateway, wire: LossyWire) -> None:
    wire.lose(READ, b"the-authorize")
    payment = gateway.pay(CARD, key="the-authorize").json()["id"]
    assert wire.lost.wait(10)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=20)

    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert gateway.dead() == []
    gateway.settled()


def test_many_commands_sent_in_order_run_in_order_whatever_reads_are_lost(gateway: Gateway, wire: LossyWire) -> None:
    payments = []
    for number in range(6):
        wire.lose(READ, f"lost-{number}".encode())
        payment = gateway.pay(CARD, key=f"authorize-{number}" if number % 2 else f"lost-{number}").json()["id"]
        gateway.post(f"/v1/payments/{payment}/capture", key=f"lost-{number}")
        gateway.post(f"/v1/payments/{payment}/refund", key=f"refund-{number}")
        payments.append(payment)

    for payment in payments:
        eventually(lambda payment=payment: gateway.get(payment)["status"] == "refunded", "it is refunded", 30)
    gateway.settled()
    assert gateway.dead() == []


def _events(gateway: Gateway, payment: str) -> list[str]:
    statement = "SELECT event FROM transitions WHERE payment = %s ORDER BY sequence"
    return [event for (event,) in gateway.sql(statement, payment)]
