"""What the rules make of a bank's answer: outcomes, responses, and what is never guessed."""

from dataclasses import replace

import orjson
import pytest

from engine.domain.bank_answer import Refused
from engine.domain.creation import new_operation
from engine.domain.payment import DeclineCode, PaymentState, Status, Verb
from support.decision_stand import (
    ALREADY,
    AMOUNT,
    DECLINED,
    EXPIRED,
    LOST,
    MISTAKEN,
    NOT_SENT,
    UNKNOWN,
    a_captured_payment,
    a_command,
    a_payment_begun,
    an_authorized_payment,
    approved,
)
from support.decision_stand import changed as replaced


def test_an_approved_authorization_is_answered_201_with_the_bank_ids() -> None:
    desk = a_payment_begun()

    desk = desk.answer(approved)

    operation = desk.operation(Verb.AUTHORIZE)
    body = orjson.loads(operation.response_body or b"")
    assert (desk.payment.state, operation.status, operation.response_status) == (
        PaymentState.AUTHORIZED,
        "succeeded",
        201,
    )
    assert body["bank"]["authorization_id"] == "authorize_1"
    assert body["status"] == "authorized" and body["expires_at"] is not None
    assert desk.events == ["created", "authorized"]


def test_a_captured_payment_is_answered_200_with_its_whole_amount() -> None:
    desk = a_captured_payment()

    operation = desk.operation(Verb.CAPTURE)
    assert operation.response_status == 200
    assert (desk.payment.state, desk.payment.amount_captured) == (PaymentState.CAPTURED, AMOUNT)


def test_a_refunded_payment_holds_both_amounts() -> None:
    desk = a_captured_payment().accept(Verb.REFUND).answer(approved)

    assert desk.payment.state is PaymentState.REFUNDED
    assert (desk.payment.amount_captured, desk.payment.amount_refunded) == (AMOUNT, AMOUNT)


def test_a_declined_card_is_answered_402_with_its_decline_code() -> None:
    desk = a_payment_begun().answer(DECLINED)

    operation = desk.operation(Verb.AUTHORIZE)
    problem = orjson.loads(operation.response_body or b"")
    assert (desk.payment.state, operation.status, operation.response_status) == (
        PaymentState.DECLINED,
        Status.DECLINED,
        402,
    )
    assert (problem["code"], problem["decline_code"]) == ("card_declined", "insufficient_funds")
    assert desk.payment.failure is not None
    assert desk.payment.failure.decline_code is DeclineCode.INSUFFICIENT_FUNDS


def test_our_own_mistake_is_a_failure_and_not_a_decline() -> None:
    desk = a_payment_begun().answer(MISTAKEN)

    operation = desk.operation(Verb.AUTHORIZE)
    problem = orjson.loads(operation.response_body or b"")
    assert (desk.payment.state, operation.status) == (PaymentState.FAILED, Status.FAILED)
    assert problem["code"] == "payment_failed" and "decline_code" not in problem


def test_a_refused_capture_leaves_the_payment_authorized_and_another_may_follow() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE, "one").answer(MISTAKEN)

    assert (desk.payment.state, desk.payment.failure) == (PaymentState.AUTHORIZED, None)
    assert desk.operation(Verb.CAPTURE).response_status == 402
    assert desk.accept(Verb.CAPTURE, "two").answer(approved).payment.state is PaymentState.CAPTURED


def test_a_capture_that_comes_too_late_expires_the_payment_with_409() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(EXPIRED)

    operation = desk.operation(Verb.CAPTURE)
    assert desk.payment.state is PaymentState.EXPIRED and desk.payment.at.expired_at is not None
    assert operation.response_status == 409
    assert orjson.loads(operation.response_body or b"")["code"] == "authorization_expired"


@pytest.mark.parametrize("verb", [Verb.AUTHORIZE, Verb.VOID, Verb.REFUND])
def test_only_a_capture_can_find_the_authorization_expired(verb: Verb) -> None:
    # No connector of ours says so elsewhere; if one did, it would be a refusal and not a crash.
    desk = {
        Verb.AUTHORIZE: a_payment_begun,
        Verb.VOID: lambda: an_authorized_payment().accept(Verb.VOID),
        Verb.REFUND: lambda: a_captured_payment().accept(Verb.REFUND),
    }[verb]()

    desk = desk.answer(EXPIRED)

    assert desk.operation(verb).status is Status.FAILED
    assert desk.payment.state is not PaymentState.EXPIRED


def test_a_command_against_the_table_is_409_without_a_bank_call_and_names_the_winner() -> None:
    desk = a_captured_payment()
    attempts = len(desk.attempts)

    desk = desk.accept(Verb.VOID, "late")

    refused = desk.operation(Verb.VOID)
    problem = orjson.loads(refused.response_body or b"")
    assert (refused.status, refused.response_status, refused.attempts) == (Status.REJECTED, 409, 0)
    assert problem["payment_status"] == "captured"
    assert problem["winning_operation"] == desk.operation(Verb.CAPTURE).id
    assert len(desk.attempts) == attempts and desk.events[-1] == "captured"


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID])
def test_of_captures_and_voids_at_once_one_wins_and_the_losers_are_409(verb: Verb) -> None:
    desk = an_authorized_payment().accept(verb, "winner")
    for index in range(4):
        desk = desk.accept(Verb.CAPTURE, f"c{index}").accept(Verb.VOID, f"v{index}")

    desk = desk.answer(approved)

    settled = [known.response_status for known in desk.operations if known.verb is not Verb.AUTHORIZE]
    assert settled == [200] + [409] * 8


