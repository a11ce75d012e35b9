"""An authorization that is too old expires by itself and gives its hold back; the bank's word wins over our clock."""

from datetime import timedelta

import orjson
import pytest

from engine.domain.bank_answer import Answer
from engine.domain.ids import operation_id
from engine.domain.operator_rules import PaymentActionKind
from engine.domain.payment import PaymentState, Status, Verb
from engine.domain.rendering import operation_document
from support.decision_stand import (
    ALREADY,
    BROKE,
    EXPIRED,
    HELD_BACK,
    LOST,
    MISTAKEN,
    UNKNOWN,
    Desk,
    a_captured_payment,
    a_payment_begun,
    an_authorized_payment,
    approved,
)


def expiring() -> Desk:
    """Its hold is being given back."""
    return an_authorized_payment().expires()


def answer_of(desk: Desk, verb: Verb) -> tuple[int | None, str]:
    """Status and code of the client's answer."""
    asked = [known for known in desk.operations if known.verb is verb and known.key.isascii()][-1]
    return asked.response_status, orjson.loads(asked.response_body or b"{}").get("code", "")


def test_the_hold_is_given_back_and_that_is_the_expiry() -> None:
    desk = expiring()
    assert desk.payment.state is PaymentState.AUTHORIZED
    assert desk.at_bank is not None and desk.at_bank.verb is Verb.VOID

    desk = desk.answer(approved)

    assert (desk.payment.state, desk.payment.at.expired_at, desk.payment.at.voided_at) == (
        PaymentState.EXPIRED,
        desk.now,
        None,
    )
    assert desk.payment.bank.void_id == "void_1"
    assert desk.payment.failure is not None and desk.payment.failure.code == "authorization_expired"
    assert desk.events == ["created", "authorized", "expired"]


def test_a_merchant_is_told_once_that_it_expires_soon_and_may_still_capture() -> None:
    soon = an_authorized_payment().nears_expiry(timedelta(days=1, seconds=1))
    told = soon.nears_expiry(timedelta(days=1))
    again = told.nears_expiry(timedelta(hours=1))

    event = orjson.loads(told.told[-1][1])
    assert (soon.events, told.events, again.events) == (
        ["created", "authorized"],
        ["created", "authorized", "expiring"],
        ["created", "authorized", "expiring"],
    )
    assert (event["type"], event["data"]["status"]) == ("payment.expiring", "authorized")
    assert event["data"]["expires_at"] > event["timestamp"]
    assert again.at_bank is None and again.payment.state is PaymentState.AUTHORIZED
    assert again.accept(Verb.CAPTURE).answer(approved).payment.state is PaymentState.CAPTURED


@pytest.mark.parametrize("desk", [a_captured_payment(), an_authorized_payment().accept(Verb.VOID).answer(approved)])
def test_of_what_is_captured_or_voided_nothing_is_told(desk: Desk) -> None:
    assert desk.nears_expiry(timedelta(hours=1)).events == desk.events


def test_of_what_has_expired_the_expiry_itself_is_told() -> None:
    desk = an_authorized_payment().nears_expiry(timedelta(0))

    assert desk.events == ["created", "authorized"]
    assert desk.expires().answer(approved).events == ["created", "authorized", "expired"]


def test_it_is_an_operation_of_the_engine_s_own_that_a_new_owner_finds_again() -> None:
    desk = expiring()
    begun = desk.at_bank
    assert begun is not None

    desk = desk.lost_by_its_owner().answer(approved)

    assert begun.id == operation_id(desk.payment.id, Verb.VOID, f"§expire:{desk.payment.id}")
    assert operation_document(begun)["idempotency_key"] is None
    assert (desk.payment.state, desk.operation(Verb.VOID).attempts) == (PaymentState.EXPIRED, 2)


@pytest.mark.parametrize("desk", [a_captured_payment(), an_authorized_payment().accept(Verb.VOID).answer(approved)])
def test_what_is_captured_or_voided_does_not_expire(desk: Desk) -> None:
    assert desk.expires().operations == desk.operations


def test_a_capture_that_waits_behind_the_expiry_is_a_stable_409_without_a_bank_call() -> None:
    desk = expiring().accept(Verb.CAPTURE)

    desk = desk.answer(approved)

    assert answer_of(desk, Verb.CAPTURE) == (409, "authorization_expired")
    assert (desk.operation(Verb.CAPTURE).attempts, desk.payment.state) == (0, PaymentState.EXPIRED)


@pytest.mark.parametrize("verb", [Verb.VOID, Verb.REFUND])
def test_other_commands_find_a_state_that_does_not_allow_them(verb: Verb) -> None:
    desk = expiring().answer(approved).accept(verb)

    assert answer_of(desk, verb) == (409, "transition_not_allowed")


def test_a_capture_that_came_first_is_asked_and_the_bank_s_word_wins() -> None:
    captured = an_authorized_payment().accept(Verb.CAPTURE)
    refused = captured.answer(EXPIRED)

    assert captured.answer(approved).expires().payment.state is PaymentState.CAPTURED
    assert refused.payment.state is PaymentState.EXPIRED
    assert answer_of(refused, Verb.CAPTURE) == (409, "authorization_expired")


def test_the_hold_of_what_the_bank_calls_expired_is_given_back_too() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(EXPIRED)
    assert desk.at_bank is not None and desk.at_bank.verb is Verb.VOID
    failure = desk.payment.failure

    desk = desk.answer(HELD_BACK).later().answer(approved)

    assert (desk.payment.bank.void_id, desk.payment.failure) == ("void_1", failure)
    assert desk.events == ["created", "authorized", "expired", "released"]


