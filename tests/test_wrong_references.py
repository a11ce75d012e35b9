"""An operator mistypes, or the bank repeats itself: no payment ever takes another's hold, and a slip can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from engine.domain.ids import operation_id, payment_id
from engine.domain.payment import Verb
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder, bank_url = tmp_path_factory.mktemp("gateway"), f"http://127.0.0.1:{calm_bank.port}"
    with a_gateway(module_database, module_redis_url, bank_url, folder, PENSTOCK_EXPIRY_GRACE_S="0") as running:
        yield running


def authorized(gateway: Gateway, **changes: Any) -> tuple[str, str]:
    """A payment and its hold."""
    shown = gateway.pay(next(fresh_cards), wait=10, **changes).json()
    return shown["id"], shown["bank"]["authorization_id"]


def in_review(gateway: Gateway, bank: Bank) -> tuple[str, str]:
    """A payment whose authorization the bank carried out and denied, and the hold that its statement shows."""
    card = next(fresh_cards)
    bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)
    payment = gateway.pay(card).json()["id"]
    eventually(lambda: gateway.get(payment)["operation"]["status"] == "review", "it is in review")
    return payment, f"auth_{transactions(bank, card)[0][1]}"


def act(gateway: Gateway, name: str, payment: str, **body: str) -> tuple[int, str]:
    """The status of the answer, and what became of the act."""
    headers = {"X-API-Key": "ok_local_operator", "Idempotency-Key": uuid4().hex, "Prefer": "wait=20"}
    body = {"reason": "statement, line 12", **body}
    answer = gateway.request("POST", f"/v1/payments/{payment}/{name}", headers=headers, json=body)
    return answer.status_code, answer.json().get("result") or answer.json()["detail"]


def resolve(gateway: Gateway, payment: str, reference: str, outcome: str = "approved") -> tuple[int, str]:
    return act(gateway, "resolve", payment, outcome=outcome, reference=reference)


def weather(bank: Bank, *, failure_rate: float) -> None:
    calm = {"failure_rate": failure_rate, "min_latency_ms": 0, "max_latency_ms": 0}
    assert bank.http.put("/control/chaos", json=calm).status_code == 200


def transactions(bank: Bank, card: str) -> list[tuple[str, str]]:
    statement = """SELECT t.type, t.id::text FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return [(kind, number) for kind, number in bank.sql(statement, card)]


def test_another_payment_s_hold_is_refused_and_each_capture_takes_its_own(gateway: Gateway, bank: Bank) -> None:
    theirs, their_hold = authorized(gateway)
    payment, hold = in_review(gateway, bank)

    status, why = resolve(gateway, payment, their_hold)

    assert status == 409 and f"{their_hold} is taken: payment {theirs} has it" in why
    assert gateway.get(payment)["operation"]["status"] == "review"
    assert resolve(gateway, payment, hold)[0] == 200
    captured = [gateway.post(f"/v1/payments/{each}/capture", wait=10).json() for each in (payment, theirs)]
    parents = "SELECT 'auth_' || reference_id FROM transactions WHERE id = %s"
    assert [bank.sql(parents, each["bank"]["capture_id"].removeprefix("cap_")) for each in captured] == [
        [(hold,)],
        [(their_hold,)],
    ]


def test_an_id_that_the_bank_does_not_show_is_refused_however_it_is_spelt(gateway: Gateway, bank: Bank) -> None:
    payment, hold = in_review(gateway, bank)
    number = hold.removeprefix("auth_")
    absent = ["auth_nonsense", f"auth_{uuid4()}", number, f"cap_{number}", f"auth_{number}/..", "auth_", "9" * 128]

    refused = [resolve(gateway, payment, reference) for reference in absent]
    shouted = resolve(gateway, payment, hold[:5] + number.upper())

    assert [(status, "is no authorize at the bank" in why) for status, why in refused] == [(409, True)] * len(absent)
    assert shouted[0] == 409 and f"the bank writes this id as {hold}" in shouted[1]
    assert gateway.get(payment)["operation"]["status"] == "review"
    assert gateway.sql("SELECT count(*) FROM transitions WHERE payment = %s AND event = 'authorized'", payment) == [
        (0,)
    ]


def test_a_hold_of_another_amount_is_refused_though_nobody_has_it(gateway: Gateway, bank: Bank) -> None:
    stray = bank.authorized(amount=4999)
    payment, _ = in_review(gateway, bank)

    status, why = resolve(gateway, payment, stray)

    assert status == 409 and "is of 4999 USD, and this authorize of 5000 USD" in why


def test_while_the_bank_cannot_be_asked_nothing_changes_and_the_operator_is_told_to_try_again(
    gateway: Gateway, bank: Bank
) -> None:
    payment, hold = in_review(gateway, bank)
    weather(bank, failure_rate=1)

    try:
        refused = resolve(gateway, payment, hold)
    finally:
        weather(bank, failure_rate=0)
    done = resolve(gateway, payment, hold)

    assert refused[0] == 409 and "nothing has changed, try again" in refused[1]
    assert done[0] == 200
    ((evidence,),) = gateway.sql(
        "SELECT evidence FROM transitions WHERE payment = %s AND event = 'authorized'", payment
    )
    assert (evidence["look_up"]["reference"], evidence["look_up"]["amount"]) == (hold, 5000)
    assert gateway.get(payment)["expires_at"] is not None, "as the bank shows it"


