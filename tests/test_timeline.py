"""A timeline tells all that happened to a payment, in order, from the ledger alone, and nothing of its card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edge.openapi.timeline_schemas import Timeline
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


def timeline(gateway: Gateway, payment: str) -> list[dict[str, Any]]:
    """As it is described in the reference."""
    answer = gateway.request("GET", f"/v1/payments/{payment}/timeline")
    assert answer.status_code == 200, answer.text
    Timeline.model_validate_json(answer.content)
    return list(answer.json()["data"])


def in_words(moments: list[dict[str, Any]]) -> list[str]:
    words = {"command": "verb", "bank_attempt": "answer", "transition": "event", "operator_act": "act"}
    return [f"{moment['type']} {moment[words[moment['type']]]}" for moment in moments]


def test_a_timeline_has_every_command_attempt_and_transition_in_order(gateway: Gateway) -> None:
    payment = gateway.pay(next(fresh_cards), key="shown-in-it", wait=10).json()["id"]
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10).json()
    refused = gateway.post(f"/v1/payments/{payment}/void", wait=10)

    told = timeline(gateway, payment)

    assert refused.status_code == 409
    assert in_words(told) == [
        "command authorize",
        "transition created",
        "bank_attempt approved",
        "transition authorized",
        "command capture",
        "bank_attempt approved",
        "transition captured",
        "command void",
    ]
    assert (told[0]["idempotency_key"], told[0]["status"], told[0]["response_status"]) == (
        "shown-in-it",
        "succeeded",
        201,
    )
    assert told[5]["evidence"]["reference"] == captured["bank"]["capture_id"]
    assert (told[6]["from"], told[6]["to"]) == ("authorized", "captured")
    assert (told[7]["status"], told[7]["response_status"]) == ("rejected", 409)


def test_a_timeline_shows_a_doubt_with_its_evidence_and_when_it_is_asked_again(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("fail_before", operation="authorize", card_number=card, times=4)

    payment = gateway.pay(card).json()["id"]
    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized in the end", 20)
    told = timeline(gateway, payment)

    doubt = next(moment for moment in told if moment["type"] == "bank_attempt" and moment["answer"] == "none")
    assert in_words(told) == [
        "command authorize",
        "transition created",
        "bank_attempt none",
        "transition in_doubt",
        "bank_attempt approved",
        "transition authorized",
    ]
    assert (doubt["attempt"], doubt["evidence"]["http_status"]) == (4, 500)
    assert doubt["evidence"]["next_attempt_at"] > doubt["at"]
    assert (told[0]["attempts"], told[0]["doubted_at"] is not None) == (5, True)


def test_an_attempt_that_is_at_the_bank_right_now_is_shown(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("latency", card_number=card, operation="authorize", latency_ms=1000, times=1)

    payment = gateway.pay(card).json()["id"]
    told = eventually(lambda: _with_attempt(gateway, payment), "the attempt is shown")

    assert told["answer"] == "none_yet"
    assert told["at"] < told["send_by"] < told["deadline"]
    gateway.settled()


def test_a_timeline_comes_from_the_ledger_and_holds_no_card(gateway: Gateway) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, capture=True, wait=10).json()["id"]
    path = f"/v1/payments/{payment}/timeline"

    before = gateway.request("GET", path)
    gateway.redis.flushall()
    after = gateway.request("GET", path)

    assert before.json().pop("as_of") < after.json().pop("as_of")
    assert before.json() | {"as_of": ""} == after.json() | {"as_of": ""}
    for secret in (card, "sealed", "cvv", "fingerprint"):
        assert secret not in after.text
    engines_own = [moment for moment in timeline(gateway, payment) if moment["type"] == "command"][1]
    assert (engines_own["verb"], engines_own["idempotency_key"]) == ("capture", None)
    eventually(lambda: gateway.pay(next(fresh_cards), wait=10).status_code == 201, "leases are back")


def test_a_strangers_or_unknown_payment_has_no_timeline(gateway: Gateway) -> None:
    payment = gateway.pay(next(fresh_cards), wait=10).json()["id"]
    stranger = {"X-API-Key": "sk_local_other"}

    codes = [
        gateway.request("GET", f"/v1/payments/{payment}/timeline", headers=stranger).status_code,
        gateway.request("GET", f"/v1/payments/pay_{'0' * 26}/timeline").status_code,
        gateway.request("GET", "/v1/payments/nonsense/timeline").status_code,
    ]

    assert codes == [404, 404, 404]


def _with_attempt(gateway: Gateway, payment: str) -> dict[str, Any] | None:
    answer = gateway.request("GET", f"/v1/payments/{payment}/timeline")
    moments = answer.json()["data"] if answer.status_code == 200 else []
    return next((moment for moment in moments if moment["type"] == "bank_attempt"), None)
