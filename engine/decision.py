"""The pure heart: (payment, operation, what happened) -> what to commit. No clock, no store, no bank of its own.

Each function answers with a Step, everything that one commit writes for one payment (I8), or Again, an attempt to
repeat after a while without telling anybody yet. The state changes by lifecycle.TRANSITIONS alone (I3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from engine.journal import Chained, Journal
from engine.lifecycle import TRANSITIONS, Event, allowed, step
from engine.outcome import Answer, Approved, NoAnswer, Refusal, Refused, Unsent
from engine.payment import Failure, Operation, Payment, State, Status, Verb
from engine.receipt import render_failure, render_payment, render_refusal
from engine.retry import Policy, Schedule
from engine.sale import child_of
from engine.step import Again, Scribe, Step

# fmt: off
_DONE: Mapping[Verb, tuple[Event, str, str]] = {
    # verb           event             the bank's id       our timestamp
    Verb.AUTHORIZE: (Event.AUTHORIZED, "authorization_id", "authorized_at"),
    Verb.CAPTURE:   (Event.CAPTURED,   "capture_id",       "captured_at"),
    Verb.VOID:      (Event.VOIDED,     "void_id",          "voided_at"),
    Verb.REFUND:    (Event.REFUNDED,   "refund_id",        "refunded_at"),
}

_REFUSED: Mapping[Verb, Event] = {
    Verb.AUTHORIZE: Event.FAILED,
    Verb.CAPTURE:   Event.CAPTURE_REFUSED,
    Verb.VOID:      Event.VOID_REFUSED,
    Verb.REFUND:    Event.REFUND_REFUSED,
}
# fmt: on


class Decider:
    """The engine's rules under one retry policy and one journal key."""

    def __init__(self, policy: Policy, journal: Journal, draw: random.Random) -> None:
        self._schedule, self._scribe = Schedule(policy, draw), Scribe(journal)

    def admit(self, payment: Payment, operation: Operation, now: datetime) -> Step:
        """The table's word on an operation: its first attempt, or the refusal as an outcome like any other."""
        opened = payment.version == 0
        if not allowed(payment.state, operation.verb):
            payment = replace(payment, version=payment.version + 1)
            rejected = replace(
                operation,
                status=Status.REJECTED,
                sealed=None,
                failure=Failure(code="transition_not_allowed", message=f"the payment was {payment.state}"),
                response_status=409,
                response_body=render_refusal(payment, operation),
                settled_at=now,
            )
            return Step(payment=payment, operations=(rejected,))
        operation = self._schedule.sent(operation, now)
        payment = replace(payment, version=payment.version + 1, operation_id=operation.id)
        if not opened:
            return Step(payment=payment, operations=(operation,), then=operation)
        payment, told = self._scribe.journaled(payment, operation, Event.CREATED, now, {})
        return Step(payment=payment, operations=(operation,), events=(told,), opened=True, then=operation)

    def queue(self, payment: Payment, operations: Sequence[Operation]) -> Step:
        """Journal operations that must wait for an earlier one in doubt (I3)."""
        return Step(payment=replace(payment, version=payment.version + 1), operations=tuple(operations))

    def attempt(self, payment: Payment, operation: Operation, now: datetime, *, lost: bool) -> Step:
        """Its first attempt, if the table allows it, or one more. `lost`: nobody here knows whether the one before was
        answered.
        """
        if operation.attempts == 0:
            return self.admit(payment, operation, now)
        if lost and operation.attempts and operation.doubted_at is None:
            operation = replace(operation, doubted_at=now)
        if self._schedule.spent(operation, now):
            return self._review(payment, operation, now, "asked too often or too long ago to ask again", {})
        return replace(self._attempted(payment, operation, now), inherited=lost)

    def insist(self, payment: Payment, operation: Operation, now: datetime) -> Step:
        """One more attempt because a person wants it, however often or long ago it was asked."""
        if operation.attempts == 0:
            return self.admit(payment, operation, now)
        if operation.doubted_at is not None:
            operation = replace(operation, status=Status.IN_DOUBT)
        return self._attempted(payment, operation, now)

    def spent(self, operation: Operation, now: datetime) -> bool:
        """Whether it may no longer be asked of the bank with its key."""
        return self._schedule.spent(operation, now)

    def review(self, payment: Payment, operation: Operation, now: datetime, reason: str) -> Step:
        """Only a person can tell: park it for one."""
        return self._review(payment, operation, now, reason, {})

    def conclude(
        self, payment: Payment, operation: Operation, history: Sequence[Operation], answer: Answer, now: datetime
    ) -> Step | Again:
        """What the bank's answer means. `history`: the payment's operations that were ever sent or are unsettled."""
        parent = next((other for other in history if other.id == operation.parent), None)
        evidence = {"attempt": operation.attempts, **answer.evidence}
        match answer:
            case Approved():
                return self._approved(payment, operation, parent, answer, now, evidence)
            case Refused(reason=Refusal.ALREADY_DONE) if self._was_ours(operation, history):
                evidence = {"bank_code": answer.code, "void_id": "unknown", **evidence}
                return self._approved(payment, operation, parent, Approved(reference=None, at=None), now, evidence)
            case Refused(reason=Refusal.ALREADY_DONE):
                return self._review(payment, operation, now, f"the bank says {answer.code}", evidence)
            case Refused(reason=Refusal.UNKNOWN_REFERENCE) if self._schedule.stays_in_hand(operation):
                return self._schedule.again(operation, now, over=True)
            case Refused(reason=Refusal.UNKNOWN_REFERENCE):
                return self._review(payment, operation, now, f"the bank says {answer.code}", evidence)
            case Refused():
                return self._refused(payment, operation, parent, answer, now, evidence)
            case NoAnswer(ask_again=False):
                return self._review(payment, _doubted(operation, now), now, answer.reason, evidence)
            case NoAnswer():
                return self._unanswered(payment, _doubted(operation, now), answer.reason, answer.over, now, evidence)
            case Unsent():
                if operation.doubted_at is None:  # the bank has still not seen its key
                    operation = replace(operation, first_sent_at=None)
                if answer.wait is None:
                    return self._unanswered(payment, operation, answer.reason, True, now, evidence)
                # The bank is left alone for a while, and that is nothing this operation has used up.
                operation = replace(operation, attempts=operation.attempts - 1)
                at = self._schedule.returning(now, answer.wait)
                return self._parked(payment, operation, answer.reason, at, now, evidence)

    def _attempted(self, payment: Payment, operation: Operation, now: datetime) -> Step:
        operation = self._schedule.sent(operation, now)
        return Step(
            payment=replace(payment, version=payment.version + 1, operation_id=operation.id),
            operations=(operation,),
            then=operation,
        )

    def _approved(
        self,
        payment: Payment,
        operation: Operation,
        parent: Operation | None,
        answer: Approved,
        now: datetime,
        evidence: Mapping[str, object],
    ) -> Step:
        event, id_field, time_field = _DONE[operation.verb]
        evidence = {"reference": answer.reference, "bank_at": answer.at, **evidence}
        told_ids = {id_field: answer.reference, "auth_code": answer.auth_code}
        ids = {field: told_id for field, told_id in told_ids.items() if told_id is not None}
        payment = replace(payment, version=payment.version + 1, bank=replace(payment.bank, **ids))
        if parent is not None and operation.verb is Verb.VOID:
            return self._released(payment, _ended(operation, Status.SUCCEEDED, now), parent, now, evidence)
        times: dict[str, datetime] = {time_field: now}
        if answer.expires_at is not None:
            times["expires_at"] = answer.expires_at
        payment = replace(
            payment,
            at=replace(payment.at, **times),
            amount_captured=operation.amount if operation.verb is Verb.CAPTURE else payment.amount_captured,
            amount_refunded=operation.amount if operation.verb is Verb.REFUND else payment.amount_refunded,
        )
        done = _ended(operation, Status.SUCCEEDED, now)
        payment, told = self._scribe.journaled(payment, done, event, now, evidence)
        if operation.sale:
            return self._followed(payment, (replace(done, settled_at=None),), told, operation, Verb.CAPTURE, now)
        body = render_payment(payment, done)
        if parent is not None:
            answered = replace(parent, response_status=201, response_body=body, settled_at=now)
            return Step(payment=payment, operations=(done, answered), events=(told,))
        status = 201 if operation.verb is Verb.AUTHORIZE else 200
        done = replace(done, response_status=status, response_body=body)
        return Step(payment=payment, operations=(done,), events=(told,))

    def _refused(
        self,
        payment: Payment,
        operation: Operation,
        parent: Operation | None,
        answer: Refused,
        now: datetime,
        evidence: Mapping[str, object],
    ) -> Step:
        evidence = {"bank_code": answer.code, **evidence}
        failure, event, status = _reading(operation, answer)
        if parent is not None and operation.verb is Verb.VOID and answer.reason is not Refusal.RESOLVED:
            return self._review(payment, operation, now, f"the hold could not be released: {answer.code}", evidence)
        payment = replace(payment, version=payment.version + 1)
        done = replace(_ended(operation, status, now), failure=failure)
        if parent is not None and operation.verb is Verb.VOID:
            return self._released(payment, done, parent, now, evidence)
        if parent is not None:
            payment, told = self._scribe.journaled(payment, done, Event.CAPTURE_REFUSED, now, evidence)
            return self._followed(payment, (done,), told, parent, Verb.VOID, now)
        to, _ = step(payment.state, event)
        if to is not payment.state:  # a refusal that ends the payment is the payment's failure; else the operation's
            field = {State.DECLINED: "declined_at", State.FAILED: "failed_at", State.EXPIRED: "expired_at"}[to]
            payment = replace(payment, failure=failure, at=replace(payment.at, **{field: now}))
        payment, told = self._scribe.journaled(payment, done, event, now, evidence)
        done = replace(
            done,
            response_status=409 if failure.code == "authorization_expired" else 402,
            response_body=render_failure(payment, done, failure),
        )
        return Step(payment=payment, operations=(done,), events=(told,))

    def _followed(
        self,
        payment: Payment,
        operations: tuple[Operation, ...],
        told: tuple[Chained, str],
        parent: Operation,
        verb: Verb,
        now: datetime,
    ) -> Step:
        """Let the sale's own operation follow in the same commit, its first attempt included."""
        child = self._schedule.sent(child_of(parent, verb, now), now)
        payment = replace(payment, operation_id=child.id)
        return Step(payment=payment, operations=(*operations, child), events=(told,), then=child)

    def _released(
        self, payment: Payment, done: Operation, parent: Operation, now: datetime, evidence: Mapping[str, object]
    ) -> Step:
        """A sale whose capture the bank refused, its hold released (or not, as a person found): answered as failed."""
        hold = "was" if done.status is Status.SUCCEEDED else "was not"
        failure = Failure(
            code="payment_failed", message=f"The bank refused the capture of this sale; its hold {hold} released."
        )
        payment = replace(payment, failure=failure, at=replace(payment.at, failed_at=now))
        payment, told = self._scribe.journaled(payment, done, Event.FAILED, now, evidence)
        body = render_failure(payment, parent, failure)
        answered = replace(parent, response_status=402, response_body=body, settled_at=now)
        return Step(payment=payment, operations=(done, answered), events=(told,))

    def _was_ours(self, operation: Operation, history: Sequence[Operation]) -> bool:
        """Whether "already used" can only mean our own void: an unanswered void of ours, and no capture ever sent."""
        captures = [other for other in history if other.verb is Verb.CAPTURE and other.attempts]
        return operation.verb is Verb.VOID and operation.doubted_at is not None and not captures

    def _unanswered(
        self,
        payment: Payment,
        operation: Operation,
        reason: str,
        over: bool,
        now: datetime,
        evidence: Mapping[str, object],
    ) -> Step | Again:
        if self._schedule.spent(operation, now):
            return self._review(payment, operation, now, reason, evidence)
        if self._schedule.stays_in_hand(operation):
            return self._schedule.again(operation, now, over=over)
        at = self._schedule.parked_until(operation, now, over=over)
        return self._parked(payment, operation, reason, at, now, evidence)

    def _parked(
        self,
        payment: Payment,
        operation: Operation,
        reason: str,
        at: datetime,
        now: datetime,
        evidence: Mapping[str, object],
    ) -> Step:
        payment = replace(payment, version=payment.version + 1)
        if operation.doubted_at is None or operation.status is Status.IN_DOUBT:
            # Nothing is in doubt, or everybody was told before: only the schedule moves.
            status = Status.ACCEPTED if operation.doubted_at is None else Status.IN_DOUBT
            parked = replace(operation, status=status, next_attempt_at=at)
            return Step(payment=payment, operations=(parked,))
        parked = replace(operation, status=Status.IN_DOUBT, next_attempt_at=at)
        evidence = {"reason": reason, "first_sent_at": operation.first_sent_at, "next_attempt_at": at, **evidence}
        payment, told = self._scribe.journaled(payment, parked, Event.IN_DOUBT, now, evidence)
        return Step(payment=payment, operations=(parked,), events=(told,))

    def _review(
        self, payment: Payment, operation: Operation, now: datetime, reason: str, evidence: Mapping[str, object]
    ) -> Step:
        # The engine asks no more, so the card has served (I9).
        reviewed = replace(operation, status=Status.REVIEW, next_attempt_at=None, sealed=None)
        payment = replace(payment, version=payment.version + 1, operation_id=operation.id)
        if (payment.state, Event.REVIEW) not in TRANSITIONS:  # the payment has ended, only this operation has not
            return Step(payment=payment, operations=(reviewed,))
        payment, told = self._scribe.journaled(payment, reviewed, Event.REVIEW, now, {"reason": reason, **evidence})
        return Step(payment=payment, operations=(reviewed,), events=(told,))


def _doubted(operation: Operation, now: datetime) -> Operation:
    return operation if operation.doubted_at is not None else replace(operation, doubted_at=now)


def _ended(operation: Operation, status: Status, now: datetime) -> Operation:
    return replace(operation, status=status, sealed=None, next_attempt_at=None, settled_at=now)


def _reading(operation: Operation, answer: Refused) -> tuple[Failure, Event, Status]:
    """What a final refusal is called, which event it is, and where it leaves the operation."""
    if answer.reason is Refusal.DECLINED and operation.verb is Verb.AUTHORIZE:
        failure = Failure(code="card_declined", message=answer.message, decline_code=answer.decline_code)
        return failure, Event.DECLINED, Status.DECLINED
    if answer.reason is Refusal.EXPIRED and operation.verb is Verb.CAPTURE:
        message = "The authorization had expired at the bank before it was captured."
        return Failure(code="authorization_expired", message=message), Event.EXPIRED, Status.FAILED
    message = f"The bank refused the {operation.verb}: {answer.code}."
    if answer.reason is Refusal.RESOLVED:
        message = f"The bank did not carry out the {operation.verb}."
    return Failure(code="payment_failed", message=message), _REFUSED[operation.verb], Status.FAILED
