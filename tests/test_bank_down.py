"""A bank that is down is left in peace, everything accepted waits visibly, and all of it is done when it is back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

PAYMENTS = 60
DOWN_S = 3.0
SILENCES = 5
REST_S = 0.5
PROBES = 3
NEVER_ENDING = 1_000_000


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    breaker = {
        "PENSTOCK_BREAKER_SILENCES": str(SILENCES),
        "PENSTOCK_BREAKER_REST_MS": str(int(REST_S * 1000)),
        "PENSTOCK_BREAKER_REST_CAP_MS": str(int(REST_S * 1000)),
        "PENSTOCK_BREAKER_PROBES": str(PROBES),
        # So few attempts that each wait at the gate would use them up, if it counted.
        "PENSTOCK_ATTEMPTS_MAX": "12",
    }
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, **breaker) as running:
        yield running


def asked(bank: Bank) -> int:
    """How often the bank was asked for anything since it is down."""
    rules = bank.http.get("/control/faults").json()
    rules = rules["faults"] if isinstance(rules, dict) else rules
    return NEVER_ENDING - int(rules[0]["times"])


def test_a_bank_that_is_down_is_asked_now_and_then_and_all_of_it_is_done_when_it_is_back(
    gateway: Gateway, bank: Bank
) -> None:
    cards = [next(fresh_cards) for _ in range(PAYMENTS)]
    bank.fault("fail_before", times=NEVER_ENDING)

    payments = [gateway.pay(card).json()["id"] for card in cards]
    down_since = time.monotonic()
    eventually(lambda: gateway.backlog() == 0, "everything is journaled and rests", 20)
    shown = gateway.get(payments[-1])
    eventually(lambda: time.monotonic() - down_since > DOWN_S, "some rests have passed", DOWN_S + 1)
    asked_while_down, rests = asked(bank), (time.monotonic() - down_since) / REST_S + 1
    bank.http.delete("/control/faults")
    gateway.settled(30)

    # What was under way when the circuit opened, and a few probes for each rest; not some for each payment.
    assert SILENCES <= asked_while_down <= SILENCES + PAYMENTS + PROBES * (rests + 1)
    assert (shown["status"], shown["failure"]) == ("pending", None)
    assert [gateway.get(payment)["status"] for payment in payments] == ["authorized"] * PAYMENTS
    for card in cards:
        holds = "SELECT count(*) FROM transactions t JOIN accounts a ON a.id = t.account_id WHERE a.account_number = %s"
        assert bank.sql(holds, card) == [(1,)]
