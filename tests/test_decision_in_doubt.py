"""In doubt: no answer is no failure. The bank is asked again, same key, never overlapping, never too late (I7)."""

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from msgspec.structs import replace as replace_struct

from engine.domain.changeset import RetryAt
from engine.domain.payment import PaymentState, Status, Verb
from support.decision_stand import (
    BROKE,
    HELD_BACK,
    LOST,
    MISTAKEN,
    NEVER_AGAIN,
    NOON,
    NOT_SENT,
    PATIENCE,
    Desk,
    a_payment_begun,
    an_authorized_payment,
    approved,
)

PATIENT = replace(PATIENCE, attempts_max=1000)


def _parked(answer: object, desk: Desk | None = None) -> Desk:
    """Parked after two unanswered attempts."""
    desk = desk or a_payment_begun(patience=PATIENT)
    return desk.answer(answer).answer(answer)  # type: ignore[arg-type]


def test_an_attempt_without_an_answer_is_made_again_with_the_same_bank_key() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(LOST)

    first, second = (attempt for _, attempt in desk.attempts[-2:])
    assert first.bank_key == second.bank_key
    assert (first.attempts, second.attempts) == (1, 2)


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_the_deadline_of_each_attempt_is_a_whole_time_out_after_it_may_last_be_sent(answers: int) -> None:
    desk = a_payment_begun(patience=PATIENT)
    for _ in range(answers):
        desk = desk.answer(LOST)
        desk = desk if desk.at_bank else desk.later()

    (_, attempt) = desk.attempts[-1]
    assert attempt.attempts == answers + 1, "or nothing is tested here"
    assert attempt.send_by is not None and attempt.deadline == attempt.send_by + PATIENT.attempt_timeout


def test_the_next_attempt_waits_for_the_deadline_of_one_that_may_still_be_at_work() -> None:
    desk = a_payment_begun().answer(LOST)

    (_, first), (second_at, _) = desk.attempts
    assert first.deadline is not None and second_at >= first.deadline


def test_the_next_attempt_comes_sooner_when_the_bank_said_that_the_last_is_over() -> None:
    desk = a_payment_begun().answer(BROKE)

    (_, first), (second_at, _) = desk.attempts
    assert first.deadline is not None and second_at < first.deadline


def test_a_parked_attempt_that_may_still_be_at_work_is_waited_for_too() -> None:
    slow = replace(PATIENT, attempt_timeout=timedelta(hours=1))
    desk = _parked(LOST, a_payment_begun(patience=slow))

    operation = desk.operation(Verb.AUTHORIZE)
    assert operation.deadline is not None and operation.next_attempt_at is not None
    assert operation.next_attempt_at >= operation.deadline


def test_a_parked_operation_is_in_doubt_visibly_and_the_payment_is_not_failed() -> None:
    desk = _parked(LOST)

    operation = desk.operation(Verb.AUTHORIZE)
    event = orjson.loads(desk.told[-1][1])
    assert (operation.status, desk.payment.state) == (Status.IN_DOUBT, PaymentState.PENDING)
    assert operation.next_attempt_at is not None and operation.response_status is None
    assert event["type"] == "payment.in_doubt" and event["data"]["in_doubt"] is True


def test_the_merchant_is_told_of_a_doubt_once() -> None:
    desk = _parked(LOST)
    for _ in range(5):
        desk = desk.later().answer(LOST).answer(LOST)

    assert desk.events == ["created", "in_doubt"]


def test_a_doubt_stays_visible_while_the_bank_is_asked_again() -> None:
    desk = _parked(LOST).later()

    assert desk.at_bank is not None
    assert desk.at_bank.status is Status.IN_DOUBT


def test_what_never_left_us_is_parked_without_any_doubt() -> None:
    desk = _parked(NOT_SENT)

    operation = desk.operation(Verb.AUTHORIZE)
    assert (operation.status, operation.doubted_at) == (Status.ACCEPTED, None)
    assert desk.events == ["created"]


def test_what_is_held_back_rests_at_once_until_the_bank_may_be_asked_and_has_used_up_nothing() -> None:
    desk = a_payment_begun(patience=PATIENT).answer(HELD_BACK)

    operation = desk.operation(Verb.AUTHORIZE)
    assert (operation.status, operation.attempts, operation.first_sent_at) == (Status.ACCEPTED, 0, None)
    assert operation.next_attempt_at is not None and operation.next_attempt_at - desk.now >= timedelta(seconds=30)
    assert desk.later().answer(approved).payment.state is PaymentState.AUTHORIZED


