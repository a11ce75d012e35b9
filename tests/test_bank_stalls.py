"""A bank that stands still for longer than an attempt lasts, then executes its queue: nothing is held twice (I7)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

PAYMENTS = 20


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path) as running:
        yield running


def effects(bank: Bank, card: str) -> dict[str, int]:
    statement = """
        SELECT t.type, count(*) FROM transactions t JOIN accounts a ON a.id = t.account_id
        WHERE a.account_number = %s GROUP BY 1
    """
    return dict(bank.sql(statement, card))


def test_authorizations_in_flight_when_the_bank_stalls_are_held_once(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    os.kill(bank.process.pid, signal.SIGSTOP)
    try:
        payments = [gateway.pay(card, amount=100 + number).json()["id"] for number in range(PAYMENTS)]
        doubted = "SELECT count(*) FROM operations WHERE status = 'in_doubt'"
        eventually(lambda: gateway.sql(doubted) == [(PAYMENTS,)], "all are in doubt, and parked", 30)
    finally:
        os.kill(bank.process.pid, signal.SIGCONT)
    gateway.settled(60)

    assert [gateway.get(payment)["status"] for payment in payments] == ["authorized"] * PAYMENTS
    assert effects(bank, card) == {"AUTH_HOLD": PAYMENTS}


@pytest.mark.parametrize("verb", ["capture", "void"])
def test_what_follows_an_authorization_is_done_once_and_known_to_be_done(
    gateway: Gateway, bank: Bank, verb: str
) -> None:
    card = next(fresh_cards)
    payments = [gateway.pay(card, amount=100 + number, wait=10).json()["id"] for number in range(5)]
    os.kill(bank.process.pid, signal.SIGSTOP)
    try:
        for payment in payments:
            gateway.post(f"/v1/payments/{payment}/{verb}")
        doubted = "SELECT count(*) FROM operations WHERE status = 'in_doubt'"
        eventually(lambda: gateway.sql(doubted) == [(5,)], "all are in doubt, and parked", 30)
    finally:
        os.kill(bank.process.pid, signal.SIGCONT)
    gateway.settled(60)

    done = {"capture": "captured", "void": "voided"}[verb]
    assert [gateway.get(payment)["status"] for payment in payments] == [done] * 5, "none of them needs a person"
    assert effects(bank, card) == {"AUTH_HOLD": 5, verb.upper(): 5}


def test_a_bank_that_stays_silent_is_asked_once_and_its_silence_is_shown(gateway: Gateway, bank: Bank) -> None:
    os.kill(bank.process.pid, signal.SIGSTOP)
    try:
        payment = gateway.pay(next(fresh_cards)).json()["id"]
        held = "penstock_bank_calls_held_back_total{"
        (worker,) = [running for running in gateway.processes if running.role == "worker"]

        def held_back() -> bool:
            lines = gateway.http.get(f"http://127.0.0.1:{worker.port}/metrics").text.splitlines()
            return any("undrained_queue" in line and float(line.split()[-1]) >= 2 for line in lines if held in line)

        eventually(held_back, "it was held back more than once", 30)
        shown = gateway.get(payment)
        attempts = gateway.sql("SELECT attempts FROM operations WHERE payment = %s", payment)
    finally:
        os.kill(bank.process.pid, signal.SIGCONT)
    gateway.settled(60)

    assert shown["operation"]["status"] == "in_doubt"
    assert attempts == [(1,)], "what was not sent is no attempt"
    assert gateway.get(payment)["status"] == "authorized"
