"""A sale is two operations with two bank keys and one answer; a capture finally refused gives the hold back."""

import orjson

from engine.domain.ids import operation_id
from engine.domain.payment import PaymentState, Status, Verb
from support.decision_stand import ALREADY, DECLINED, EXPIRED, LOST, MISTAKEN, UNKNOWN, Desk, a_payment_begun, approved


def _parent(desk: Desk) -> tuple[Status, int | None]:
    operation = desk.operations[0]
    return operation.status, operation.response_status


def test_a_sale_is_answered_once_when_it_is_captured() -> None:
    desk = a_payment_begun(sale=True)

    desk = desk.answer(approved)
    assert _parent(desk) == (Status.SUCCEEDED, None)
    desk = desk.answer(approved)

    body = orjson.loads(desk.operations[0].response_body or b"")
    assert _parent(desk) == (Status.SUCCEEDED, 201)
    assert (desk.payment.state, body["status"]) == (PaymentState.CAPTURED, "captured")
    assert desk.events == ["created", "authorized", "captured"]


def test_the_capture_of_a_sale_is_committed_with_the_outcome_of_its_authorization() -> None:
    desk = a_payment_begun(sale=True).answer(approved)

    step = desk.steps[-1]
    assert [operation.verb for operation in step.operations] == [Verb.AUTHORIZE, Verb.CAPTURE]
    assert step.then is not None and step.then.attempts == 1


def test_the_two_operations_of_a_sale_have_different_bank_keys_that_a_retry_finds_again() -> None:
    desk = a_payment_begun(sale=True).answer(approved)

    authorize, capture = desk.operations
    assert authorize.bank_key != capture.bank_key
    assert capture.parent == authorize.id
    assert capture.id == operation_id(desk.payment.id, Verb.CAPTURE, f"§sale:{authorize.id}")


def test_the_engine_s_own_key_is_one_that_no_client_can_send() -> None:
    desk = a_payment_begun(sale=True).answer(approved)

    assert not desk.operation(Verb.CAPTURE).key.isascii()


def test_the_card_is_gone_before_the_capture_of_a_sale_is_asked_for() -> None:
    desk = a_payment_begun(sale=True).answer(approved)

    assert [operation.sealed for operation in desk.operations] == [None, None]


def test_a_declined_sale_is_a_decline_and_captures_nothing() -> None:
    desk = a_payment_begun(sale=True).answer(DECLINED)

    assert _parent(desk) == (Status.DECLINED, 402)
    assert len(desk.operations) == 1


def test_a_sale_whose_capture_is_refused_gives_the_hold_back_and_failed() -> None:
    desk = a_payment_begun(sale=True).answer(approved)

    desk = desk.answer(MISTAKEN)
    assert desk.at_bank is not None and desk.at_bank.verb is Verb.VOID
    assert _parent(desk) == (Status.SUCCEEDED, None)
    desk = desk.answer(approved)

    problem = orjson.loads(desk.operations[0].response_body or b"")
    assert (desk.payment.state, desk.payment.amount_captured) == (PaymentState.FAILED, 0)
    assert _parent(desk)[1] == 402 and problem["code"] == "payment_failed"
    assert desk.payment.bank.void_id == "void_1"
    assert desk.events == ["created", "authorized", "capture_refused", "failed"]


def test_a_sale_whose_hold_expired_is_released_too() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(EXPIRED).answer(approved)

    assert desk.payment.state is PaymentState.FAILED


def test_a_sale_whose_hold_cannot_be_given_back_is_for_a_person() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(MISTAKEN).answer(MISTAKEN)

    assert desk.operation(Verb.VOID).status is Status.REVIEW
    assert _parent(desk) == (Status.SUCCEEDED, None)
    assert desk.payment.state is PaymentState.AUTHORIZED


def test_a_sale_whose_capture_goes_unanswered_is_in_doubt_and_unanswered() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(LOST).answer(LOST)

    capture = desk.operation(Verb.CAPTURE)
    assert capture.status is Status.IN_DOUBT
    assert _parent(desk) == (Status.SUCCEEDED, None)
    desk = desk.later().answer(approved)
    assert _parent(desk) == (Status.SUCCEEDED, 201)


def test_a_sale_whose_capture_may_have_happened_before_is_reviewed_and_not_released() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(LOST).answer(ALREADY)

    assert desk.operation(Verb.CAPTURE).status is Status.REVIEW
    assert [operation.verb for operation in desk.operations] == [Verb.AUTHORIZE, Verb.CAPTURE]


def test_a_sale_whose_hold_the_bank_does_not_find_is_reviewed_in_the_end() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(UNKNOWN).answer(UNKNOWN)

    assert desk.operation(Verb.CAPTURE).status is Status.REVIEW


def test_a_capture_accepted_during_a_sale_finds_it_captured() -> None:
    desk = a_payment_begun(sale=True).accept(Verb.CAPTURE, "too much").answer(approved).answer(approved)

    assert desk.operations[-1].key == "too much"
    assert desk.operations[-1].response_status == 409


def test_a_void_accepted_during_a_sale_waits_until_its_capture_is_answered() -> None:
    desk = a_payment_begun(sale=True).accept(Verb.VOID, "v").answer(approved)

    desk = desk.answer(LOST).answer(LOST)
    assert [known.status for known in desk.operations] == ["succeeded", "in_doubt", "accepted"]
    desk = desk.later().answer(approved)

    assert desk.payment.state is PaymentState.CAPTURED
    assert desk.operation(Verb.VOID).response_status == 409


def test_a_new_owner_asks_for_the_capture_of_a_sale_with_the_same_key() -> None:
    desk = a_payment_begun(sale=True).answer(approved)
    before = desk.at_bank

    desk = desk.lost_by_its_owner()

    assert before is not None and desk.at_bank is not None
    assert desk.at_bank.bank_key == before.bank_key
    assert desk.answer(approved).payment.state is PaymentState.CAPTURED