def test_a_doubt_that_is_held_back_for_long_is_not_reviewed_for_it() -> None:
    desk = _parked(LOST)
    attempts = desk.operation(Verb.AUTHORIZE).attempts
    for _ in range(50):
        desk = desk.later().answer(HELD_BACK)

    operation = desk.operation(Verb.AUTHORIZE)
    assert (operation.status, operation.attempts) == (Status.IN_DOUBT, attempts)
    assert desk.events == ["created", "in_doubt"]


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID])
def test_a_sales_own_operations_rest_and_go_on_like_any_other(verb: Verb) -> None:
    desk = a_payment_begun(sale=True).answer(approved)
    if verb is Verb.VOID:
        desk = desk.answer(MISTAKEN)
    desk = desk.answer(HELD_BACK)

    assert desk.operation(verb).attempts == 0
    assert desk.later().answer(approved).payment.state is (
        PaymentState.CAPTURED if verb is Verb.CAPTURE else PaymentState.FAILED
    )


def test_a_later_unsent_attempt_does_not_take_an_earlier_doubt_away() -> None:
    desk = a_payment_begun(patience=PATIENT).answer(LOST).answer(NOT_SENT)

    operation = desk.operation(Verb.AUTHORIZE)
    assert operation.status is Status.IN_DOUBT and operation.doubted_at is not None


def test_a_doubt_that_comes_after_unsent_attempts_is_told() -> None:
    desk = _parked(NOT_SENT).later().answer(LOST).answer(NOT_SENT)

    assert desk.events == ["created", "in_doubt"]


def test_an_answer_ends_the_doubt() -> None:
    desk = _parked(LOST).later().answer(approved)

    assert desk.payment.state is PaymentState.AUTHORIZED
    assert orjson.loads(desk.operation(Verb.AUTHORIZE).response_body or b"")["in_doubt"] is False
    assert desk.events == ["created", "in_doubt", "authorized"]


def test_an_authorization_that_the_bank_might_do_twice_is_never_asked_again() -> None:
    desk = a_payment_begun().answer(NEVER_AGAIN)

    operation = desk.operation(Verb.AUTHORIZE)
    assert (operation.status, operation.attempts) == (Status.REVIEW, 1)
    assert operation.next_attempt_at is None and desk.at_bank is None


def test_after_the_last_attempt_a_person_is_asked() -> None:
    desk = a_payment_begun(patience=replace(PATIENCE, attempts_max=3))

    desk = desk.answer(LOST).answer(LOST).later().answer(LOST)

    operation = desk.operation(Verb.AUTHORIZE)
    assert (operation.status, operation.attempts) == (Status.REVIEW, 3)
    assert desk.events == ["created", "in_doubt", "review"]


def test_nothing_is_asked_again_when_the_bank_may_have_forgotten_the_key() -> None:
    desk = _parked(LOST)
    first_sent_at = desk.operation(Verb.AUTHORIZE).first_sent_at
    assert first_sent_at is not None
    asked = len(desk.attempts)

    desk = desk.later(first_sent_at + timedelta(hours=23, seconds=1))

    assert desk.operation(Verb.AUTHORIZE).status is Status.REVIEW
    assert len(desk.attempts) == asked


def test_what_never_left_us_is_tried_for_as_long_as_it_takes() -> None:
    # The stand's bank is asked five times at most; refused connections are no attempts at it.
    desk = a_payment_begun()
    while desk.now < NOON + timedelta(days=3):
        desk = desk.answer(NOT_SENT)
        desk = desk if desk.at_bank else desk.later(desk.now + timedelta(minutes=10))

    assert desk.operation(Verb.AUTHORIZE).doubted_at is None
    assert desk.answer(approved).payment.state is PaymentState.AUTHORIZED
    assert desk.events == ["created"]


def test_the_bank_cannot_forget_a_key_it_never_got() -> None:
    desk = _parked(NOT_SENT)
    desk = desk.later(desk.now + timedelta(hours=30))
    sent_at = desk.now
    desk = desk.answer(LOST)
    while desk.at_bank:
        desk = desk.answer(LOST)

    last_hour = desk.later(sent_at + timedelta(hours=22, minutes=59))
    too_late = desk.later(sent_at + timedelta(hours=23, minutes=1))

    assert last_hour.at_bank is not None
    assert too_late.operation(Verb.AUTHORIZE).status is Status.REVIEW


def test_refused_connections_after_a_doubt_do_not_stop_the_banks_clock() -> None:
    desk = a_payment_begun(patience=PATIENT).answer(LOST)
    sent_at = NOON
    while desk.now < sent_at + timedelta(hours=24) and desk.operation(Verb.AUTHORIZE).status is not Status.REVIEW:
        desk = desk.answer(NOT_SENT) if desk.at_bank else desk.later(desk.now + timedelta(hours=1))

    assert desk.operation(Verb.AUTHORIZE).status is Status.REVIEW
    assert desk.now > sent_at + timedelta(hours=23)


