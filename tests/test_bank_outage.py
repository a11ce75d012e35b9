"""A bank that takes no calls costs what waits for it nothing: it is parked once, said once, and not even read."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import orjson
import psycopg
import pytest

from engine.ledger.writer import DueTerms
from engine.resilience.retry_budget import Room
from ops.stack.address import any_free_port
from support.bank_harness import a_bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually
from support.ledger_stand import PARTITION, LedgerStand, Tenure, a_ledger, a_payment_of

pytest_plugins = ["support.bank_fixtures"]

PAYMENTS = 40
REST_S = 0.5
PROBES = 2
SILENCES = 5
WATCHED_S = 4.0
ATTEMPTS_IN_HAND = 2
PER_RETRY = 2  # commits: the attempt, and that it was not made
TERMS = DueTerms(
    expiry_notice=timedelta(0),
    expiry_grace=timedelta(days=365),
    lost_after=timedelta(seconds=5),
    farthest=timedelta(minutes=10),
)
PARKED = """UPDATE operations SET status = '{}', attempts = 0, next_attempt_at = now() - interval '{} s'
            WHERE payment = %s"""
READ = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'operations_unsettled'"
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@pytest.fixture
def port() -> int:
    """Of a bank that is stopped."""
    return any_free_port()


@pytest.fixture
def gateway(database: str, redis_url: str, port: int, tmp_path: Path) -> Iterator[Gateway]:
    impatient = {
        "PENSTOCK_BREAKER_SILENCES": str(SILENCES),
        "PENSTOCK_BREAKER_REST_MS": str(int(REST_S * 1000)),
        "PENSTOCK_BREAKER_REST_CAP_MS": str(int(REST_S * 1000)),
        "PENSTOCK_BREAKER_PROBES": str(PROBES),
        "PENSTOCK_ATTEMPTS_IN_HAND": str(ATTEMPTS_IN_HAND),
        # All of it is due again and again while the bank is away.
        "PENSTOCK_PARK_BASE_MS": "50",
        "PENSTOCK_PARK_CAP_MS": "50",
    }
    with a_gateway(database, redis_url, f"http://127.0.0.1:{port}", tmp_path, **impatient) as running:
        yield running


def commits(gateway: Gateway) -> int:
    """Each commit of a payment makes one version of it."""
    return int(gateway.sql("SELECT coalesce(sum(version), 0) FROM payments")[0][0])


def lines(gateway: Gateway) -> Counter[str]:
    """Of the worker's log, by what they tell."""
    (worker,) = (running for running in gateway.processes if running.role == "worker")
    return Counter(orjson.loads(line)["event"] for line in worker.log.read_bytes().splitlines())


def test_an_outage_costs_commits_and_log_lines_by_the_payment_and_by_the_probe_and_not_by_the_second(
    gateway: Gateway, bank_postgres: str, port: int
) -> None:
    payments = [gateway.pay(next(fresh_cards)).json()["id"] for _ in range(PAYMENTS)]
    eventually(lambda: gateway.backlog() == 0, "everything is journaled and rests", 30)
    parked = "SELECT count(*) FROM operations WHERE settled_at IS NULL AND next_attempt_at IS NOT NULL"
    eventually(lambda: gateway.sql(parked) == [(PAYMENTS,)], "all of it is parked", 30)

    before, told, began = commits(gateway), lines(gateway), time.monotonic()
    time.sleep(WATCHED_S)
    after, told_meanwhile = commits(gateway), lines(gateway) - told
    rests = (time.monotonic() - began) / REST_S + 2

    assert after - before <= rests * PROBES * PER_RETRY
    assert told["operation_parked"] + told_meanwhile["operation_parked"] <= 2 * PAYMENTS  # unsent, or in doubt
    assert told_meanwhile.total() <= rests * (PROBES + 3), told_meanwhile
    with a_bank(bank_postgres, "outage", PORT=str(port)):
        gateway.settled(60)
    assert {gateway.get(payment)["status"] for payment in payments} == {"authorized"}


async def parked(stand: LedgerStand, owner: Tenure, number: int, status: str) -> list[str]:
    """Payments that are parked, and due, the first one since longest."""
    made = []
    for index in range(number):
        desk = a_payment_of(f"{status}-{index}")
        await stand.commit(desk.steps[-1], owner)
        made.append(desk.payment.id)
        with psycopg.connect(stand.dsn, autocommit=True) as connection:
            connection.execute(PARKED.format(status, number - index), [desk.payment.id])
    return made


def test_so_many_retries_are_due_as_the_bank_takes_the_earliest_first(database: str) -> None:
    async def scene() -> tuple[list[str], list[str], list[set[str]]]:
        async with a_ledger(database) as stand:
            owner = await stand.acquire()
            unsent = await parked(stand, owner, 5, "accepted")
            doubts = await parked(stand, owner, 5, "in_doubt")
            due = []
            for room in (Room(unsent=0, doubt=0), Room(unsent=2, doubt=0), Room(unsent=3, doubt=1)):
                due.append({payment for _, payment in await stand.ledger.due([PARTITION], TERMS, 1000, room)})
            return unsent, doubts, due

    unsent, doubts, due = asyncio.run(scene())

    assert due == [set(), set(unsent[:2]), {*unsent[:3], doubts[0]}]


def test_what_the_bank_does_not_take_is_not_read(database: str) -> None:
    async def swept(room: Room) -> None:
        async with a_ledger(database) as stand:
            for _ in range(30):
                await stand.ledger.due([PARTITION], TERMS, 1000, room)

    async def made() -> None:
        async with a_ledger(database) as stand:
            await parked(stand, await stand.acquire(), 20, "accepted")

    read = []
    asyncio.run(made())
    for room in (Room(unsent=0, doubt=0), Room(unsent=20, doubt=20)):
        with psycopg.connect(database, autocommit=True) as connection:
            eventually(lambda: connection.execute(OTHERS).fetchone() == (0,), "the ledger's connection is gone")
            before = connection.execute(READ).fetchone()
        asyncio.run(swept(room))
        with psycopg.connect(database, autocommit=True) as connection:
            eventually(lambda: connection.execute(OTHERS).fetchone() == (0,), "the ledger's connection is gone")
            after = connection.execute(READ).fetchone()
        assert before is not None and after is not None
        read.append(after[0] - before[0])

    assert read[0] == 0
    assert read[1] >= 20, "it is counted"
