"""Stores that refuse for a while, read-only, full, locked or migrated, delay payments: nobody's is given up."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from redis import Redis

from ops.stack.embedded import EmbeddedPostgres
from support.gateway import Gateway, a_gateway, eventually
from support.nursery import Child

CARD = "4111111111111111"
BAD_TIME_S = 2.5  # above the two seconds for which a task waits for a place in the pool


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    environ = {"PENSTOCK_CONNECTOR": "instant"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as running:
        yield running


@pytest.fixture
def read_only(postgres: EmbeddedPostgres, database: str) -> Callable[[bool], None]:
    """Turns the ledger read-only and back, as a fail-over does: the sessions of before are cut off."""
    name = str(conninfo_to_dict(database)["dbname"])

    def turn(on: bool) -> None:
        setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
            connection.execute(setting.format(sql.Identifier(name), sql.Literal("on" if on else "off")))
            connection.execute(cut, (name,))

    return turn


def alive_for(worker: Child, seconds: float) -> bool:
    try:
        worker.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def test_a_ledger_that_is_read_only_for_a_while_gives_nothing_up(
    gateway: Gateway, read_only: Callable[[bool], None]
) -> None:
    worker = gateway.start("worker")
    captured = gateway.pay(CARD, wait=10).json()["id"]

    read_only(True)
    accepted = [gateway.pay(CARD) for _ in range(4)]
    # An edge may say once that the ledger is away: its connections were cut off, too.
    eventually(lambda: gateway.post(f"/v1/payments/{captured}/capture", key="c").status_code == 202, "it is accepted")
    alive = alive_for(worker.process, BAD_TIME_S)
    read_only(False)
    gateway.settled()

    assert alive
    assert [answer.status_code for answer in accepted] == [202] * 4
    assert gateway.dead() == []
    states = gateway.sql("SELECT state, count(*) FROM payments GROUP BY state ORDER BY state")
    assert states == [("authorized", 4), ("captured", 1)]


def test_a_column_added_while_payments_run_costs_no_request_and_no_payment(gateway: Gateway) -> None:
    # Prepared statements are planned for the columns of before, in every connection of every process.
    worker = gateway.start("worker")
    payments = [gateway.pay(CARD, wait=10).json()["id"] for _ in range(15)]
    for payment in payments:
        assert gateway.post(f"/v1/payments/{payment}/capture", wait=10).status_code == 200
        gateway.get(payment)

    for table in ("payments", "operations"):
        gateway.sql(f"ALTER TABLE {table} ADD COLUMN x int")
    read = [gateway.request("GET", f"/v1/payments/{payment}").status_code for payment in payments]
    refunded = [gateway.post(f"/v1/payments/{payment}/refund", wait=10).status_code for payment in payments[:8]]

    assert (read, refunded) == ([200] * 15, [200] * 8)
    assert gateway.dead() == []
    assert worker.process.poll() is None
    gateway.settled()


@contextmanager
def full_memory(redis: Redis) -> Iterator[None]:
    """Redis takes nothing more in."""
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)


def test_a_full_redis_accepts_nothing_and_settles_what_it_had(gateway: Gateway) -> None:
    worker = gateway.start("worker", PENSTOCK_LEASE_MS="2000")
    assert gateway.pay(CARD, wait=10).status_code == 201
    worker.send(signal.SIGSTOP)
    before = [gateway.pay(CARD).json()["id"] for _ in range(3)]

    with full_memory(gateway.redis):
        worker.send(signal.SIGCONT)
        refused = gateway.pay(CARD, key="refused")
        ended = [_in_state(gateway, payment, "authorized") for payment in before]
        gateway.settled()
        alive = alive_for(worker.process, BAD_TIME_S)
    again = gateway.pay(CARD, key="refused", wait=10)

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert all(ended) and alive
    assert again.status_code == 201
    assert gateway.dead() == []


def test_a_key_that_is_repeated_while_redis_loses_its_memory_is_to_be_repeated_again(gateway: Gateway) -> None:
    payment = gateway.pay(CARD, key="repeated").json()["id"]
    gateway.redis.config_resetstat()

    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(gateway.pay, CARD, key="repeated", wait=2)
        eventually(lambda: gateway.redis.info("commandstats").get("cmdstat_get", {}).get("calls"), "it is known")
        gateway.redis.flushall()
        lost = waiting.result()
    gateway.start("worker")
    again = gateway.pay(CARD, key="repeated", wait=10)

    assert (lost.status_code, lost.json()["code"]) == (503, "acceptance_unknown")
    assert (again.status_code, again.json()["id"]) == (201, payment)


def test_a_redis_that_is_read_only_for_a_while_costs_no_worker_its_life(gateway: Gateway) -> None:
    worker = gateway.start("worker")
    assert gateway.pay(CARD, wait=10).status_code == 201

    gateway.redis.replicaof("127.0.0.1", "1")  # what is left of a master after a fail-over
    try:
        refused = gateway.pay(CARD, key="refused")
        alive = alive_for(worker.process, 1)
    finally:
        gateway.redis.replicaof("NO", "ONE")
    again = gateway.pay(CARD, key="refused", wait=10)

    assert refused.status_code == 503
    assert alive
    assert again.status_code == 201
    gateway.settled()


def test_a_lock_on_the_operations_delays_a_take_over_and_no_more(gateway: Gateway) -> None:
    payment = gateway.pay(CARD).json()["id"]

    with psycopg.connect(gateway.database) as migration:
        migration.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
        worker = gateway.start("worker", PENSTOCK_LEASE_MS="5000")
        alive = alive_for(worker.process, BAD_TIME_S)

    assert alive
    assert _in_state(gateway, payment, "authorized")
    gateway.settled()
    assert gateway.dead() == []


def _in_state(gateway: Gateway, payment: str, state: str) -> bool:
    return bool(eventually(lambda: gateway.get(payment).get("status") == state, f"it is {state}", 20))
