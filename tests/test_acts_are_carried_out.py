"""An operator's act is carried out once, by the payment's owner, whatever happens to owners and to Redis (I2, I3)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.domain.ids import partition_of
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    """No worker yet."""
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_a_hold_without_an_answer_is_resolved_from_the_bank_s_rows_and_captured_by_what_waited(
    gateway: Gateway, bank: Bank
) -> None:
    card = next(fresh_cards)
    bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)
    gateway.start("worker")
    payment = gateway.pay(card).json()["id"]
    operation = eventually(lambda: _with_status(gateway, payment, "review"), "it is in review")
    gateway.post(f"/v1/payments/{payment}/capture")
    reference = f"auth_{_effects(bank, card)[0][0]}"

    act = _asked(gateway, "resolve", payment, operation, outcome="approved", reference=reference)
    eventually(lambda: gateway.get(payment)["status"] == "captured", "it is captured")
    gateway.settled()

    assert _result(gateway, act) == "carried out: the authorize is succeeded, attempt 1"
    assert [kind for _, kind in _effects(bank, card)] == ["AUTH_HOLD", "CAPTURE"]
    assert gateway.get(payment)["bank"]["authorization_id"] == reference
    ((evidence,),) = gateway.sql("SELECT evidence FROM transitions WHERE event = 'authorized'")
    assert evidence["act"] == {"id": act, "actor": "ada", "reason": "because"}


@pytest.mark.parametrize(
    ("point", "attempts"),
    [("before-intent", 2), ("after-intent", 3), ("after-bank", 3), ("after-outcome", 2)],
)
def test_a_retry_whose_worker_dies_is_carried_out_once_by_the_next_one(
    gateway: Gateway, bank: Bank, point: str, attempts: int
) -> None:
    card = next(fresh_cards)
    payment, operation = _a_capture_in_review(gateway, bank, card)
    doomed = gateway.start("worker", PENSTOCK_FAILPOINTS=f"{point}:kill")

    act = _asked(gateway, "retry", payment, operation)
    assert doomed.died() == -signal.SIGKILL
    carried_out = _result(gateway, act) is not None
    gateway.start("worker")
    eventually(lambda: gateway.get(payment)["status"] == "captured", "it is captured", 20)
    gateway.settled()

    assert carried_out is (point != "before-intent"), "the result is written with the step, not before and not after"
    assert _result(gateway, act) == "carried out: the capture is sent, attempt 2"
    assert gateway.get(payment)["operation"]["attempts"] == attempts
    assert [kind for _, kind in _effects(bank, card)] == ["AUTH_HOLD", "CAPTURE"]


def test_an_act_that_is_refused_says_why_and_changes_nothing(gateway: Gateway, bank: Bank) -> None:
    payment, operation = _a_capture_in_review(gateway, bank, next(fresh_cards))
    before = gateway.get(payment)
    gateway.start("worker")

    act = _asked(gateway, "resolve", payment, operation, outcome="approved")
    eventually(lambda: _result(gateway, act), "it has a result")

    assert _result(gateway, act) == "refused: the bank's id of the capture is needed as reference"
    assert gateway.get(payment) == before


def test_a_former_owner_carries_out_nothing(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment, operation = _a_capture_in_review(gateway, bank, card)
    zombie = gateway.start("worker", PENSTOCK_FAILPOINTS="before-intent:stop")
    act = _asked(gateway, "resolve", payment, operation, outcome="refused")
    eventually(lambda: b"T" in _state(zombie.pid), "it is stopped before its commit")

    gateway.start("worker")
    eventually(lambda: _result(gateway, act), "the new owner carries it out", 15)
    zombie.send(signal.SIGCONT)
    eventually(lambda: "partition_fenced" in zombie.log.read_text(), "the old owner finds out")

    assert gateway.sql("SELECT count(*) FROM transitions WHERE event = 'capture_refused'") == [(1,)]
    assert gateway.get(payment)["status"] == "authorized"


def _a_capture_in_review(gateway: Gateway, bank: Bank, card: str) -> tuple[str, str]:
    """Its only attempt met a bank that did not know the hold; no worker is left, and the bank is well again."""
    worker = gateway.start("worker", PENSTOCK_ATTEMPTS_IN_HAND="1")
    payment = gateway.pay(card, wait=10).json()["id"]
    bank.sql("UPDATE transactions SET type = 'VOID' WHERE id = %s", _effects(bank, card)[0][0])
    gateway.post(f"/v1/payments/{payment}/capture")
    operation = eventually(lambda: _with_status(gateway, payment, "review"), "it is in review")
    bank.sql("UPDATE transactions SET type = 'AUTH_HOLD' WHERE id = %s", _effects(bank, card)[0][0])
    worker.end()
    return payment, operation


def _with_status(gateway: Gateway, payment: str, status: str) -> str | None:
    """The id of the operation that the payment shows, if it is so far."""
    shown = gateway.get(payment).get("operation", {})
    return str(shown["id"]) if shown.get("status") == status else None


def _asked(gateway: Gateway, act: str, payment: str, operation: str, **detail: Any) -> int:
    ((number,),) = gateway.sql(
        """INSERT INTO audit (actor, act, subject, reason, detail, partition, payment, operation)
           VALUES ('ada', %s, %s, 'because', %s, %s, %s, %s) RETURNING id""",
        act,
        payment,
        orjson.dumps(detail).decode(),
        partition_of(payment, 16),
        payment,
        operation,
    )
    return int(number)


def _result(gateway: Gateway, act: int) -> str | None:
    ((result,),) = gateway.sql("SELECT result FROM audit WHERE id = %s", act)
    return None if result is None else str(result)


def _effects(bank: Bank, card: str) -> list[tuple[Any, ...]]:
    statement = """SELECT t.id::text, t.type FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return bank.sql(statement, card)


def _state(pid: int) -> bytes:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
