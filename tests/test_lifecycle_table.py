"""The table of the lifecycle: every pair of state and event, and every sequence of commands and answers to length 5."""

import pytest

from engine.domain.lifecycle import ASKED, TRANSITIONS, Effect, Event, IllegalTransition, allowed, transition
from engine.domain.payment import PaymentState, Status, Verb
from support.decision_stand import (
    ALREADY,
    DECLINED,
    EXPIRED,
    LOST,
    MISTAKEN,
    NEVER_AGAIN,
    NOT_SENT,
    TERMINAL,
    UNKNOWN,
    Desk,
    a_payment_begun,
    approved,
)

# What may be asked of the bank, by state; all else is the gateway's own refusal. A second table, written from the
# product's words and not from the code's: PENDING -> AUTHORIZED -> CAPTURED -> REFUNDED, AUTHORIZED -> VOIDED.
MAY_BE_ASKED = {
    PaymentState.PENDING: {Verb.AUTHORIZE},
    PaymentState.AUTHORIZED: {Verb.CAPTURE, Verb.VOID},
    PaymentState.CAPTURED: {Verb.REFUND},
}
MOVES = {
    (PaymentState.PENDING, Event.AUTHORIZED): PaymentState.AUTHORIZED,
    (PaymentState.PENDING, Event.DECLINED): PaymentState.DECLINED,
    (PaymentState.PENDING, Event.FAILED): PaymentState.FAILED,
    (PaymentState.AUTHORIZED, Event.CAPTURED): PaymentState.CAPTURED,
    (PaymentState.AUTHORIZED, Event.VOIDED): PaymentState.VOIDED,
    (PaymentState.AUTHORIZED, Event.EXPIRED): PaymentState.EXPIRED,
    (PaymentState.AUTHORIZED, Event.FAILED): PaymentState.FAILED,
    (PaymentState.CAPTURED, Event.REFUNDED): PaymentState.REFUNDED,
}
STAYS = {
    PaymentState.PENDING: {Event.AUTHORIZE, Event.CREATED, Event.IN_DOUBT, Event.REVIEW},
    PaymentState.AUTHORIZED: {
        Event.CAPTURE,
        Event.VOID,
        Event.CAPTURE_REFUSED,
        Event.VOID_REFUSED,
        Event.EXPIRING,
        Event.IN_DOUBT,
        Event.REVIEW,
        Event.CORRECTED,
    },
    PaymentState.CAPTURED: {Event.REFUND, Event.REFUND_REFUSED, Event.IN_DOUBT, Event.REVIEW, Event.CORRECTED},
    PaymentState.EXPIRED: {Event.RELEASED, Event.IN_DOUBT, Event.REVIEW, Event.CORRECTED},
    PaymentState.REFUNDED: {Event.CORRECTED},
    PaymentState.VOIDED: {Event.CORRECTED},
}
COMMANDS = (Verb.CAPTURE, Verb.VOID, Verb.REFUND)
ANSWERS = (approved, DECLINED, EXPIRED, ALREADY, UNKNOWN, MISTAKEN, LOST, NEVER_AGAIN, NOT_SENT)
LENGTH = 5


@pytest.mark.parametrize("state", PaymentState)
@pytest.mark.parametrize("event", Event)
def test_a_pair_moves_where_the_product_says_or_is_refused(state: PaymentState, event: Event) -> None:
    expected = MOVES.get((state, event), state if event in STAYS.get(state, ()) else None)

    if expected is None:
        with pytest.raises(IllegalTransition) as refused:
            transition(state, event)
        assert (refused.value.state, refused.value.event) == (state, event)
    else:
        assert transition(state, event)[0] is expected


@pytest.mark.parametrize("state", PaymentState)
@pytest.mark.parametrize("verb", Verb)
def test_a_verb_is_asked_of_the_bank_only_where_the_product_says(state: PaymentState, verb: Verb) -> None:
    assert allowed(state, verb) is (verb in MAY_BE_ASKED.get(state, set()))


def test_no_row_leaves_a_terminal_state() -> None:
    assert not {was for (was, _), (to, _) in TRANSITIONS.items() if to is not was} & TERMINAL


def test_what_is_asked_goes_to_the_bank_and_what_happened_is_journaled() -> None:
    for (_, event), (_, effects) in TRANSITIONS.items():
        if event in ASKED.values():
            assert effects == (Effect.ASK_BANK,)
        else:
            assert effects[0] is Effect.JOURNAL


@pytest.mark.parametrize("sale", [False, True], ids=["authorization", "sale"])
def test_every_sequence_of_commands_and_answers_keeps_the_invariants(sale: bool) -> None:
    # The desk checks every commit against the invariants; here stands only what holds between commits.
    seen = _walk(a_payment_begun(sale=sale), LENGTH)

    assert seen > 10_000


def _walk(desk: Desk, length: int) -> int:
    """All sequences of this length from here. An answer needs an attempt under way, time passes for what is parked."""
    after = [desk.accept(verb, f"{verb}-{length}") for verb in COMMANDS]
    if desk.at_bank is not None:
        after += [desk.answer(answer) for answer in ANSWERS]
        after.append(desk.lost_by_its_owner())
    elif desk.head is not None and desk.head.next_attempt_at is not None:
        after.append(desk.later())
    elif desk.head is None and desk.payment.state is PaymentState.AUTHORIZED:
        after.append(desk.expires())
    for following in after:
        _check_rest(following)
    return len(after) + (sum(_walk(following, length - 1) for following in after) if length > 1 else 0)


def _check_rest(desk: Desk) -> None:
    """Whatever is unsettled and not at the bank has a next step: a time, a person, or its turn behind the first."""
    if desk.at_bank is None and desk.head is not None:
        assert desk.head.status is Status.REVIEW or desk.head.next_attempt_at is not None
    began = [attempt.id for _, attempt in desk.attempts]
    order = [operation.id for operation in desk.operations if operation.id in began]
    assert list(dict.fromkeys(began)) == order, "operations are begun in the order of acceptance (I3)"
