"""A fail-over, a Redis that takes no writes or no clients: the same processes go on once it is well again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from redis.exceptions import RedisError

from ops.stack.embedded import EmbeddedRedis
from support.gateway import Gateway, Running, a_gateway, eventually
from support.lossy_wire import LossyWire, a_lossy_wire

CARD = "4111111111111111"
LEASE = {"PENSTOCK_LEASE_MS": "2000", "PENSTOCK_CONNECTOR": "instant"}


@dataclass(frozen=True, kw_only=True)
class Stand:
    """An edge and a worker that know one address; what is behind it may change, and old connections live on."""

    gateway: Gateway
    wire: LossyWire
    one: EmbeddedRedis
    other: EmbeddedRedis

    def ready(self, running: Running) -> int:
        with suppress(httpx.HTTPError):
            return self.gateway.http.get(f"http://127.0.0.1:{running.port}/readyz").status_code
        return 0

    @property
    def alive(self) -> bool:
        return all(running.process.poll() is None for running in self.gateway.processes)

    def works(self, within_s: float = 20) -> None:
        """Payments end again, and everybody is ready."""
        eventually(lambda: self.gateway.pay(CARD, wait=5).status_code == 201, "payments are done again", within_s)
        for running in self.gateway.processes:
            eventually(lambda running=running: self.ready(running) == 200, f"{running.role} is ready again", within_s)


@pytest.fixture
def stand(database: str, tmp_path: Path) -> Iterator[Stand]:
    one, other = EmbeddedRedis(tmp_path / "one"), EmbeddedRedis(tmp_path / "other")
    one.start()
    other.start()
    try:
        with a_lossy_wire(one.port) as wire:
            url = f"redis://127.0.0.1:{wire.port}/0"
            with a_gateway(database, url, "http://127.0.0.1:1", tmp_path, workers=1, **LEASE) as gateway:
                made = Stand(gateway=gateway, wire=wire, one=one, other=other)
                made.works()
                yield made
    finally:
        one.kill()
        other.kill()


def _client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(port=server.port)


def test_after_a_fail_over_the_connections_to_the_old_master_are_left(stand: Stand) -> None:
    with _client(stand.one) as one, _client(stand.other) as other:
        other.replicaof("127.0.0.1", str(stand.one.port))
        eventually(lambda: other.info("replication")["master_link_status"] == "up", "it is a replica")
        eventually(lambda: other.dbsize() == one.dbsize(), "it has all")

        other.replicaof("NO", "ONE")
        one.replicaof("127.0.0.1", str(stand.other.port))
        stand.wire.upstream = stand.other.port
        stand.works()
        subscribed = [client for client in other.client_list(_type="pubsub") if client["sub"] == "1"]

    assert stand.alive
    assert len(subscribed) == 1, "who waits is woken by the new master"
    assert stand.gateway.dead() == []


REFUSALS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "read-only replica": (lambda one: one.replicaof("127.0.0.1", "1"), lambda one: one.replicaof("NO", "ONE")),
    "too few replicas": (
        lambda one: one.config_set("min-replicas-to-write", 1),
        lambda one: one.config_set("min-replicas-to-write", 0),
    ),
    "not permit": (
        lambda one: one.acl_setuser("default", enabled=True, commands=["-evalsha"]),
        lambda one: one.acl_setuser("default", enabled=True, commands=["+evalsha"]),
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_while_redis_takes_no_writes_nobody_is_ready_and_clients_are_told_that_nothing_was_accepted(
    stand: Stand, why: str
) -> None:
    edge, worker = stand.gateway.processes
    begin, end = REFUSALS[why]

    with _client(stand.one) as one:
        begin(one)
        try:
            refused = [stand.gateway.pay(CARD, key=f"refused-{number}") for number in range(3)]
            eventually(lambda: stand.ready(edge) == 503, "the edge is not ready")
            eventually(lambda: stand.ready(worker) == 503, "nor is the worker, a lease time later")
        finally:
            end(one)
    stand.works()

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "store_unavailable")}
    assert all("Nothing was accepted" in answer.json()["detail"] for answer in refused)
    assert all(why in answer.json()["detail"] for answer in refused)
    assert stand.alive
    accepted = stand.gateway.sql("SELECT count(*) FROM operations WHERE key LIKE 'refused-%%'")
    assert accepted == [(0,)]


@pytest.mark.parametrize("lost", ["-xadd", "-xreadgroup", "-zadd", "resetkeys ~other:*"])
def test_a_user_who_loses_a_right_that_is_needed_makes_nobody_ready(stand: Stand, lost: str) -> None:
    edge, worker = stand.gateway.processes

    with _client(stand.one) as one:
        one.execute_command("ACL", "SETUSER", "default", *lost.split())
        try:
            for running in (edge, worker):
                eventually(lambda running=running: stand.ready(running) == 503, f"the {running.role} is not ready")
            eventually(lambda: "NOPERM" in stand.gateway.request("GET", "/readyz").text, "and says what to grant")
            refused = stand.gateway.pay(CARD)
            told = stand.gateway.request("GET", "/readyz").text
        finally:
            one.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all")
    stand.works()

    assert refused.status_code == 503
    assert "NOPERM" in told and "ACL SETUSER" in told
    assert stand.alive


def test_an_edge_whose_redis_is_full_is_not_ready_and_says_so(stand: Stand) -> None:
    edge, worker = stand.gateway.processes

    with _client(stand.one) as one:
        one.config_set("maxmemory", 1)
        try:
            eventually(lambda: stand.ready(edge) == 503, "the edge is not ready")
            refused = stand.gateway.pay(CARD)
            told = stand.gateway.request("GET", "/readyz").json()
            works_on = stand.ready(worker)
        finally:
            one.config_set("maxmemory", 0)
    stand.works()

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert told["failing"] == {"redis": "Redis is out of memory."}
    assert works_on == 200, "it settles what it has: that is allowed at full memory"


def test_a_redis_that_hangs_up_on_everybody_ends_nobody(stand: Stand) -> None:
    with redis.Redis(port=stand.one.port, single_connection_client=True) as hold:
        hold.ping()
        hold.config_set("maxclients", 1)
        until = time.monotonic() + 5
        try:
            while time.monotonic() < until:  # whatever they do meanwhile, at each of their steps
                for kind in ("normal", "pubsub"):
                    with suppress(RedisError):
                        hold.client_kill_filter(_type=kind, skipme=True)
                with suppress(httpx.HTTPError):
                    stand.gateway.pay(CARD)
        finally:
            hold.config_set("maxclients", 1000)
    stand.works()

    assert stand.alive
