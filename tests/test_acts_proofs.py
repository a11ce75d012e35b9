"""An operator's word about a bank's id is believed with a proof only, and corrected while nothing is built on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.domain.bank_answer import Absent, Finding, NoAnswer, Unsearchable
from engine.domain.operator_rules import PaymentActionKind, Proof
from engine.domain.payment import PaymentState, Status, Verb
from support.decision_stand import (
    ALREADY,
    AMOUNT,
    EXPIRED,
    HELD_BACK,
    LOST,
    MISTAKEN,
    NEVER_AGAIN,
    NOON,
    Desk,
    a_captured_payment,
    a_payment_begun,
    a_proof,
    an_authorized_payment,
    approved,
    changed,
)

# verb to the payment in review for it, and the id that the bank's statement shows
REVIEWS = {
    Verb.AUTHORIZE: (lambda: a_payment_begun().answer(NEVER_AGAIN), "auth_9"),
    Verb.CAPTURE: (lambda: an_authorized_payment().accept(Verb.CAPTURE).answer(LOST).answer(ALREADY), "cap_9"),
    Verb.REFUND: (lambda: a_captured_payment().accept(Verb.REFUND).answer(LOST).answer(ALREADY), "ref_9"),
}


def in_review(verb: Verb) -> tuple[Desk, str]:
    begin, reference = REVIEWS[verb]
    return begin(), reference


def resolved(verb: Verb, proof: Proof | None) -> Desk:
    desk, reference = in_review(verb)
    return desk.act(PaymentActionKind.RESOLVE, desk.operation(verb), proof, outcome="approved", reference=reference)


@pytest.mark.parametrize("verb", REVIEWS)
def test_an_id_that_the_bank_shows_as_it_should_be_is_believed_and_the_journal_says_what_was_shown(verb: Verb) -> None:
    desk, reference = in_review(verb)

    after = resolved(verb, None)

    assert after.operation(verb).status is Status.SUCCEEDED
    evidence = after.told[-1][0].entry.evidence
    assert evidence["reference"] == reference
    assert evidence["look_up"] == {
        "reference": reference,
        "amount": AMOUNT,
        "currency": "USD",
        "of": {Verb.CAPTURE: desk.payment.bank.authorization_id, Verb.REFUND: desk.payment.bank.capture_id}.get(verb),
        "at": NOON,
        "expires_at": None,
    }


SHOWN_OTHERWISE: list[tuple[dict[str, object], str]] = [
    ({"amount": AMOUNT + 1}, "is of 5001 USD"),
    ({"currency": "EUR"}, "is of 5000 EUR"),
    ({"reference": "other_9"}, "the bank writes this id as other_9"),
]


@pytest.mark.parametrize("verb", REVIEWS)
@pytest.mark.parametrize(("shown", "why"), SHOWN_OTHERWISE, ids=["amount", "currency", "spelling"])
def test_an_id_that_the_bank_shows_otherwise_is_refused_and_changes_nothing(
    verb: Verb, shown: dict[str, object], why: str
) -> None:
    desk, reference = in_review(verb)

    after = resolved(verb, a_proof(verb, reference, desk.payment, **shown))

    assert after.result.startswith("refused: ") and why in after.result
    assert (after.operations, after.told, after.payment.bank) == (desk.operations, desk.told, desk.payment.bank)


@pytest.mark.parametrize("verb", REVIEWS)
def test_an_id_that_the_bank_writes_in_other_letters_is_refused(verb: Verb) -> None:
    desk, reference = in_review(verb)

    after = resolved(verb, a_proof(verb, reference, desk.payment, reference=reference.upper()))

    assert f"the bank writes this id as {reference.upper()}" in after.result
    assert after.operations == desk.operations


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.REFUND])
def test_what_was_done_to_another_payment_s_hold_or_capture_is_refused(verb: Verb) -> None:
    desk, reference = in_review(verb)

    after = resolved(verb, a_proof(verb, reference, desk.payment, parent="another"))

    assert "is of another, and this payment's is" in after.result
    assert after.operations == desk.operations


@pytest.mark.parametrize("verb", REVIEWS)
@pytest.mark.parametrize(
    ("finding", "why"),
    [
        (Absent(reason="the bank does not know it"), "at the bank: the bank does not know it"),
        (NoAnswer(reason="the bank did not answer the look-up"), "nothing has changed, try again"),
    ],
    ids=["absent", "no answer"],
)
def test_an_id_that_the_bank_does_not_show_is_refused(verb: Verb, finding: Finding, why: str) -> None:
    desk, _ = in_review(verb)

    after = resolved(verb, Proof(finding=finding, taken_by=None, by_hand=False))

    assert after.result.startswith("refused: ") and why in after.result
    assert after.operations == desk.operations


@pytest.mark.parametrize("verb", REVIEWS)
def test_an_id_that_another_receipt_has_is_refused_whatever_the_bank_shows(verb: Verb) -> None:
    desk, reference = in_review(verb)
    proof = changed(a_proof(verb, reference, desk.payment), taken_by="payment pay_other")

    after = resolved(verb, proof)

    assert after.result == f"refused: {reference} is taken: payment pay_other has it"
    assert after.operations == desk.operations


def test_a_void_s_id_cannot_be_looked_up_so_it_is_refused_only_where_another_receipt_has_it() -> None:
    desk = an_authorized_payment().accept(Verb.VOID).answer(ALREADY)
    unsearchable = Proof(finding=Unsearchable(reason="the bank shows no void by its id"), taken_by=None, by_hand=False)

    def resolve(proof: Proof | None, **more: str) -> Desk:
        return desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), proof, outcome="approved", **more)

    taken = resolve(changed(unsearchable, taken_by="payment pay_other"), reference="void_9")
    named, nameless = resolve(unsearchable, reference="void_9"), resolve(None)

    assert "is taken" in taken.result
    assert (named.payment.state, named.payment.bank.void_id) == (PaymentState.VOIDED, "void_9")
    assert named.told[-1][0].entry.evidence["look_up"] == "not possible: the bank shows no void by its id"
    assert (nameless.payment.state, nameless.payment.bank.void_id) == (PaymentState.VOIDED, None)


def test_the_bank_s_own_times_win_over_what_was_typed() -> None:
    desk, reference = in_review(Verb.AUTHORIZE)
    ends = NOON.replace(year=2031)
    proof = a_proof(Verb.AUTHORIZE, reference, desk.payment, expires_at=ends)

    after = desk.act(
        PaymentActionKind.RESOLVE,
        desk.operation(Verb.AUTHORIZE),
        proof,
        outcome="approved",
        reference=reference,
        bank_at="1999-01-01T00:00:00Z",
        expires_at="2099-01-01T00:00:00Z",
    )

    assert after.payment.at.expires_at == ends
    assert after.told[-1][0].entry.evidence["bank_at"] == NOON


def corrected(desk: Desk, verb: Verb, reference: str, proof: Proof | None = None) -> Desk:
    return desk.act(PaymentActionKind.CORRECT, desk.operation(verb), proof, reference=reference)


@pytest.mark.parametrize("verb", REVIEWS)
def test_an_operator_s_id_is_corrected_in_the_receipt_and_the_journal_and_no_stored_answer_changes(verb: Verb) -> None:
    desk = resolved(verb, None)
    stored = [operation.response_body for operation in desk.operations]

    after = corrected(desk, verb, "right_9")

    ids = {Verb.AUTHORIZE: "authorization_id", Verb.CAPTURE: "capture_id", Verb.REFUND: "refund_id"}
    assert after.result == f"carried out: the bank's id of the {verb} is right_9"
    assert getattr(after.payment.bank, ids[verb]) == "right_9"
    assert (after.payment.state, after.events[-1]) == (desk.payment.state, "corrected")
    evidence = after.told[-1][0].entry.evidence
    assert (evidence["reference"], evidence["was"]) == ("right_9", REVIEWS[verb][1])
    assert [operation.response_body for operation in after.operations] == stored


def test_the_hold_that_was_corrected_is_the_one_that_is_captured() -> None:
    desk = corrected(resolved(Verb.AUTHORIZE, None), Verb.AUTHORIZE, "auth_8").accept(Verb.CAPTURE)

    assert desk.at_bank is not None and desk.payment.bank.authorization_id == "auth_8"


@pytest.mark.parametrize("built", ["captured", "voided", "in flight", "in doubt", "in review"])
def test_an_id_on_which_something_is_built_is_not_corrected(built: str) -> None:
    desk = resolved(Verb.AUTHORIZE, None).accept(Verb.VOID if built == "voided" else Verb.CAPTURE)
    if built == "in doubt":
        desk = desk.answer(LOST).answer(LOST)
    elif built == "in review":
        desk = desk.answer(LOST).answer(ALREADY)
    elif built == "in flight":
        desk = replace(desk, at_bank=None)  # its owner is gone; the attempt is committed
    else:
        desk = desk.answer(approved)

    after = corrected(desk, Verb.AUTHORIZE, "auth_8")

    assert after.result.startswith("refused: ") and "built on" in after.result
    assert after.payment.bank.authorization_id == "auth_9"


def test_a_capture_that_the_bank_refused_builds_nothing_on_a_hold() -> None:
    desk = resolved(Verb.AUTHORIZE, None).accept(Verb.CAPTURE).answer(MISTAKEN)

    assert corrected(desk, Verb.AUTHORIZE, "auth_8").payment.bank.authorization_id == "auth_8"


def test_a_capture_that_never_reached_the_bank_builds_nothing_on_a_hold() -> None:
    desk = resolved(Verb.AUTHORIZE, None).accept(Verb.CAPTURE).answer(HELD_BACK)

    assert corrected(desk, Verb.AUTHORIZE, "auth_8").payment.bank.authorization_id == "auth_8"


@pytest.mark.parametrize("known", [True, False], ids=["the bank shows it", "the bank does not show it"])
def test_a_corrected_hold_ends_when_the_bank_says_that_it_does(known: bool) -> None:
    desk = resolved(
        Verb.AUTHORIZE, a_proof(Verb.AUTHORIZE, "auth_9", in_review(Verb.AUTHORIZE)[0].payment, expires_at=NOON)
    )
    ends = NOON.replace(year=2031)
    proof = a_proof(Verb.AUTHORIZE, "auth_8", desk.payment, expires_at=ends if known else None)

    after = corrected(desk, Verb.AUTHORIZE, "auth_8", proof)

    assert (desk.payment.at.expires_at, after.payment.at.expires_at) == (NOON, ends if known else NOON)


def test_the_id_of_a_void_is_corrected_to_another_and_not_to_none() -> None:
    desk = an_authorized_payment().accept(Verb.VOID).answer(ALREADY)
    unsearchable = Proof(finding=Unsearchable(reason="the bank shows no void by its id"), taken_by=None, by_hand=True)
    desk = desk.act(
        PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), unsearchable, outcome="approved", reference="void_9"
    )

    nameless = desk.act(PaymentActionKind.CORRECT, desk.operation(Verb.VOID), unsearchable)
    named = corrected(desk, Verb.VOID, "void_8", unsearchable)

    assert "is needed as reference" in nameless.result
    assert (nameless.payment.bank.void_id, named.payment.bank.void_id) == ("void_9", "void_8")


def test_only_what_an_operator_said_is_corrected_and_only_with_a_proof() -> None:
    ours = an_authorized_payment()
    theirs = resolved(Verb.AUTHORIZE, None)
    by_bank = a_proof(Verb.AUTHORIZE, "auth_8", ours.payment, by_hand=False)
    absent = Proof(finding=Absent(reason="the bank does not know it"), taken_by=None, by_hand=True)

    assert "the bank itself gave this id" in corrected(ours, Verb.AUTHORIZE, "auth_8", by_bank).result
    assert "does not know it" in corrected(theirs, Verb.AUTHORIZE, "auth_8", absent).result
    assert "there is no id of it to correct" in corrected(in_review(Verb.CAPTURE)[0], Verb.CAPTURE, "cap_8").result
    assert (
        "is needed as reference"
        in theirs.act(PaymentActionKind.CORRECT, theirs.operation(Verb.AUTHORIZE), absent).result
    )


def test_a_hold_that_somebody_else_captured_is_not_corrected() -> None:
    desk = resolved(Verb.AUTHORIZE, None).accept(Verb.VOID).answer(ALREADY)
    desk = desk.act(PaymentActionKind.RESOLVE, desk.operation(Verb.VOID), outcome="captured", reference="cap_9")

    after = corrected(desk, Verb.AUTHORIZE, "auth_8")

    assert after.result == "refused: the payment is captured: something is built on this authorize"


def found_captured(desk: Desk, verb: Verb = Verb.VOID, proof: Proof | None = None, **detail: object) -> Desk:
    return desk.act(
        PaymentActionKind.RESOLVE, desk.operation(verb), proof, outcome="captured", **{"reference": "cap_9", **detail}
    )


@pytest.mark.parametrize("verb", REVIEWS)
def test_only_the_release_of_a_hold_is_resolved_as_captured(verb: Verb) -> None:
    desk, _ = in_review(verb)

    after = found_captured(desk, verb)

    assert after.result.startswith("refused: only the release of a hold")
    assert (after.operations, after.payment.bank) == (desk.operations, desk.payment.bank)


def test_a_capture_of_another_hold_is_not_taken_for_one_of_this() -> None:
    desk = an_authorized_payment().accept(Verb.VOID).answer(ALREADY)
    another = found_captured(desk, proof=a_proof(Verb.CAPTURE, "cap_9", desk.payment, parent="another"))
    nameless = found_captured(desk, reference=None)

    assert "is of another, and this payment's is" in another.result
    assert "the bank's id of the capture is needed" in nameless.result
    assert another.operations == nameless.operations == desk.operations


def test_a_payment_that_has_ended_is_not_found_captured_by_its_release() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(EXPIRED).answer(ALREADY)
    assert (desk.payment.state, desk.operation(Verb.VOID).status) == (PaymentState.EXPIRED, Status.REVIEW)

    after = found_captured(desk)

    assert after.result.startswith("refused: the payment is expired already")
    assert (after.payment.state, after.operations) == (PaymentState.EXPIRED, desk.operations)
