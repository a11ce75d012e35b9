"""When the bank gives no answer: asked again with the same key, visibly in doubt, never shown as failed (I7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.address import any_free_port
from support.bank_harness import Bank, a_bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path) as running:
        yield running


def effects(bank: Bank, card: str) -> list[str]:
    statement = """SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return [row[0] for row in bank.sql(statement, card)]


def test_a_500_before_the_effect_is_retried_until_it_works(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("fail_before", card_number=card, times=3)

    answer = gateway.pay(card, wait=15)

    assert (answer.status_code, answer.json()["operation"]["attempts"]) == (201, 4)
    assert effects(bank, card) == ["AUTH_HOLD"]


@pytest.mark.parametrize("verb", ["authorize", "capture"])
def test_a_lost_answer_is_asked_again_with_the_same_key(gateway: Gateway, bank: Bank, verb: str) -> None:
    card = next(fresh_cards)
    bank.fault("drop_response", card_number=card, operation=verb, times=1)

    answer = gateway.pay(card, capture=True, wait=20)

    assert (answer.status_code, answer.json()["status"]) == (201, "captured")
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE"]


def test_an_authorization_the_bank_may_have_placed_without_its_key_goes_to_review(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)

    payment = gateway.pay(card).json()["id"]
    shown = eventually(lambda: _with_status(gateway, payment, "review"), "it is in review")

    told = eventually(lambda: _told(gateway, "payment.review"), "the merchant is told")

    assert (shown["status"], shown["in_doubt"]) == ("pending", True)
    assert [(event["data"]["id"], event["data"]["operation"]["status"]) for event in told] == [(payment, "review")]
    assert effects(bank, card) == ["AUTH_HOLD"]


def test_commands_behind_an_operation_in_doubt_wait_and_run_in_order(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("fail_before", card_number=card, operation="authorize", times=6)

    payment = gateway.pay(card).json()["id"]
    eventually(lambda: _with_status(gateway, payment, "in_doubt"), "it is in doubt")
    told = eventually(lambda: _told(gateway, "payment.in_doubt"), "the merchant is told")
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=20)
    refunded = gateway.post(f"/v1/payments/{payment}/refund", wait=20)

    assert [(event["data"]["id"], event["data"]["in_doubt"]) for event in told] == [(payment, True)]
    assert (captured.status_code, refunded.status_code) == (200, 200)
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE", "REFUND"]
    events = gateway.sql("SELECT event FROM transitions ORDER BY sequence")
    assert [event for (event,) in events] == ["created", "in_doubt", "authorized", "captured", "refunded"]
    gateway.settled()


def test_commands_behind_a_doubt_run_in_order_under_the_next_owner(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, wait=10).json()["id"]
    bank.fault("fail_before", card_number=card, operation="capture")
    gateway.post(f"/v1/payments/{payment}/capture", key="capture")
    eventually(lambda: _with_status(gateway, payment, "in_doubt"), "the capture is in doubt")
    for verb in ("void", "refund"):
        gateway.post(f"/v1/payments/{payment}/{verb}", key=verb)
    eventually(lambda: gateway.backlog() == 0, "both are journaled and wait")

    gateway.processes[-1].kill()
    bank.http.delete("/control/faults")
    gateway.start("worker")
    gateway.settled()

    answers = {
        verb: gateway.post(f"/v1/payments/{payment}/{verb}", key=verb).status_code
        for verb in ("capture", "void", "refund")
    }
    assert answers == {"capture": 200, "void": 409, "refund": 200}
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE", "REFUND"]


def test_a_bank_that_is_down_means_waiting_not_failing(
    database: str, redis_url: str, bank_postgres: str, tmp_path: Path
) -> None:
    card, port = next(fresh_cards), any_free_port()
    with a_gateway(database, redis_url, f"http://127.0.0.1:{port}", tmp_path) as gateway:
        payment = gateway.pay(card).json()["id"]
        parked = eventually(lambda: _parked(gateway, payment), "it is parked")

        with a_bank(bank_postgres, database="bank_that_was_down", PORT=str(port)) as bank:
            eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized", 20)
            found = effects(bank, card)

    assert (parked["status"], parked["in_doubt"], parked["operation"]["status"]) == ("pending", False, "accepted")
    assert found == ["AUTH_HOLD"]


def _told(gateway: Gateway, type: str) -> list[dict[str, Any]]:
    return list(gateway.request("GET", f"/v1/events?type={type}").json()["data"])


def _with_status(gateway: Gateway, payment: str, status: str) -> dict[str, object] | None:
    shown = gateway.get(payment)
    return shown if shown.get("operation", {}).get("status") == status else None


def _parked(gateway: Gateway, payment: str) -> dict[str, object] | None:
    shown = gateway.get(payment)
    return shown if shown.get("operation", {}).get("next_attempt_at") else None