def test_an_already_used_authorization_is_a_question_for_a_person() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(LOST).answer(ALREADY)

    operation = desk.operation(Verb.CAPTURE)
    assert (operation.status, operation.response_status) == (Status.REVIEW, None)
    assert (desk.payment.state, desk.payment.amount_captured) == (PaymentState.AUTHORIZED, 0)
    assert desk.events[-1] == "review"


def test_a_void_that_was_already_done_after_an_unanswered_one_of_ours_is_voided() -> None:
    desk = an_authorized_payment().accept(Verb.VOID).answer(LOST).answer(ALREADY)

    assert (desk.payment.state, desk.payment.bank.void_id) == (PaymentState.VOIDED, None)
    assert desk.operation(Verb.VOID).response_status == 200


def test_a_void_that_was_already_done_by_nobody_we_know_is_reviewed() -> None:
    desk = an_authorized_payment().accept(Verb.VOID).answer(ALREADY)

    assert desk.operation(Verb.VOID).status is Status.REVIEW
    assert desk.payment.state is PaymentState.AUTHORIZED


def test_a_void_that_was_already_done_is_reviewed_when_a_capture_of_ours_was_sent() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE, "c").answer(MISTAKEN)

    desk = desk.accept(Verb.VOID, "v").answer(LOST).answer(ALREADY)

    assert desk.operation(Verb.VOID).status is Status.REVIEW


def test_a_void_that_is_reviewed_because_of_a_capture_of_ours_is_not_said_to_have_come_too_late() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(MISTAKEN)

    desk = desk.accept(Verb.VOID, "v").answer(LOST).answer(ALREADY)

    assert (desk.operation(Verb.VOID).status, desk.operation(Verb.VOID).failure) == (Status.REVIEW, None)


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID, Verb.REFUND])
@pytest.mark.parametrize("by", [-1, 1], ids=["less", "more"])
def test_another_amount_than_the_payment_s_is_rejected_for_good_and_never_sent(verb: Verb, by: int) -> None:
    desk = a_captured_payment() if verb is Verb.REFUND else an_authorized_payment()
    asked = replaced(new_operation(a_command(verb, "other"), desk.payment, 9, desk.now), amount=AMOUNT + by)

    step = desk.decider.admit(desk.payment, asked, desk.now)

    (rejected,) = step.operations
    problem = orjson.loads(rejected.response_body or b"")
    assert (step.then, step.payment.state, rejected.attempts) == (None, desk.payment.state, 0)
    assert (rejected.status, rejected.response_status) == (Status.REJECTED, 422)
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("amount_not_supported", "/amount")


def test_a_refund_that_was_already_done_is_reviewed() -> None:
    desk = a_captured_payment().accept(Verb.REFUND).answer(LOST).answer(ALREADY)

    assert desk.operation(Verb.REFUND).status is Status.REVIEW
    assert (desk.payment.state, desk.payment.amount_refunded) == (PaymentState.CAPTURED, 0)


def test_an_id_the_bank_does_not_know_is_asked_for_again_and_then_reviewed() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE)

    desk = desk.answer(UNKNOWN)
    assert desk.at_bank is not None and desk.at_bank.attempts == 2
    desk = desk.answer(UNKNOWN)

    assert desk.operation(Verb.CAPTURE).status is Status.REVIEW
    assert desk.payment.state is PaymentState.AUTHORIZED


def test_an_id_the_bank_knows_again_goes_on_as_if_nothing_was() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(UNKNOWN).answer(approved)

    assert desk.payment.state is PaymentState.CAPTURED


def test_what_was_accepted_behind_an_operation_runs_in_the_order_of_acceptance() -> None:
    desk = a_payment_begun().accept(Verb.CAPTURE, "c").accept(Verb.REFUND, "r").accept(Verb.VOID, "v")

    desk = desk.answer(approved).answer(approved).answer(approved)

    assert desk.payment.state is PaymentState.REFUNDED
    assert [known.response_status for known in desk.operations] == [201, 200, 200, 409]


def test_a_refusal_of_the_first_lets_the_table_refuse_the_rest() -> None:
    desk = a_payment_begun().accept(Verb.CAPTURE, "c").accept(Verb.VOID, "v")

    desk = desk.answer(DECLINED)

    assert [known.response_status for known in desk.operations] == [402, 409, 409]


@pytest.mark.parametrize("refusal", [MISTAKEN, EXPIRED])
def test_messages_to_the_shop_never_carry_the_bank_s_own_text(refusal: Refused) -> None:
    leaky = replace(refusal, message="SELECT * FROM cards")

    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(leaky)

    answer = desk.operation(Verb.CAPTURE).response_body
    assert answer is not None and b"The " in answer, "or nothing is tested here"
    assert b"SELECT" not in answer
    assert not [body for _, body in desk.told if "SELECT" in body]


@pytest.mark.parametrize("answer", [NOT_SENT, LOST])
def test_the_card_stays_sealed_for_as_long_as_it_may_be_needed_and_no_longer(answer: object) -> None:
    desk = a_payment_begun().answer(answer).answer(answer)  # type: ignore[arg-type]
    assert desk.operation(Verb.AUTHORIZE).sealed is not None

    desk = desk.later().answer(approved)

    assert desk.operation(Verb.AUTHORIZE).sealed is None
