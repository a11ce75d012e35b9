"""What an operator may do about one operation: retry and resolve, and the refusals that say why not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest

from engine.domain.bank_answer import Unsent
from engine.domain.operator_rules import PaymentActionKind
from engine.domain.payment import PaymentState, Status, Verb
from support.decision_stand import (
    ALREADY,
    HELD_BACK,
    LOST,
    MISTAKEN,
    NEVER_AGAIN,
    NOON,
    NOT_SENT,
    UNKNOWN,
    Desk,
    a_captured_payment,
    a_payment_begun,
    an_authorized_payment,
    approved,
    changed,
)

ACT = {"id": 1, "actor": "ada", "reason": "the statement"}
REFERENCES = {Verb.CAPTURE: "cap_9", Verb.VOID: "void_9", Verb.REFUND: "ref_9"}


def in_review(verb: Verb) -> Desk:
    """A capture, void or refund whose doubt only a person can end."""
    if verb is Verb.REFUND:
        return a_captured_payment().accept(verb).answer(LOST).answer(ALREADY)
    desk = an_authorized_payment().accept(verb)
    return desk.answer(LOST).answer(ALREADY if verb is Verb.CAPTURE else UNKNOWN)


def an_authorization_in_review() -> Desk:
    return a_payment_begun().answer(NEVER_AGAIN)


@pytest.mark.parametrize("verb", REFERENCES)
def test_in_review_it_may_be_asked_again_with_the_same_bank_key(verb: Verb) -> None:
    desk = in_review(verb)
    before = desk.operation(verb)

    desk = desk.act(PaymentActionKind.RETRY, before)

    assert desk.at_bank is not None
    assert (desk.at_bank.bank_key, desk.at_bank.attempts) == (before.bank_key, before.attempts + 1)
    assert desk.at_bank.status is Status.IN_DOUBT, "what was in doubt stays so until it is answered"
    assert desk.answer(approved).operation(verb).status is Status.SUCCEEDED


def test_a_retry_of_what_was_asked_too_often_is_one_more_attempt_and_no_more() -> None:
    desk = in_review(Verb.CAPTURE)
    worn_out = changed(desk.operation(Verb.CAPTURE), attempts=desk.patience.attempts_max)
    desk = desk.holding(worn_out).act(PaymentActionKind.RETRY, worn_out)

    desk = desk.answer(LOST)

    assert desk.operation(Verb.CAPTURE).status is Status.REVIEW
    assert desk.operation(Verb.CAPTURE).attempts == desk.patience.attempts_max + 1


def worn_out(verb: Verb, *, by_age: bool) -> Desk:
    """In review because it was asked too often, or too long ago for its bank key."""
    desk = in_review(verb)
    if by_age:
        return replace(desk, now=desk.now + 2 * desk.patience.bank_key_life)
    return desk.holding(changed(desk.operation(verb), attempts=desk.patience.attempts_max))


@pytest.mark.parametrize("verb", REFERENCES)
@pytest.mark.parametrize("by_age", [False, True], ids=["asked too often", "asked too long ago"])
@pytest.mark.parametrize("unsent", [HELD_BACK, NOT_SENT], ids=["held back", "bank out of reach"])
def test_a_retry_that_does_not_reach_the_bank_goes_on_until_one_does(verb: Verb, by_age: bool, unsent: Unsent) -> None:
    desk = worn_out(verb, by_age=by_age)
    desk = desk.act(PaymentActionKind.RETRY, desk.operation(verb))
    told = desk.events

    for _ in range(10):
        desk = desk.answer(unsent)
        assert desk.operation(verb).status is Status.IN_DOUBT
        assert desk.operation(verb).next_attempt_at is not None
        desk = desk.later()

    assert desk.at_bank is not None and desk.events == told
    assert desk.answer(approved).operation(verb).status is Status.SUCCEEDED
    assert desk.answer(LOST).operation(verb).status is Status.REVIEW, "once, and then it is a person's again"


@pytest.mark.parametrize("by_age", [False, True], ids=["asked too often", "asked too long ago"])
def test_a_retry_that_goes_with_its_worker_is_made_by_the_next_one(by_age: bool) -> None:
    desk = worn_out(Verb.CAPTURE, by_age=by_age)
    desk = desk.act(PaymentActionKind.RETRY, desk.operation(Verb.CAPTURE)).lost_by_its_owner()

    assert desk.at_bank is not None
    assert desk.answer(LOST).operation(Verb.CAPTURE).status is Status.REVIEW


def test_what_nobody_insists_on_is_a_person_s_when_it_is_spent_however_it_came_to_rest() -> None:
    parked = an_authorized_payment().accept(Verb.CAPTURE).answer(LOST).answer(LOST).later().answer(HELD_BACK)
    day = 2 * parked.patience.bank_key_life

    assert parked.later(parked.now + day).operation(Verb.CAPTURE).status is Status.REVIEW
    last = changed(parked.operation(Verb.CAPTURE), attempts=parked.patience.attempts_max - 1)
    assert parked.holding(last).later().answer(NOT_SENT).operation(Verb.CAPTURE).status is Status.REVIEW
    assert parked.holding(last).later().lost_by_its_owner().operation(Verb.CAPTURE).status is Status.REVIEW


def test_no_authorization_is_asked_again_when_the_bank_may_have_forgotten_it_whoever_had_it_asked() -> None:
    desk = a_payment_begun().answer(LOST).answer(LOST)
    desk = desk.act(PaymentActionKind.RETRY, desk.operation(Verb.AUTHORIZE)).answer(HELD_BACK)
    # As after a change of settings: when it was asked last, its key would have been too old by today's rules.
    hasty = replace(desk, patience=replace(desk.patience, bank_key_life=timedelta(0)))

    assert hasty.later().operation(Verb.AUTHORIZE).status is Status.REVIEW


def test_an_authorization_in_review_is_not_asked_again() -> None:
    desk = an_authorization_in_review()

    after = desk.act(PaymentActionKind.RETRY, desk.operation(Verb.AUTHORIZE))

    assert after.result.startswith("refused: its card is gone") and "resolve it" in after.result
    assert (after.operations, after.told, after.at_bank) == (desk.operations, desk.told, None)


def test_an_authorization_that_the_bank_never_saw_keeps_its_card_in_review_and_is_asked_on_demand() -> None:
    begun = a_payment_begun().answer(HELD_BACK)  # parked: the bank is left alone for a while
    unseen = begun.operation(Verb.AUTHORIZE)
    assert begun.payment is not None
    desk = begun.commit(begun.decider.review(begun.payment, unseen, begun.now, "no worker could open its card"))
    kept = desk.operation(Verb.AUTHORIZE)

    after = desk.act(PaymentActionKind.RETRY, kept)

    assert (kept.status, kept.sealed) == (Status.REVIEW, unseen.sealed)
    assert after.at_bank is not None and after.result.startswith("carried out")
    assert after.answer(approved).operation(Verb.AUTHORIZE).status is Status.SUCCEEDED


@pytest.mark.parametrize("doubted", [False, True], ids=["at the bank just now", "in doubt"])
def test_a_review_of_what_the_bank_may_have_seen_keeps_no_card(doubted: bool) -> None:
    desk = a_payment_begun()
    operation = desk.operation(Verb.AUTHORIZE)
    if doubted:
        operation = changed(operation, status=Status.ACCEPTED, doubted_at=desk.now)
    assert desk.payment is not None and operation.sealed is not None

    step = desk.decider.review(desk.payment, operation, desk.now, "a bug")

    assert step.operations[0].sealed is None


def test_what_is_parked_is_asked_at_once_and_not_before_its_last_attempt_is_over() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(LOST).answer(LOST)
    parked = desk.operation(Verb.CAPTURE)
    assert parked.deadline is not None

    desk = desk.act(PaymentActionKind.RETRY, parked)

    assert desk.at_bank is not None
    assert desk.now == parked.deadline
    assert desk.result == "carried out: the capture is in_doubt, attempt 3"


def test_a_parked_authorization_may_be_asked_again_while_its_bank_key_lives() -> None:
    desk = a_payment_begun().answer(LOST).answer(LOST)
    parked = desk.operation(Verb.AUTHORIZE)
    worn_out = changed(parked, attempts=desk.patience.attempts_max)

    assert desk.act(PaymentActionKind.RETRY, parked).at_bank is not None
    assert "too often" in desk.holding(worn_out).act(PaymentActionKind.RETRY, worn_out).result


@pytest.mark.parametrize("verb", REFERENCES)
def test_resolved_as_approved_it_is_as_if_the_bank_had_said_so(verb: Verb) -> None:
    desk = in_review(verb)
    said = desk.act(PaymentActionKind.RETRY, desk.operation(verb)).answer(approved)

    found = desk.act(
        PaymentActionKind.RESOLVE,
        desk.operation(verb),
        outcome="approved",
        reference=REFERENCES[verb],
        bank_at=NOON.isoformat(),
    )

    assert found.payment.state is said.payment.state
    assert found.operation(verb).response_status == said.operation(verb).response_status
    assert REFERENCES[verb] in found.told[-1][1]
    evidence = found.told[-1][0].entry.evidence
    assert (evidence["act"], evidence["reference"], evidence["bank_at"]) == (ACT, REFERENCES[verb], NOON)


def test_an_authorization_is_resolved_with_the_bank_s_id_and_can_be_captured() -> None:
    desk = an_authorization_in_review().accept(Verb.CAPTURE)
    assert desk.at_bank is None

    desk = desk.act(
        PaymentActionKind.RESOLVE, desk.operation(Verb.AUTHORIZE), outcome="approved", reference="auth_9", auth_code="7"
    )

    assert (desk.payment.bank.authorization_id, desk.payment.bank.auth_code) == ("auth_9", "7")
    assert desk.at_bank is not None and desk.at_bank.verb is Verb.CAPTURE
    assert desk.answer(approved).payment.state is PaymentState.CAPTURED


def test_a_void_is_resolved_without_an_id() -> None:
    desk = in_review(Verb.VOID)

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), outcome="approved", reference=None)

    assert (desk.payment.state, desk.payment.bank.void_id) == (PaymentState.VOIDED, None)


@pytest.mark.parametrize("verb", REFERENCES)
def test_resolved_as_refused_the_operation_failed_and_the_payment_stays(verb: Verb) -> None:
    desk = in_review(verb)
    before = desk.payment.state

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(verb), outcome="refused")

    operation = desk.operation(verb)
    assert (operation.status, operation.response_status, desk.payment.state) == (Status.FAILED, 402, before)
    assert desk.told[-1][0].entry.evidence["act"] == ACT


def test_an_authorization_resolved_as_refused_is_a_failed_payment() -> None:
    desk = an_authorization_in_review().accept(Verb.CAPTURE)

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.AUTHORIZE), outcome="refused")

    assert (desk.payment.state, desk.operation(Verb.CAPTURE).response_status) == (PaymentState.FAILED, 409)


def test_what_waits_behind_runs_in_order_once_it_is_resolved() -> None:
    desk = in_review(Verb.CAPTURE).accept(Verb.VOID, "first").accept(Verb.REFUND, "second")

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.CAPTURE), outcome="approved", reference="cap_9")

    assert desk.operation(Verb.VOID).response_status == 409
    assert desk.at_bank is not None and desk.at_bank.verb is Verb.REFUND
    assert desk.answer(approved).payment.state is PaymentState.REFUNDED


def test_a_sale_whose_capture_is_resolved_is_answered_as_a_sale() -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(LOST).answer(ALREADY)

    captured = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.CAPTURE), outcome="approved", reference="cap_9")
    refused = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.CAPTURE), outcome="refused").answer(approved)

    assert (captured.payment.state, captured.operations[0].response_status) == (PaymentState.CAPTURED, 201)
    assert (refused.payment.state, refused.operations[0].response_status) == (PaymentState.FAILED, 402)
    assert refused.payment.bank.void_id == "void_1"


@pytest.mark.parametrize(("outcome", "words"), [("approved", "its hold was released"), ("refused", "was not released")])
def test_a_sale_whose_hold_cannot_be_released_ends_as_a_person_says(outcome: str, words: str) -> None:
    desk = a_payment_begun(sale=True).answer(approved).answer(MISTAKEN).answer(MISTAKEN)

    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), outcome=outcome)

    body = orjson.loads(desk.operations[0].response_body or b"")
    assert (desk.payment.state, body["code"]) == (PaymentState.FAILED, "payment_failed")
    assert words in body["detail"]


def test_what_the_bank_never_saw_can_be_given_up_and_cannot_be_approved() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(NOT_SENT).answer(NOT_SENT)
    parked = desk.operation(Verb.CAPTURE)
    assert parked.status is Status.ACCEPTED

    approve = desk.act(PaymentActionKind.RESOLVE, parked, outcome="approved", reference="cap_9")
    refuse = desk.act(PaymentActionKind.RESOLVE, parked, outcome="refused")

    assert approve.result.startswith("refused: the bank has not been asked")
    assert refuse.operation(Verb.CAPTURE).status is Status.FAILED


@pytest.mark.parametrize(
    ("detail", "why"),
    [
        ({}, "the outcome is"),
        ({"outcome": "maybe"}, "the outcome is"),
        ({"outcome": "approved"}, "the bank's id of the capture is needed"),
        ({"outcome": "approved", "reference": " "}, "reference has 1 to 128"),
        ({"outcome": "approved", "reference": "c" * 129}, "reference has 1 to 128"),
        ({"outcome": "approved", "reference": "cap_\n"}, "reference has 1 to 128"),
        ({"outcome": "approved", "reference": 5}, "reference has 1 to 128"),
        ({"outcome": "approved", "reference": "cap_9", "auth_code": []}, "auth_code has 1 to 128"),
        ({"outcome": "approved", "reference": "cap_9", "bank_at": "yesterday"}, "bank_at must be a date and time"),
        (
            {"outcome": "approved", "reference": "cap_9", "bank_at": "2030-01-01T12:00:00"},
            "bank_at must be a date and time",
        ),
    ],
    ids=str,
)
def test_a_resolution_that_says_too_little_changes_nothing(detail: dict[str, object], why: str) -> None:
    desk = in_review(Verb.CAPTURE)

    after = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.CAPTURE), **detail)

    assert after.result.startswith("refused: ") and why in after.result
    assert (after.operations, after.told, after.payment.state) == (desk.operations, desk.told, desk.payment.state)


@pytest.mark.parametrize("kind", [PaymentActionKind.RETRY, PaymentActionKind.RESOLVE])
def test_what_is_settled_unknown_or_waits_behind_another_is_left_alone(kind: PaymentActionKind) -> None:
    desk = in_review(Verb.CAPTURE).accept(Verb.VOID)
    unknown = changed(desk.operation(Verb.VOID), id="op_unknown")

    settled = desk.act(kind, desk.operation(Verb.AUTHORIZE), outcome="refused")
    behind = desk.act(kind, desk.operation(Verb.VOID), outcome="refused")
    nowhere = desk.act(kind, unknown, outcome="refused")

    assert settled.result == "refused: the authorize is succeeded already"
    assert behind.result.startswith("refused: the void waits behind the capture op_")
    assert nowhere.result.startswith("refused: the payment has no such operation")
    assert settled.operations == behind.operations == nowhere.operations == desk.operations