def test_a_wrong_hold_of_the_same_amount_is_corrected_before_it_is_captured_and_not_after(
    gateway: Gateway, bank: Bank
) -> None:
    stray = bank.authorized()
    payment, hold = in_review(gateway, bank)
    assert resolve(gateway, payment, stray)[0] == 200

    wrong = act(gateway, "correct", payment, reference="auth_nonsense")
    corrected = act(gateway, "correct", payment, reference=hold)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10).json()
    late = act(gateway, "correct", payment, reference=stray)

    assert wrong[0] == 409 and "is no authorize at the bank" in wrong[1]
    assert corrected == (200, f"carried out: the bank's id of the authorize is {hold}")
    assert captured["status"] == "captured" and captured["bank"]["authorization_id"] == hold
    assert late[0] == 409 and "the bank itself gave this id" in late[1], "the latest is the capture"
    events = gateway.sql("SELECT event, evidence FROM transitions WHERE payment = %s ORDER BY sequence", payment)
    assert [event for event, _ in events] == ["created", "review", "authorized", "corrected", "captured"]
    assert (events[3][1]["was"], events[3][1]["reference"], events[3][1]["look_up"]["reference"]) == (stray, hold, hold)
    told = eventually(
        lambda: gateway.sql("SELECT type FROM outbox WHERE payment = %s ORDER BY sequence", payment), "it is told"
    )
    assert ("payment.corrected",) in told
    ((authorize,),) = gateway.sql("SELECT id FROM operations WHERE payment = %s AND verb = 'authorize'", payment)
    built = act(gateway, "correct", payment, reference=stray, operation_id=authorize)
    assert built[0] == 409 and "something is built on this authorize" in built[1]


def test_a_bank_that_answers_with_another_receipt_s_hold_is_for_a_person_and_holds_nobody_else_up(
    gateway: Gateway, bank: Bank
) -> None:
    theirs, hold = authorized(gateway)
    key = uuid4().hex
    ((installation,),) = gateway.sql("SELECT id FROM installation")
    payment = payment_id(installation, "mer_local", key)
    asked = operation_id(payment, Verb.AUTHORIZE, key)
    bank.sql(
        """INSERT INTO idempotency_keys (key, request_path, response_status, response_body)
           SELECT %s, request_path, response_status, response_body FROM idempotency_keys
           WHERE request_path = '/api/v1/authorizations' AND response_body::json ->> 'authorization_id' = %s""",
        *(asked, hold),
    )

    others = [gateway.pay(next(fresh_cards)).json()["id"] for _ in range(10)]
    gateway.pay(next(fresh_cards), key=key)
    others += [gateway.pay(next(fresh_cards)).json()["id"] for _ in range(10)]

    shown = eventually(lambda: in_status(gateway, payment, "review"), "it is in review")
    assert (shown["bank"]["authorization_id"], shown["operation"]["attempts"]) == (None, 1)
    ((evidence,),) = gateway.sql("SELECT evidence FROM transitions WHERE payment = %s AND event = 'review'", payment)
    assert hold in evidence["reason"] and "another receipt's" in evidence["reason"]
    for other in others:
        eventually(lambda other=other: gateway.get(other)["status"] == "authorized", "the others go on")
    assert gateway.dead() == []
    assert gateway.get(theirs)["bank"]["authorization_id"] == hold


def in_status(gateway: Gateway, payment: str, status: str) -> dict[str, Any] | None:
    shown = gateway.get(payment)
    return shown if shown.get("operation", {}).get("status") == status else None


@pytest.mark.parametrize("ended_by", ["expiry", "void"])
def test_a_hold_that_somebody_else_captured_is_never_shown_as_given_back(
    gateway: Gateway, bank: Bank, ended_by: str
) -> None:
    card = next(fresh_cards)
    if ended_by == "expiry":
        bank.fault("clock_offset", operation="authorize", card_number=card, clock_offset_s=4 - 168 * 3600, times=1)
    shown = gateway.pay(card, wait=10).json()
    payment, hold = shown["id"], shown["bank"]["authorization_id"]
    taken = bank.post("captures", {"authorization_id": hold, "amount": 5000}).json()["capture_id"]

    if ended_by == "void":
        gateway.post(f"/v1/payments/{payment}/void")
    shown = eventually(lambda: in_status(gateway, payment, "review"), "a person must tell", 15)
    assert (shown["status"], shown["bank"]["void_id"], shown["operation"]["verb"]) == ("authorized", None, "void")
    released = resolve(gateway, payment, f"cap_{uuid4()}", "captured")
    found = resolve(gateway, payment, taken, "captured")
    refunded = gateway.post(f"/v1/payments/{payment}/refund", wait=10).json()

    assert released[0] == 409 and "is no capture at the bank" in released[1]
    assert found[0] == 200, found
    assert (refunded["status"], refunded["bank"]["capture_id"]) == ("refunded", taken)
    assert [kind for kind, _ in transactions(bank, card)] == ["AUTH_HOLD", "CAPTURE", "REFUND"]
    events = [event for (event,) in gateway.sql("SELECT event FROM transitions WHERE payment = %s", payment)]
    assert not {"expired", "voided"} & set(events)


def test_a_receipt_that_somebody_gives_another_s_id_by_hand_is_refused_by_the_ledger(gateway: Gateway) -> None:
    _, hold = authorized(gateway)
    other, _ = authorized(gateway)

    with pytest.raises(Exception, match="authorization_is_one_receipts"):
        gateway.sql("UPDATE payments SET authorization_id = %s WHERE id = %s", hold, other)
