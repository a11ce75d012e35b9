"""The audit beside real traffic, faults and a killed worker: no false alarm, and what is broken by hand is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import anyio
import httpx
import pytest

from bank.ficmart import FicmartBank
from ops.audit.auditor import Auditor
from ops.audit.breach import Report
from ops.audit.holds import find, release
from ops.store_url import Locations
from support.audit_stand import named
from support.bank_harness import Bank, a_bank, fresh_cards
from support.gateway import Gateway, Running, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]
pytestmark = pytest.mark.slow

GRACE_S = 10.0  # an attempt of these gateways is over after two seconds, a parked one asked again within one


@pytest.fixture(scope="module")
def own_bank(bank_postgres: str) -> Iterator[Bank]:
    """A bank that nobody else uses, slow and failing at times."""
    weather = {"FAILURE_RATE": "0.1", "MIN_LATENCY_MS": "1", "MAX_LATENCY_MS": "50", "PENSTOCK_BANK_CONTROL": "1"}
    with a_bank(bank_postgres, "audited", **weather) as bank:
        yield bank


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, own_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(
        module_database, module_redis_url, f"http://127.0.0.1:{own_bank.port}", folder, workers=2
    ) as running:
        yield running


def holds(bank: Bank) -> int:
    return len(bank.sql("SELECT 1 FROM transactions WHERE type = 'AUTH_HOLD'"))


def life_of_a_payment(gateway: Gateway, number: int) -> None:
    payment = gateway.pay(next(fresh_cards), wait=10, capture=number % 5 == 0).json()["id"]
    for verb in (("capture", "refund"), ("void",), (), ("capture", "void"), ("refund",))[number % 5]:
        gateway.post(f"/v1/payments/{payment}/{verb}", wait=10 if number % 2 else 0)


def test_nothing_is_alarmed_about_while_payments_and_faults_go_on(gateway: Gateway, own_bank: Bank) -> None:
    places = Locations(ledger=gateway.database, redis=gateway.redis_url, bank=own_bank.dsn)
    over, reports = threading.Event(), list[Report]()

    def keep_looking() -> None:
        with closing(Auditor(places, grace_s=GRACE_S, limit=20)) as auditor:
            while not over.is_set():
                reports.extend((auditor.look_at_all(), auditor.run_once()))

    with ThreadPoolExecutor(9) as pool:
        looking = pool.submit(keep_looking)
        paying = [pool.submit(life_of_a_payment, gateway, number) for number in range(160)]
        eventually(lambda: sum(each.done() for each in paying) > 60, "some are paid", 30)
        next(each for each in gateway.processes if each.role == "worker").kill()
        for each in paying:
            each.result(60)
        gateway.settled()
        over.set()
        looking.result(30)
    gateway.start("worker")

    assert len(reports) > 10
    assert [named(report) for report in reports if named(report)] == []


def test_a_hold_doubled_because_the_bank_lost_its_key_is_a_breach_until_it_is_given_back(
    gateway: Gateway, own_bank: Bank
) -> None:
    card, before = next(fresh_cards), holds(own_bank)
    own_bank.fault("drop_key_and_response", card_number=card, operation="authorize", times=1)
    payment = gateway.pay(card, wait=15).json()["id"]
    gateway.settled()

    places = Locations(ledger=gateway.database, redis=gateway.redis_url, bank=own_bank.dsn)
    with closing(Auditor(places, grace_s=0, limit=20)) as auditor:
        report = auditor.look_at_all()

    assert named(report) == {"bank_broke_promise"}
    assert [each.invariant.name for each in report.breached] == ["bank_broke_promise"]
    assert payment in [each.payment for found in report.found for each in found.breaches]
    assert holds(own_bank) == before + 2

    (orphan,) = find(gateway.database, own_bank.dsn, grace_s=0)
    anyio.run(give_back, gateway, own_bank, orphan.reference)
    with closing(Auditor(places, grace_s=0, limit=20)) as auditor:
        assert named(auditor.look_at_all()) == set()


async def give_back(gateway: Gateway, bank: Bank, hold: str) -> None:
    async with FicmartBank(f"http://127.0.0.1:{bank.port}", clock=lambda: datetime.now(UTC)) as connector:
        await release(gateway.database, connector, hold, reason="placed twice", actor="ada")


def metrics(auditor: Running) -> dict[str, float]:
    """What stands against each invariant."""
    text = httpx.get(f"http://127.0.0.1:{auditor.port}/metrics").text
    found = re.findall(r'^penstock_audit_breaches\{invariant="(\w+)",.*\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_the_auditor_tells_what_is_broken_until_it_is_mended(gateway: Gateway) -> None:
    auditor = gateway.start("auditor", PENSTOCK_AUDIT_EVERY_S="1")
    paid = gateway.pay(next(fresh_cards), wait=10).json()["id"]
    gateway.settled()
    assert set(metrics(auditor).values()) == {0.0}

    ((event_id, payment),) = gateway.sql(
        "DELETE FROM outbox WHERE payment = %s AND sequence = 2 RETURNING event_id, payment", paid
    )
    eventually(lambda: metrics(auditor)["rows_have_one_event"] == 1, "the breach is a metric")
    assert '"event":"breach"' in auditor.log.read_text()
    assert payment in auditor.log.read_text()

    gateway.sql(
        "INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at) "
        "VALUES (%s, %s, 2, 'mer_local', 'payment.authorized', '{}', now())",
        event_id,
        payment,
    )
    eventually(lambda: metrics(auditor)["rows_have_one_event"] == 0, "it is no breach any more")
    assert '"event":"breach_is_gone"' in auditor.log.read_text()

    assert auditor.end() == 0