@pytest.mark.parametrize("said", [[LOST, ALREADY], [EXPIRED]], ids=["released by a lost attempt", "expired"])
def test_the_bank_s_word_that_the_hold_is_gone_is_as_good_as_its_release(said: list[Answer]) -> None:
    by_clock, by_bank = expiring(), an_authorized_payment().accept(Verb.CAPTURE).answer(EXPIRED)
    for word in said:
        by_clock, by_bank = by_clock.answer(word), by_bank.answer(word)

    assert by_clock.payment.state is by_bank.payment.state is PaymentState.EXPIRED
    assert by_clock.payment.bank.void_id is by_bank.payment.bank.void_id is None
    assert by_clock.head is by_bank.head is None


@pytest.mark.parametrize("ended_by", ["its clock", "the bank's word", "its merchant"])
def test_already_used_without_a_lost_attempt_of_this_release_is_somebody_else_s_doing(ended_by: str) -> None:
    begun = {
        "its clock": expiring,
        "the bank's word": lambda: an_authorized_payment().accept(Verb.CAPTURE).answer(EXPIRED),
        "its merchant": lambda: an_authorized_payment().accept(Verb.VOID),
    }
    desk = begun[ended_by]()
    before = desk.payment.state

    desk = desk.answer(ALREADY)

    assert (desk.payment.state, desk.operation(Verb.VOID).status) == (before, Status.REVIEW)
    assert "no attempt of ours can have released the hold" in str(desk.told[-1][0].entry.evidence["reason"])


@pytest.mark.parametrize("said", [LOST, BROKE], ids=["lost", "500"])
def test_an_attempt_that_goes_unanswered_after_that_proves_nothing_any_more(said: Answer) -> None:
    desk = expiring().answer(ALREADY)

    desk = desk.act(PaymentActionKind.RETRY, desk.operation(Verb.VOID)).answer(said)
    while desk.at_bank is None:
        desk = desk.later()
    desk = desk.answer(ALREADY)

    assert (desk.payment.state, desk.operation(Verb.VOID).status) == (PaymentState.AUTHORIZED, Status.REVIEW)
    assert "no attempt of ours can have released the hold" in str(desk.told[-1][0].entry.evidence["reason"])
    released = desk.act(PaymentActionKind.RETRY, desk.operation(Verb.VOID)).answer(approved)
    assert (released.payment.state, released.operation(Verb.VOID).failure) == (PaymentState.EXPIRED, None)


@pytest.mark.parametrize("ended_by", ["its clock", "its merchant"])
def test_a_hold_that_somebody_else_captured_ends_as_a_captured_payment_that_can_be_refunded(ended_by: str) -> None:
    desk = expiring() if ended_by == "its clock" else an_authorized_payment().accept(Verb.VOID)
    desk = desk.answer(ALREADY)

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), outcome="captured", reference="cap_9")

    assert (desk.payment.state, desk.payment.bank.capture_id, desk.payment.bank.void_id) == (
        PaymentState.CAPTURED,
        "cap_9",
        None,
    )
    assert desk.operation(Verb.VOID).status is Status.FAILED
    assert desk.operation(Verb.VOID).response_status == (None if ended_by == "its clock" else 402)
    assert desk.events[-1] == "captured" and "expired" not in desk.events
    assert desk.accept(Verb.REFUND).answer(approved).payment.state is PaymentState.REFUNDED


def test_a_hold_that_may_have_been_captured_is_for_a_person() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(MISTAKEN).expires()

    desk = desk.answer(ALREADY)

    assert (desk.payment.state, desk.operation(Verb.VOID).status) == (PaymentState.AUTHORIZED, Status.REVIEW)


@pytest.mark.parametrize("said", [[ALREADY], [LOST, ALREADY]], ids=["at once", "after an attempt without an answer"])
def test_a_hold_that_the_bank_called_expired_may_still_have_been_captured_by_an_attempt_without_an_answer(
    said: list[Answer],
) -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(LOST).answer(EXPIRED)
    assert desk.payment.state is PaymentState.EXPIRED

    for word in said:
        desk = desk.answer(word)

    assert (desk.payment.state, desk.operation(Verb.VOID).status) == (PaymentState.EXPIRED, Status.REVIEW)


@pytest.mark.parametrize("said", [MISTAKEN, UNKNOWN], ids=["refused", "unknown"])
def test_a_hold_that_the_bank_does_not_release_is_for_a_person_who_ends_it(said: object) -> None:
    desk = expiring().answer(said)  # type: ignore[arg-type]
    while desk.at_bank is not None:
        desk = desk.answer(said)  # type: ignore[arg-type]
    review = desk.operation(Verb.VOID)
    assert review.status is Status.REVIEW

    released = desk.act(PaymentActionKind.RESOLVE, review, outcome="approved", reference="void_9")
    kept = desk.act(PaymentActionKind.RESOLVE, review, outcome="refused")

    assert (released.payment.state, released.payment.bank.void_id) == (PaymentState.EXPIRED, "void_9")
    assert (kept.payment.state, kept.operation(Verb.VOID).status) == (PaymentState.EXPIRED, Status.FAILED)
    assert kept.payment.failure is not None and "was not released" in kept.payment.failure.message


def test_a_release_without_an_answer_is_in_doubt_and_what_comes_later_waits() -> None:
    desk = expiring().answer(LOST).answer(LOST).accept(Verb.CAPTURE)
    assert desk.operation(Verb.VOID).status is Status.IN_DOUBT
    assert desk.operation(Verb.CAPTURE).status is Status.ACCEPTED

    desk = desk.later().answer(approved)

    assert answer_of(desk, Verb.CAPTURE) == (409, "authorization_expired")


def test_a_sale_answers_its_client_and_never_expires() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(EXPIRED).answer(approved)

    assert (desk.payment.state, desk.operations[0].response_status) == (PaymentState.FAILED, 402)
