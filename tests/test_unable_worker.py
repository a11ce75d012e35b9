"""What a worker cannot carry out is the worker's fault: no attempt, no lost card, and another one does it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from engine.domain.command import Command
from engine.domain.creation import new_payment
from engine.domain.money import Money
from engine.domain.payment import Card, MaskedCard, Operation, Payment, Terms, Verb
from engine.errors import Broken
from engine.failpoint import Failpoints
from engine.metrics import EngineMetrics
from engine.security.encryption import Vault
from engine.worker.bank_caller import BankCaller, Unable
from support.bank_harness import Bank, fresh_cards
from support.decision_stand import PATIENCE
from support.gateway import MASTER_KEY, Gateway, Running, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

NEW_KEY = base64.b64encode(b"n" * 32).decode()
BOTH = {"PENSTOCK_MASTER_KEY": NEW_KEY, "PENSTOCK_RETIRED_MASTER_KEYS": MASTER_KEY}
OLD_ID, NEW_ID = (next(iter(Vault([letter * 32]).checks)) for letter in (b"m", b"n"))
ALL = list(range(16))


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    url, environ = f"http://127.0.0.1:{bank.port}", {"PENSTOCK_KEY_HOLDER_S": "1"}
    with a_gateway(database, redis_url, url, tmp_path, workers=0, **environ) as running:
        yield running


def ready(gateway: Gateway, running: Running) -> tuple[int, str]:
    answer = gateway.http.get(f"http://127.0.0.1:{running.port}/readyz")
    return answer.status_code, answer.text


def metric(gateway: Gateway, running: Running, line: str) -> bool:
    return line in gateway.http.get(f"http://127.0.0.1:{running.port}/metrics").text


def attempts(gateway: Gateway) -> list[tuple[object, ...]]:
    return gateway.sql("SELECT status, attempts FROM operations ORDER BY created_at")


def test_a_worker_without_the_connector_keeps_the_payment_whole_and_a_worker_with_it_carries_it_out(
    gateway: Gateway,
) -> None:
    unable = gateway.start("worker", PENSTOCK_CONNECTOR="instant")
    paid = [gateway.pay(next(fresh_cards)).json()["id"] for _ in range(4)]
    eventually(lambda: ready(gateway, unable)[0] == 503, "it is not ready")
    said, alone = ready(gateway, unable)[1], gateway.owned()[unable.pid]
    eventually(lambda: metric(gateway, unable, 'penstock_breaches_total{name="unable_worker"}'), "it is counted")
    before = attempts(gateway)

    able = gateway.start("worker")
    eventually(lambda: gateway.owned().get(able.pid) == ALL, "the other one takes everything", 20)
    gateway.settled()

    assert "PENSTOCK_CONNECTOR" in said and alone == ALL, "nobody else was there to do the rest"
    assert before == [], "and nothing was committed"
    assert {gateway.get(payment)["status"] for payment in paid} == {"authorized"}
    assert attempts(gateway) == [("succeeded", 1)] * 4
    assert gateway.owned()[unable.pid] == [] and gateway.dead() == []


def test_a_worker_that_lacks_a_key_which_another_process_seals_with_costs_no_payment_its_card(
    gateway: Gateway,
) -> None:
    old_edge = gateway.processes[0]
    gateway.start("edge", **BOTH)
    worker = gateway.start(
        "worker", PENSTOCK_KEY_HOLDER_S="3600", PENSTOCK_DRAIN_MS="60000"
    )  # it will not notice by itself
    assert old_edge.end() == 0
    gateway.sql("DELETE FROM key_holders WHERE kind = 'worker'")  # as if it had been silent for long
    sealing = "SELECT sealing_key FROM installation"
    eventually(lambda: gateway.sql(sealing) == [(NEW_ID,)], "the new key seals")

    def paid() -> str | None:
        payment = str(gateway.pay(next(fresh_cards)).json()["id"])
        return payment if ready(gateway, worker)[0] == 503 else None

    last = eventually(paid, "the edge seals with it, and the worker meets it", 20)
    said = ready(gateway, worker)[1]
    assert worker.end() == 0, "it does not wait for what rests"
    gateway.start("worker", **BOTH)
    gateway.settled()

    assert NEW_ID in said and "PENSTOCK_RETIRED_MASTER_KEYS" in said
    assert gateway.get(last)["status"] == "authorized"
    assert {row for row in attempts(gateway)} == {("succeeded", 1)}
    assert gateway.dead() == []


def an_authorization(vault: Vault, connector: str) -> tuple[Payment, Operation]:
    now = datetime.now(UTC)
    card = Card(number="4111111111111111", cvv="123", expiry_month=1, expiry_year=2031)
    method = MaskedCard(brand="visa", last4="1111", expiry_month=1, expiry_year=2031)
    terms = Terms(
        merchant="mer_1",
        money=Money(amount=1, currency="USD"),
        order_id="o",
        customer_id="c",
        description=None,
        metadata={},
        method=method,
        connector=connector,
        webhook_url=None,
    )
    command = Command(
        operation="op_1",
        payment="pay_1",
        verb=Verb.AUTHORIZE,
        merchant="mer_1",
        key="k",
        amount=None,
        terms=terms,
        sealed=vault.seal(card, "op_1"),
        sale=False,
        fingerprint={},
        request_id="r",
        traceparent=None,
        reply_to=None,
        accepted_at=now,
    )
    return new_payment(command, 0, 1, now)


def a_teller(vault: Vault) -> BankCaller:
    meters = EngineMetrics(CollectorRegistry())
    return BankCaller({"bank": None}, vault, PATIENCE, lambda: datetime.now(UTC), Failpoints(), meters)  # type: ignore[dict-item]


def test_whose_fault_a_closed_envelope_is_depends_on_who_has_its_key() -> None:
    mine, theirs = Vault([b"m" * 32]), Vault([b"n" * 32])
    payment, operation = an_authorization(theirs, "bank")
    bank_caller = a_teller(mine)

    a_teller(theirs).check(payment, operation)
    with pytest.raises(Broken, match="never ours"):  # nobody ever brought such a key: the envelope was made up
        bank_caller.check(payment, operation)
    mine.use(OLD_ID, [OLD_ID, NEW_ID])
    with pytest.raises(Unable, match=NEW_ID):
        bank_caller.check(payment, operation)
    lost = Vault([b"m" * 32], lost=[NEW_ID])
    lost.use(OLD_ID, [OLD_ID, NEW_ID])
    with pytest.raises(Broken, match="lost"):
        a_teller(lost).check(payment, operation)
    with pytest.raises(Unable, match="PENSTOCK_CONNECTOR"):
        a_teller(theirs).check(*an_authorization(theirs, "another bank"))
