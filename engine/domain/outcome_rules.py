"""How an operation ends: the bank's final word, approved or refused, becomes the step that writes it.

Which event it is and what it leaves on the receipt are tables by purpose: what a client asked for, or a system
operation of the engine. The client's response is rendered here, once (I6).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.bank_answer import Approved, Refusal, Refused
from engine.domain.changeset import ChangeSet, JournaledEvent, JournalWriter
from engine.domain.lifecycle import Event, transition
from engine.domain.payment import Operation, Payment, PaymentFailure, PaymentState, Status, Verb
from engine.domain.rendering import render_failure, render_payment
from engine.domain.retry_policy import RetrySchedule
from engine.domain.system_operation import SystemOperation, new_system_operation, system_operation_of

# fmt: off
_DONE: Mapping[Verb | SystemOperation, tuple[Event, str, str | None]] = {
    # purpose             event             the bank's id       our timestamp
    Verb.AUTHORIZE:      (Event.AUTHORIZED, "authorization_id", "authorized_at"),
    Verb.CAPTURE:        (Event.CAPTURED,   "capture_id",       "captured_at"),
    Verb.VOID:           (Event.VOIDED,     "void_id",          "voided_at"),
    Verb.REFUND:         (Event.REFUNDED,   "refund_id",        "refunded_at"),
    SystemOperation.SALE_CAPTURE: (Event.CAPTURED,   "capture_id",       "captured_at"),
    SystemOperation.SALE_RELEASE: (Event.FAILED,     "void_id",          "failed_at"),
    SystemOperation.EXPIRE:       (Event.EXPIRED,    "void_id",          "expired_at"),
    SystemOperation.RELEASE:      (Event.RELEASED,   "void_id",          None),
}

_REFUSED: Mapping[Verb, Event] = {
    Verb.AUTHORIZE:      Event.FAILED,
    Verb.CAPTURE:        Event.CAPTURE_REFUSED,
    Verb.VOID:           Event.VOID_REFUSED,
    Verb.REFUND:         Event.REFUND_REFUSED,
}

# A hold that nobody captures ends its payment with this failure; released or, as a person found, not.
_UNCAPTURED: Mapping[Verb | SystemOperation, tuple[str, str]] = {
    SystemOperation.SALE_RELEASE: ("payment_failed",        "The bank refused the capture of this sale"),
    SystemOperation.EXPIRE:       ("authorization_expired", "The authorization expired"),
}

_ENDED_AT: Mapping[PaymentState, str] = {
    PaymentState.DECLINED:      "declined_at",
    PaymentState.FAILED:        "failed_at",
    PaymentState.EXPIRED:       "expired_at",
}
# fmt: on


class OutcomeCase(Struct, frozen=True, kw_only=True):
    """An operation of which the bank has said something. `parent` is the authorize of the sale it belongs to."""

    payment: Payment
    operation: Operation
    parent: Operation | None
    now: datetime
    evidence: Mapping[str, object]
    agreed: datetime | None = None  # by which the bank's key of what follows ages

    @property
    def purpose(self) -> Verb | SystemOperation:
        return system_operation_of(self.operation) or self.operation.verb


class OutcomeRules:
    """The engine's rules for what is final."""

    def __init__(self, scribe: JournalWriter, schedule: RetrySchedule) -> None:
        self._scribe, self._schedule = scribe, schedule

    def approved(self, case: OutcomeCase, answer: Approved) -> ChangeSet:
        """Done."""
        operation, payment, purpose = case.operation, case.payment, case.purpose
        event, id_field, time_field = _DONE[purpose]
        ids = {id_field: answer.reference, "auth_code": answer.auth_code}
        times = {time_field: case.now, "expires_at": answer.expires_at}
        failure = _uncaptured(purpose, "was")
        payment = replace(
            payment,
            bank=replace(payment.bank, **{field: told for field, told in ids.items() if told is not None}),
            at=replace(payment.at, **{field: at for field, at in times.items() if field and at}),
            amount_captured=operation.amount if operation.verb is Verb.CAPTURE else payment.amount_captured,
            amount_refunded=operation.amount if operation.verb is Verb.REFUND else payment.amount_refunded,
            failure=failure or payment.failure,
        )
        done = replace(_ended(operation, Status.SUCCEEDED, case.now), failure=None)
        evidence = {"reference": answer.reference, "bank_at": answer.at, **case.evidence}
        payment, told = self._journaled(payment, done, event, case.now, evidence)
        if operation.sale:
            return self._followed(
                SystemOperation.SALE_CAPTURE, payment, replace(done, settled_at=None), told, operation, case
            )
        return ChangeSet(payment=payment, operations=_answered(payment, done, case, failure), events=(told,))

    def refused(self, case: OutcomeCase, answer: Refused) -> ChangeSet:
        """Not done, and the bank (or a person who read its statement) said so."""
        operation, payment = case.operation, case.payment
        failure, event, status = _reading(operation, answer)
        done = replace(_ended(operation, status, case.now), failure=failure)
        to, _ = transition(payment.state, event)
        if to is not payment.state:  # a refusal that ends the payment is the payment's failure; else the operation's
            payment = replace(payment, failure=failure, at=replace(payment.at, **{_ENDED_AT[to]: case.now}))
        payment, told = self._journaled(payment, done, event, case.now, {"bank_code": answer.code, **case.evidence})
        if case.parent is not None:
            return self._followed(SystemOperation.SALE_RELEASE, payment, done, told, case.parent, case)
        (done,) = _answered(payment, done, case, failure)
        if event is Event.EXPIRED and operation.verb is Verb.CAPTURE:
            return self._followed(SystemOperation.RELEASE, payment, done, told, operation, case)
        return ChangeSet(payment=payment, operations=(done,), events=(told,))

    def kept(self, case: OutcomeCase) -> ChangeSet:
        """A hold that nobody captured stays at the bank, as a person found: what it was to end, ends without it."""
        payment, purpose = case.payment, case.purpose
        event, _, time_field = _DONE[purpose]
        failure = _uncaptured(purpose, "was not")
        done = replace(_ended(case.operation, Status.FAILED, case.now), failure=failure)
        if failure is None or time_field is None:  # the payment has ended before
            return ChangeSet(payment=replace(payment, version=payment.version + 1), operations=(done,))
        payment = replace(payment, failure=failure, at=replace(payment.at, **{time_field: case.now}))
        payment, told = self._journaled(payment, done, event, case.now, case.evidence)
        return ChangeSet(payment=payment, operations=_answered(payment, done, case, failure), events=(told,))

    def taken(self, case: OutcomeCase, answer: Approved) -> ChangeSet:
        """The hold was not released: a person found at the bank that it had been captured, by no operation of this
        ledger. The payment becomes captured, by a system operation with the bank's id, and can be refunded."""
        operation, now, evidence = case.operation, case.now, {"reference": answer.reference, **case.evidence}
        failure = PaymentFailure(
            code="payment_failed", message="The hold was not released: it had been captured at the bank."
        )
        over = replace(_ended(operation, Status.FAILED, now), failure=failure)
        payment, told = replace(case.payment, version=case.payment.version + 1), []
        if case.purpose is Verb.VOID:
            payment, refused = self._scribe.journaled(payment, over, Event.VOID_REFUSED, now, evidence)
            told.append(refused)
            (over,) = _answered(payment, over, case, failure)
        behind = operation if case.parent is None else case.parent
        capture = replace(
            new_system_operation(SystemOperation.TAKEN, behind, now), status=Status.SUCCEEDED, settled_at=now
        )
        payment = replace(
            payment,
            bank=replace(payment.bank, capture_id=answer.reference),
            at=replace(payment.at, captured_at=now),
            amount_captured=operation.amount,
            operation_id=capture.id,
        )
        payment, captured = self._scribe.journaled(payment, capture, Event.CAPTURED, now, evidence)
        operations = (over, capture) if case.parent is None else (over, *_answered(payment, capture, case, None))
        return ChangeSet(payment=payment, operations=operations, events=(*told, captured))

    def corrected(self, case: OutcomeCase, answer: Approved) -> ChangeSet:
        """The bank's id of what was done is another than an operator had said. Answers that were stored stay (I6)."""
        operation, payment = case.operation, case.payment
        _, id_field, _ = _DONE[case.purpose]
        evidence = {"reference": answer.reference, "was": getattr(payment.bank, id_field), **case.evidence}
        payment = replace(
            payment,
            bank=replace(payment.bank, **{id_field: answer.reference}),
            at=replace(payment.at, expires_at=answer.expires_at or payment.at.expires_at),
        )
        payment, told = self._journaled(payment, operation, Event.CORRECTED, case.now, evidence)
        return ChangeSet(payment=payment, operations=(), events=(told,))

    def _journaled(
        self, payment: Payment, done: Operation, event: Event, now: datetime, evidence: Mapping[str, object]
    ) -> tuple[Payment, JournaledEvent]:
        return self._scribe.journaled(replace(payment, version=payment.version + 1), done, event, now, evidence)

    def _followed(
        self,
        system_operation: SystemOperation,
        payment: Payment,
        done: Operation,
        told: JournaledEvent,
        behind: Operation,
        case: OutcomeCase,
    ) -> ChangeSet:
        """A system operation follows in the same commit, its first attempt included."""
        now = told[0].entry.at
        child = self._schedule.sent(new_system_operation(system_operation, behind, now), now, case.agreed)
        payment = replace(payment, operation_id=child.id)
        return ChangeSet(payment=payment, operations=(done, child), events=(told,), then=child)


