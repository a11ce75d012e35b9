"""A subscription that dies half, its connection alive: it is noticed, told once and made anew, and waits are short."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from engine.webhooks.listener import Listener
from ops.stack.embedded import EmbeddedRedis
from support.gateway import Gateway, a_gateway, eventually
from support.lossy_wire import LossyWire, a_lossy_wire

CARD = "4111111111111111"
LOOK_S = 0.25  # of a waiting client at its record


@dataclass(kw_only=True)
class OneWay(LossyWire):
    """Passes on in one direction only, when told to: what the store sends to those who listen by now is lost."""

    mark: bytes
    listening: set[int] = field(default_factory=set)  # by the client's own port
    deaf: frozenset[int] = frozenset()

    def turn(self) -> None:
        self.deaf = frozenset(self.listening)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            ports = source.getpeername()[1], sink.getpeername()[1]
            while data := source.recv(1 << 20):
                if ports[0] != self.upstream and self.mark in data:
                    self.listening.add(ports[0])
                if ports[1] not in self.deaf:
                    sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def one_way(port: int, mark: bytes) -> Iterator[OneWay]:
    with a_lossy_wire(port, OneWay(upstream=port, mark=mark)) as wire:
        assert isinstance(wire, OneWay)
        yield wire


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    running = EmbeddedRedis(tmp_path / "redis")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def wire(server: EmbeddedRedis) -> Iterator[OneWay]:
    with one_way(server.port, b"$9\r\nSUBSCRIBE\r\n") as running:
        yield running


@pytest.fixture
def gateway(database: str, wire: OneWay, tmp_path: Path) -> Iterator[Gateway]:
    url = f"redis://127.0.0.1:{wire.port}/0"
    with a_gateway(database, url, "http://127.0.0.1:1", tmp_path, PENSTOCK_CONNECTOR="instant") as running:
        yield running


def heard(gateway: Gateway) -> float | None:
    found = re.search(r"^penstock_wakeups_heard (\S+)", gateway.request("GET", "/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


def events(gateway: Gateway, name: str) -> list[str]:
    lines = [json.loads(line) for line in gateway.processes[0].log.read_text().splitlines() if line.startswith("{")]
    return [line.get("why", "") for line in lines if line["event"] == name]


def not_permitted(gateway: Gateway) -> list[str]:
    return [why for why in events(gateway, "wakeups_not_heard") if "NOPERM" in why]


def quickest(gateway: Gateway) -> float:
    took: list[float] = []
    for _ in range(10):
        began = time.monotonic()
        assert gateway.pay(CARD, wait=10).status_code == 201
        took.append(time.monotonic() - began)
    return min(took)


def test_a_subscription_that_delivers_nothing_is_made_anew_by_itself(gateway: Gateway, wire: OneWay) -> None:
    eventually(lambda: heard(gateway) == 1, "wake-ups are heard")
    before = set(wire.listening)

    wire.turn()
    assert gateway.pay(CARD, wait=10).status_code == 201, "a lost wake-up costs a moment, not the answer"
    eventually(lambda: events(gateway, "wakeups_not_heard"), "it is noticed", 30)
    eventually(lambda: events(gateway, "wakeups_heard_again"), "it is mended", 30)

    assert wire.listening > before
    assert heard(gateway) == 1
    assert quickest(gateway) < LOOK_S * 0.8
    assert len(events(gateway, "wakeups_not_heard")) == 1


def test_a_subscriber_that_was_killed_subscribes_anew(gateway: Gateway, server: EmbeddedRedis) -> None:
    eventually(lambda: heard(gateway) == 1, "wake-ups are heard")
    with redis.Redis(port=server.port) as client:
        client.client_kill_filter(_type="pubsub")

        eventually(lambda: client.pubsub_numsub(*client.pubsub_channels()), "somebody listens again")
    assert quickest(gateway) < LOOK_S * 0.8


def test_a_user_who_loses_the_channel_is_told_of_once_and_payments_go_on(
    gateway: Gateway, server: EmbeddedRedis
) -> None:
    eventually(lambda: heard(gateway) == 1, "wake-ups are heard")
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels")

        eventually(lambda: heard(gateway) == 0, "it is noticed", 30)
        answers = [gateway.pay(CARD, wait=10).status_code for _ in range(5)]
        told = eventually(lambda: not_permitted(gateway), "and why", 30)
        time.sleep(6)  # longer than the pause between two tries
        again = not_permitted(gateway)
        client.execute_command("ACL", "SETUSER", "default", "allchannels")
        eventually(lambda: heard(gateway) == 1, "the channel is allowed again", 30)

    assert answers == [201] * 5
    assert len(told) == len(again) == 1 and "ACL SETUSER" in told[0]


def test_a_listener_of_the_ledger_that_hears_nothing_listens_anew(database: str) -> None:
    rings: list[str] = []

    async def listen(wire: OneWay) -> None:
        listens = anyio.Event(), anyio.Event()

        def ring(message: str) -> None:
            rings.append(message)
            if len(rings) in (2, 4):  # two channels
                listens[len(rings) // 2 - 1].set()

        pool = AsyncConnectionPool(
            make_conninfo(database, port=wire.port), min_size=1, kwargs={"autocommit": True}, open=False
        )
        async with pool, anyio.create_task_group() as tasks:
            doorbell = Listener(pool, dict.fromkeys(("penstock_outbox", "penstock_deliveries"), ring))
            tasks.start_soon(doorbell.run)
            with anyio.fail_after(60):
                await listens[0].wait()
                wire.turn()
                await listens[1].wait()  # and rings once more, whatever was missed
            tasks.cancel_scope.cancel()

    port = int(str(conninfo_to_dict(database)["port"]))
    with one_way(port, b"LISTEN penstock") as wire:
        anyio.run(listen, wire)

    assert set(rings) == {""}
