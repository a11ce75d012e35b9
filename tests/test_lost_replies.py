"""A read whose reply is lost on the way leaves its entries where they are, and the commands in their order (I3)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gateway import Gateway, a_gateway, eventually

from ops.embedded import EmbeddedRedis

CARD = "4111111111111111"
READ = b"$4\r\nread\r\n"  # how a reply of read-2 begins


@dataclass(kw_only=True)
class LossyWire:
    """A wire to Redis that breaks right before a chosen reply of read-2: Redis did it, the worker never hears of it."""

    upstream: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    connections: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    doomed: bytes = b""  # the reply with these bytes in it is the one
    lost: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def lose(self, doomed: bytes) -> None:
        self.lost.clear()
        self.doomed = doomed

    def run(self) -> None:
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(("127.0.0.1", self.upstream))
            self.connections += [ours, theirs]
            self._spawn(self._carry, ours, theirs)
            self._spawn(self._carry, theirs, ours)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if self.doomed and self.doomed in data and READ in data:
                    self.doomed = b""
                    self.lost.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def a_lossy_wire(upstream: int) -> Iterator[LossyWire]:
    wire = LossyWire(upstream=upstream)
    wire._spawn(wire.run)
    try:
        yield wire
    finally:
        with suppress(OSError):
            wire.listener.shutdown(socket.SHUT_RDWR)
        wire.listener.close()
        for connection in wire.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in wire.threads:
            thread.join(10)
        for connection in wire.connections:
            connection.close()


@pytest.fixture
def wire(redis_server: EmbeddedRedis) -> Iterator[LossyWire]:
    with a_lossy_wire(redis_server.port) as running:
        yield running


@pytest.fixture
def gateway(database: str, redis_url: str, wire: LossyWire, tmp_path: Path) -> Iterator[Gateway]:
    """Its worker alone is behind the wire. The lease outlives the break: the same tenure goes on."""
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_LEASE_MS": "5000"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        running.start("worker", PENSTOCK_REDIS_URL=f"redis://127.0.0.1:{wire.port}/0")
        assert running.pay(CARD, wait=10).status_code == 201  # all scripts are known from here on
        yield running


def test_a_refund_does_not_overtake_a_capture_that_was_lost_on_the_way(gateway: Gateway, wire: LossyWire) -> None:
    payment = gateway.pay(CARD, wait=10).json()["id"]

    wire.lose(b"the-capture")
    gateway.post(f"/v1/payments/{payment}/capture", key="the-capture")
    assert wire.lost.wait(10)
    refunded = gateway.post(f"/v1/payments/{payment}/refund", wait=20)

    assert (refunded.status_code, refunded.json()["status"]) == (200, "refunded")
    assert _events(gateway, payment) == ["created", "authorized", "captured", "refunded"]
    gateway.settled()


def test_a_capture_waits_for_an_authorize_that_was_lost_on_the_way(gateway: Gateway, wire: LossyWire) -> None:
    wire.lose(b"the-authorize")
    payment = gateway.pay(CARD, key="the-authorize").json()["id"]
    assert wire.lost.wait(10)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=20)

    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert gateway.dead() == []
    gateway.settled()


def test_many_commands_sent_in_order_run_in_order_whatever_reads_are_lost(gateway: Gateway, wire: LossyWire) -> None:
    payments = []
    for number in range(6):
        wire.lose(f"lost-{number}".encode())
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