def _answered(
    payment: Payment, done: Operation, case: OutcomeCase, failure: PaymentFailure | None
) -> tuple[Operation, ...]:
    """What is over, with the answer for whom it has; a system operation's is that of its sale."""
    asked = done if case.parent is None else case.parent
    if system_operation_of(asked) is not None:
        return (done,)
    if failure is None:
        status, body = 201 if asked.verb is Verb.AUTHORIZE else 200, render_payment(payment, done)
    else:
        status = 409 if failure.code == "authorization_expired" else 402
        body = render_failure(payment, asked, failure)
    asked = replace(asked, response_status=status, response_body=body, settled_at=case.now)
    return (asked,) if case.parent is None else (done, asked)


def _ended(operation: Operation, status: Status, now: datetime) -> Operation:
    return replace(operation, status=status, sealed=None, next_attempt_at=None, settled_at=now)


def _uncaptured(purpose: Verb | SystemOperation, hold: str) -> PaymentFailure | None:
    if purpose not in _UNCAPTURED:
        return None
    code, message = _UNCAPTURED[purpose]
    return PaymentFailure(code=code, message=f"{message}; its hold {hold} released.")


def _reading(operation: Operation, answer: Refused) -> tuple[PaymentFailure, Event, Status]:
    """What a final refusal is called, which event it is, and where it leaves the operation."""
    verb = operation.verb
    if answer.reason is Refusal.DECLINED and verb is Verb.AUTHORIZE:
        failure = PaymentFailure(code="card_declined", message=answer.message, decline_code=answer.decline_code)
        return failure, Event.DECLINED, Status.DECLINED
    if answer.reason is Refusal.EXPIRED and verb is Verb.CAPTURE and operation.parent is None:
        message = "The authorization had expired at the bank before it was captured."
        return PaymentFailure(code="authorization_expired", message=message), Event.EXPIRED, Status.FAILED
    message = f"The bank refused the {verb}: {answer.code}."
    if answer.reason is Refusal.RESOLVED:
        message = f"The bank did not carry out the {verb}."
    return PaymentFailure(code="payment_failed", message=message), _REFUSED[verb], Status.FAILED
