"""/readyz and the work agree: a process that can take nothing is not ready, and is ready again by itself afterwards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from edge.server.authentication import Authenticator
from ops.stack.address import any_free_port
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from support.gateway import Gateway, Running, eventually

CARD = "4111111111111111"
USER = "redis://edge:word@127.0.0.1"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Without a process yet."""
    gateway = Gateway(
        database=database,
        redis_url=redis_url,
        bank_url="http://127.0.0.1:1",
        folder=tmp_path,
        environ={"PENSTOCK_CONNECTOR": "instant"},
    )
    yield gateway
    gateway.close()


@contextmanager
def configured(client: redis.Redis, name: str, value: str) -> Iterator[None]:
    before = client.config_get(name)[name]  # type: ignore[index]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", str(any_free_port()))
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def forbidden(client: redis.Redis, command: str) -> Iterator[None]:
    client.execute_command("ACL", "SETUSER", "edge", f"-{command}")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "edge", f"+{command}")


FAULTS: dict[str, Callable[[redis.Redis], Any]] = {
    "too few replicas": lambda client: configured(client, "min-replicas-to-write", "1"),
    "out of memory": lambda client: configured(client, "maxmemory", "1"),
    "a read-only replica": replica,
    **{f"no {each}": lambda client, each=each: forbidden(client, each) for each in ("xadd", "set", "hset", "hincrby")},
    **{f"no {each}": lambda client, each=each: forbidden(client, each) for each in ("get", "xlen", "hlen", "hget")},
    "no scripts": lambda client: forbidden(client, "evalsha"),
}


@pytest.mark.slow
def test_an_edge_whose_redis_takes_no_payments_is_not_ready(gateway: Gateway) -> None:
    admin = gateway.redis
    admin.execute_command("ACL", "SETUSER", "edge", "reset", "on", ">word", "~*", "&*", "+@all")
    gateway.redis_url = gateway.redis_url.replace("redis://127.0.0.1", USER)
    edge = gateway.start("edge")
    try:
        for name, fault in FAULTS.items():
            with fault(admin):
                refused = eventually(
                    lambda: (paid := gateway.pay(CARD)).status_code == 503 and paid, f"{name}: refused"
                )
                status, document = readiness(edge)

                assert (name, status, document["status"]) == (name, 503, "not ready")
                assert "redis" in document["failing"], name
                assert refused.json()["code"] in ("store_unavailable", "overloaded", "acceptance_unknown")
            eventually(lambda: gateway.pay(CARD).status_code == 202, f"{name}: is over", 20)
            eventually(lambda: readiness(edge)[0] == 200, f"{name}: ready again", 20)
    finally:
        admin.execute_command("ACL", "DELUSER", "edge")


@pytest.mark.slow
def test_an_edge_is_not_ready_while_each_partition_is_full(gateway: Gateway) -> None:
    edge = gateway.start("edge", PENSTOCK_BACKLOG_MAX="1")
    keys = [next(gateway.keys_in(partition)) for partition in range(16)]
    for key in keys[1:]:
        assert gateway.pay(CARD, key=key).status_code == 202
    assert readiness(edge)[0] == 200  # there is room in one

    assert gateway.pay(CARD, key=keys[0]).status_code == 202
    refused, (status, document) = gateway.pay(CARD), readiness(edge)
    gateway.start("worker")

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert (status, list(document["failing"])) == (503, ["backlog", "workers"])
    eventually(lambda: readiness(edge) == (200, {"status": "ready", "failing": {}}), "there is room again", 20)


@pytest.mark.slow
def test_an_edge_is_not_ready_while_it_handles_as_many_calls_as_it_may(gateway: Gateway) -> None:
    edge = gateway.start("edge", PENSTOCK_IN_FLIGHT_MAX="2")
    unfinished = [half_a_payment(edge, key) for key in ("sk_local_merchant", "sk_local_other")]
    eventually(lambda: gateway.pay(CARD).status_code in (429, 503), "there is no place left")

    status, document = readiness(edge)
    for each in unfinished:
        each.close()

    assert (status, list(document["failing"])) == (503, ["room", "workers"])
    eventually(lambda: gateway.pay(CARD).status_code == 202 and readiness(edge)[0] == 200, "there are places again")


@pytest.mark.slow
def test_an_edge_without_workers_accepts_and_says_so(gateway: Gateway) -> None:
    edge = gateway.start("edge")

    status, document = readiness(edge)

    assert gateway.pay(CARD).status_code == 202
    assert (status, document["status"]) == (200, "degraded")
    assert document["failing"] == {"workers": "no worker owns a partition: what is accepted waits"}
    worker = gateway.start("worker")
    eventually(lambda: readiness(edge) == (200, {"status": "ready", "failing": {}}), "somebody takes work")
    worker.kill()
    eventually(lambda: "workers" in readiness(edge)[1]["failing"], "its leases have lapsed")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["worker", "dispatcher"])
def test_who_works_on_the_ledger_is_not_ready_without_it(
    gateway: Gateway, postgres: EmbeddedPostgres, role: str
) -> None:
    running = gateway.start(role)
    name = psycopg.conninfo.conninfo_to_dict(gateway.database)["dbname"]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
        try:
            admin.execute(allow.format(sql.Identifier(str(name)), sql.SQL("false")))
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

            document = eventually(lambda: (told := readiness(running))[0] == 503 and told[1], "it is not ready", 20)
        finally:
            admin.execute(allow.format(sql.Identifier(str(name)), sql.SQL("true")))

    assert document["failing"]["postgres"].startswith("Postgres: ")
    eventually(lambda: readiness(running)[0] == 200, "it is ready again", 20)


@pytest.mark.slow
def test_a_worker_whose_redis_takes_no_writes_is_not_ready(gateway: Gateway, redis_server: EmbeddedRedis) -> None:
    worker = gateway.start("worker")

    with replica(gateway.redis):
        document = eventually(lambda: (told := readiness(worker))[0] == 503 and told[1], "it is not ready", 20)

    assert "heartbeat" in document["failing"]["redis"]
    eventually(lambda: readiness(worker)[0] == 200, "it is ready again", 30)


def test_an_edge_that_never_read_a_key_knows_nobody() -> None:
    async def read() -> tuple[bool, bool]:
        pool = AsyncConnectionPool("postgresql://127.0.0.1:1/nowhere", open=False, min_size=1, timeout=0.2)
        async with pool:
            keys = Authenticator(pool)
            return await keys.run_once(), keys.read_once

    assert asyncio.run(read()) == (False, False)


def readiness(running: Running) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"http://127.0.0.1:{running.port}/readyz", timeout=10)
    return answer.status_code, answer.json()


def half_a_payment(edge: Running, key: str) -> socket.socket:
    """A call that has its place and whose body does not come."""
    client = socket.create_connection(("127.0.0.1", edge.port), 5)
    client.sendall(
        b"POST /v1/payments HTTP/1.1\r\nhost: edge\r\nx-api-key: %s\r\nidempotency-key: half-%s\r\n"
        b"content-type: application/json\r\ncontent-length: 200\r\n\r\n{" % (key.encode(), key.encode())
    )
    return client
