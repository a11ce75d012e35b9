"""The lifecycle of a payment as one table: (state, event) -> (state, effects). A missing key is the refusal.

Keeps I3 (only this table changes a state). Commands (AUTHORIZE, CAPTURE, VOID, REFUND) and the bank's answers are
events alike, so one look-up tells both whether a capture may be asked for and what its approval means. The diagram in
docs/lifecycle.md is printed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from engine.domain.payment import PaymentState, Verb


class Event(StrEnum):
    # Asked for.
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
    # Happened. Journal rows and events to the merchant carry these names, as payment.<event>.
    CREATED = "created"
    AUTHORIZED = "authorized"
    DECLINED = "declined"
    FAILED = "failed"
    CAPTURED = "captured"
    CAPTURE_REFUSED = "capture_refused"
    VOIDED = "voided"
    VOID_REFUSED = "void_refused"
    REFUNDED = "refunded"
    REFUND_REFUSED = "refund_refused"
    EXPIRING = "expiring"  # soon, and the merchant may still capture or void
    EXPIRED = "expired"
    RELEASED = "released"  # the hold of a payment that had expired by the bank's word
    CORRECTED = "corrected"  # the bank's id that an operator had given, before anything was built on it
    IN_DOUBT = "in_doubt"
    REVIEW = "review"


class Effect(StrEnum):
    ASK_BANK = "ask_bank"  # commit the attempt, then ask with the operation's bank key
    JOURNAL = "journal"  # a journal row and its event to the merchant, in the commit that writes the receipt (I8)
    ANSWER = "answer"  # render the response, once, in that commit (I6)
    ASK_AGAIN = "ask_again"  # same bank key, later, on a persisted schedule (I7)
    CALL_OPERATOR = "call_operator"  # only a person can tell


S, E, F = PaymentState, Event, Effect

# fmt: off
TRANSITIONS: Mapping[tuple[PaymentState, Event], tuple[PaymentState, tuple[Effect, ...]]] = {
    # from          event                 to             effects, in order
    (S.PENDING,    E.AUTHORIZE):       (S.PENDING,    (F.ASK_BANK,)),
    (S.PENDING,    E.CREATED):         (S.PENDING,    (F.JOURNAL,)),
    (S.PENDING,    E.AUTHORIZED):      (S.AUTHORIZED, (F.JOURNAL, F.ANSWER)),
    (S.PENDING,    E.DECLINED):        (S.DECLINED,   (F.JOURNAL, F.ANSWER)),
    (S.PENDING,    E.FAILED):          (S.FAILED,     (F.JOURNAL, F.ANSWER)),
    (S.PENDING,    E.IN_DOUBT):        (S.PENDING,    (F.JOURNAL, F.ASK_AGAIN)),
    (S.PENDING,    E.REVIEW):          (S.PENDING,    (F.JOURNAL, F.CALL_OPERATOR)),

    (S.AUTHORIZED, E.CAPTURE):         (S.AUTHORIZED, (F.ASK_BANK,)),
    (S.AUTHORIZED, E.VOID):            (S.AUTHORIZED, (F.ASK_BANK,)),
    (S.AUTHORIZED, E.CAPTURED):        (S.CAPTURED,   (F.JOURNAL, F.ANSWER)),
    (S.AUTHORIZED, E.CAPTURE_REFUSED): (S.AUTHORIZED, (F.JOURNAL, F.ANSWER)),
    (S.AUTHORIZED, E.VOIDED):          (S.VOIDED,     (F.JOURNAL, F.ANSWER)),
    (S.AUTHORIZED, E.VOID_REFUSED):    (S.AUTHORIZED, (F.JOURNAL, F.ANSWER)),
    (S.AUTHORIZED, E.EXPIRING):        (S.AUTHORIZED, (F.JOURNAL,)),
    (S.AUTHORIZED, E.EXPIRED):         (S.EXPIRED,    (F.JOURNAL, F.ANSWER)),
    (S.AUTHORIZED, E.FAILED):          (S.FAILED,     (F.JOURNAL, F.ANSWER)),  # a sale not captured, its hold released
    (S.AUTHORIZED, E.IN_DOUBT):        (S.AUTHORIZED, (F.JOURNAL, F.ASK_AGAIN)),
    (S.AUTHORIZED, E.REVIEW):          (S.AUTHORIZED, (F.JOURNAL, F.CALL_OPERATOR)),
    (S.AUTHORIZED, E.CORRECTED):       (S.AUTHORIZED, (F.JOURNAL,)),

    (S.CAPTURED,   E.REFUND):          (S.CAPTURED,   (F.ASK_BANK,)),
    (S.CAPTURED,   E.REFUNDED):        (S.REFUNDED,   (F.JOURNAL, F.ANSWER)),
    (S.CAPTURED,   E.REFUND_REFUSED):  (S.CAPTURED,   (F.JOURNAL, F.ANSWER)),
    (S.CAPTURED,   E.IN_DOUBT):        (S.CAPTURED,   (F.JOURNAL, F.ASK_AGAIN)),
    (S.CAPTURED,   E.REVIEW):          (S.CAPTURED,   (F.JOURNAL, F.CALL_OPERATOR)),
    (S.CAPTURED,   E.CORRECTED):       (S.CAPTURED,   (F.JOURNAL,)),

    (S.EXPIRED,    E.RELEASED):        (S.EXPIRED,    (F.JOURNAL,)),
    (S.EXPIRED,    E.IN_DOUBT):        (S.EXPIRED,    (F.JOURNAL, F.ASK_AGAIN)),
    (S.EXPIRED,    E.REVIEW):          (S.EXPIRED,    (F.JOURNAL, F.CALL_OPERATOR)),
    (S.EXPIRED,    E.CORRECTED):       (S.EXPIRED,    (F.JOURNAL,)),

    (S.REFUNDED,   E.CORRECTED):       (S.REFUNDED,   (F.JOURNAL,)),
    (S.VOIDED,     E.CORRECTED):       (S.VOIDED,     (F.JOURNAL,)),
}

ASKED: Mapping[Verb, Event] = {
    Verb.AUTHORIZE: E.AUTHORIZE,
    Verb.CAPTURE:   E.CAPTURE,
    Verb.VOID:      E.VOID,
    Verb.REFUND:    E.REFUND,
}
# fmt: on


class IllegalTransition(Exception):
    """The table has no row for this. Raised for what only a bug can cause; a refused command is a value."""

    def __init__(self, state: PaymentState, event: Event) -> None:
        super().__init__(f"no transition from {state} on {event}")
        self.state, self.event = state, event


def allowed(state: PaymentState, verb: Verb) -> bool:
    """Whether the gateway itself lets this be asked of the bank."""
    return (state, ASKED[verb]) in TRANSITIONS


def transition(state: PaymentState, event: Event) -> tuple[PaymentState, tuple[Effect, ...]]:
    """The row for this state and event. Raises IllegalTransition where there is none."""
    row = TRANSITIONS.get((state, event))
    if row is None:
        raise IllegalTransition(state, event)
    return row