def test_an_authorization_in_review_holds_no_card_any_more() -> None:
    desk = a_payment_begun().answer(NEVER_AGAIN)

    assert desk.operation(Verb.AUTHORIZE).status is Status.REVIEW
    assert desk.operation(Verb.AUTHORIZE).sealed is None


def test_up_to_the_last_hour_it_is_asked_again() -> None:
    desk = _parked(LOST)
    first_sent_at = desk.operation(Verb.AUTHORIZE).first_sent_at
    assert first_sent_at is not None

    desk = desk.later(first_sent_at + timedelta(hours=22, minutes=59))

    assert desk.at_bank is not None


def test_an_attempt_whose_owner_died_is_in_doubt_and_asked_again_after_its_deadline() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE)
    dead = desk.at_bank
    assert dead is not None and dead.deadline is not None

    desk = desk.lost_by_its_owner()

    assert desk.at_bank is not None
    assert desk.at_bank.doubted_at is not None and desk.at_bank.bank_key == dead.bank_key
    assert desk.now >= dead.deadline


def test_commands_behind_a_doubt_are_journaled_and_wait_their_turn() -> None:
    desk = _parked(LOST).accept(Verb.CAPTURE, "c").accept(Verb.VOID, "v")
    assert [known.status for known in desk.operations] == ["in_doubt", "accepted", "accepted"]

    desk = desk.later().answer(approved).answer(approved)

    assert desk.payment.state is PaymentState.CAPTURED
    assert [known.response_status for known in desk.operations] == [201, 200, 409]


def test_commands_behind_a_review_wait_and_are_not_refused() -> None:
    desk = a_payment_begun().answer(NEVER_AGAIN).accept(Verb.VOID, "v")

    assert desk.operation(Verb.VOID).status is Status.ACCEPTED


DAYS = timedelta(days=8)


@pytest.mark.parametrize("wrong", [-DAYS, DAYS], ids=["behind", "ahead"])
def test_a_ledger_whose_clock_steps_by_days_sends_nothing_to_review(wrong: timedelta) -> None:
    desk = a_payment_begun(patience=PATIENT)
    (_, attempt) = desk.attempts[-1]
    decider, payment = desk.decider, desk.payment
    stepped = desk.now + wrong

    verdict = decider.conclude(payment, attempt, [], LOST, stepped, desk.now)

    assert isinstance(verdict, RetryAt), "it is asked again"
    step = decider.attempt(payment, verdict.operation, stepped, lost=False, agreed=desk.now)
    assert step.then is not None and step.then.status is Status.SENT


@pytest.mark.parametrize("wrong", [-DAYS, DAYS], ids=["behind", "ahead"])
def test_the_bank_key_ages_from_the_agreed_time_of_its_first_attempt(wrong: timedelta) -> None:
    desk = a_payment_begun(patience=PATIENT)
    fresh = replace_struct(desk.operation(Verb.AUTHORIZE), attempts=0, first_sent_at=None, doubted_at=None)

    step = desk.decider.attempt(desk.payment, fresh, desk.now + wrong, lost=False, agreed=desk.now)

    assert step.then is not None and step.then.first_sent_at == desk.now
    assert step.then.send_by == desk.now + PATIENT.send_window, "or the audit would take the step for a late attempt"


@pytest.mark.parametrize("wrong", [-DAYS, DAYS], ids=["behind", "ahead"])
def test_an_attempt_that_may_be_at_work_is_waited_for_whatever_the_ledgers_clock_says(wrong: timedelta) -> None:
    desk = a_payment_begun(patience=PATIENT)
    (_, attempt) = desk.attempts[-1]
    assert attempt.deadline is not None
    stepped = desk.now + wrong

    verdict = desk.decider.conclude(desk.payment, attempt, [], LOST, stepped, desk.now)

    assert isinstance(verdict, RetryAt)
    assert verdict.at - stepped >= attempt.deadline - desk.now


@pytest.mark.parametrize("past", [False, True], ids=["young by the agreed time", "too old by it"])
def test_what_is_too_old_by_the_agreed_time_is_not_asked_again(past: bool) -> None:
    desk = _parked(LOST, an_authorized_payment(patience=PATIENT).accept(Verb.CAPTURE))
    capture = desk.operation(Verb.CAPTURE)
    agreed = desk.now + (2 * PATIENT.bank_key_life if past else timedelta(0))

    step = desk.decider.attempt(desk.payment, capture, desk.now, lost=False, agreed=agreed)

    assert step.operations[0].status is (Status.REVIEW if past else Status.IN_DOUBT)
    assert (step.then is None) is past


@pytest.mark.parametrize("lost", [True, False])
def test_only_an_attempt_after_a_lost_one_is_inherited(lost: bool) -> None:
    desk = _parked(LOST)

    step = desk.decider.attempt(desk.payment, desk.operation(Verb.AUTHORIZE), desk.now, lost=lost)

    assert step.inherited is lost
