"""The pure heart: (payment, operation, what happened) -> what to commit. No clock, no store, no bank of its own.

Each function answers with a Step, everything that one commit writes for one payment (I8), or Again, an attempt to
repeat after a while without telling anybody yet. The state changes by lifecycle.TRANSITIONS alone (I3).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from engine.domain.bank_answer import Answer, Approved, NoAnswer, Refusal, Refused, Unsent
from engine.domain.changeset import ChangeSet, JournalWriter, RetryAt
from engine.domain.journal import Journal
from engine.domain.lifecycle import TRANSITIONS, Event, allowed
from engine.domain.outcome_rules import OutcomeCase, OutcomeRules
from engine.domain.payment import Operation, Payment, PaymentFailure, PaymentState, Status, Verb
from engine.domain.rendering import render_refusal, render_wrong_amount
from engine.domain.retry_policy import RetryPolicy, RetrySchedule
from engine.domain.system_operation import HOLDS, SystemOperation, new_system_operation, system_operation_of

# What the table refuses is `transition_not_allowed`, with an exception.
_REFUSALS: Mapping[tuple[PaymentState, Verb], str] = {(PaymentState.EXPIRED, Verb.CAPTURE): "authorization_expired"}


class Decider:
    """The engine's rules under one retry policy and one journal key."""

    def __init__(self, policy: RetryPolicy, journal: Journal, draw: random.Random) -> None:
        self._policy = policy
        self._schedule, self._scribe = RetrySchedule(policy, draw), JournalWriter(journal)
        self._endings = OutcomeRules(self._scribe, self._schedule)

    def admit(self, payment: Payment, operation: Operation, now: datetime, agreed: datetime | None = None) -> ChangeSet:
        """The table's word on an operation: its first attempt, or the refusal as an outcome like any other."""
        opened = payment.version == 0
        if system_operation_of(operation) is None and not allowed(payment.state, operation.verb):
            code = _REFUSALS.get((payment.state, operation.verb), "transition_not_allowed")
            failure = PaymentFailure(code=code, message=f"the payment was {payment.state}")
            return _rejected(payment, operation, failure, 409, render_refusal(payment, operation, code), now)
        if operation.amount != payment.terms.money.amount:
            # An edge compares it too, unless all it could see was another payload under the payment's key.
            failure = PaymentFailure(
                code="amount_not_supported", message="it was to be of another amount than the payment"
            )
            return _rejected(payment, operation, failure, 422, render_wrong_amount(payment, operation), now)
        operation = self._schedule.sent(operation, now, agreed)
        payment = replace(payment, version=payment.version + 1, operation_id=operation.id)
        if not opened:
            return ChangeSet(payment=payment, operations=(operation,), then=operation)
        payment, told = self._scribe.journaled(payment, operation, Event.CREATED, now, {})
        return ChangeSet(payment=payment, operations=(operation,), events=(told,), opened=True, then=operation)

    def queue(self, payment: Payment, operations: Sequence[Operation]) -> ChangeSet:
        """Journal operations that must wait for an earlier one in doubt (I3)."""
        return ChangeSet(payment=replace(payment, version=payment.version + 1), operations=tuple(operations))

    def due(self, operation: Operation, now: datetime) -> bool:
        """Whether its scheduled time has come."""
        return self._schedule.is_due(operation, now)

    @property
    def policy(self) -> RetryPolicy:
        return self._policy

    def overdue(self, payment: Payment, now: datetime) -> bool:
        """Whether its authorization expired so long ago that the bank must have noticed."""
        expires_at = payment.at.expires_at
        return (
            payment.state is PaymentState.AUTHORIZED
            and expires_at is not None
            and now - expires_at >= self._policy.expiry_grace
        )

    def expiring(self, payment: Payment, now: datetime) -> bool:
        """Whether its merchant is still to be told that its authorization expires soon."""
        at = payment.at
        if payment.state is not PaymentState.AUTHORIZED or at.expires_at is None or at.expiring_at is not None:
            return False
        return at.expires_at - self._policy.expiry_notice <= now < at.expires_at

    def notify_expiring(self, payment: Payment, last: Operation, now: datetime) -> ChangeSet:
        """Tell the merchant once that its authorization expires soon; nothing is asked of the bank."""
        told_at = replace(payment.at, expiring_at=now)
        payment = replace(payment, version=payment.version + 1, at=told_at)
        evidence = {"expires_at": payment.at.expires_at}
        payment, told = self._scribe.journaled(payment, last, Event.EXPIRING, now, evidence)
        return ChangeSet(payment=payment, operations=(), events=(told,))

    def expire(self, payment: Payment, last: Operation, now: datetime) -> ChangeSet:
        """Ask the bank to release a hold that is too old, behind the last operation. Its success is the expiry."""
        return self._attempted(payment, new_system_operation(SystemOperation.EXPIRE, last, now), now)

    def attempt(
        self, payment: Payment, operation: Operation, now: datetime, *, lost: bool, agreed: datetime | None = None
    ) -> ChangeSet:
        """Its first attempt, if the table allows it, or one more. `lost`: nobody here knows whether the one before was
        answered. `agreed`: as late as two clocks say it is; by that the bank's key ages.
        """
        if operation.attempts == 0:
            return self.admit(payment, operation, now, agreed)
        if lost and operation.attempts and operation.doubted_at is None:
            operation = replace(operation, doubted_at=now)
        if self._schedule.retries_exhausted(operation, agreed or now) and not self._owed_by_engine(operation, lost):
            return self._review(payment, operation, now, "asked too often or too long ago to ask again", {})
        return replace(self._attempted(payment, operation, now, agreed), inherited=lost)

    def force_attempt(self, payment: Payment, operation: Operation, now: datetime) -> ChangeSet:
        """One more attempt because a person wants it, however often or long ago it was asked."""
        if operation.attempts == 0:
            return self.admit(payment, operation, now)
        if operation.doubted_at is not None:
            operation = replace(operation, status=Status.IN_DOUBT)
        return self._attempted(payment, operation, now)

    def retries_exhausted(self, operation: Operation, now: datetime) -> bool:
        """Whether it may no longer be asked of the bank with its key."""
        return self._schedule.retries_exhausted(operation, now)

    def review(self, payment: Payment, operation: Operation, now: datetime, reason: str) -> ChangeSet:
        """Only a person can tell: park it for one."""
        return self._review(payment, operation, now, reason, {})

    def taken(
        self, payment: Payment, operation: Operation, history: Sequence[Operation], answer: Approved, now: datetime
    ) -> ChangeSet:
        """Called when the hold to release had been captured; `answer` is what the bank shows of the capture."""
        return self._endings.taken(_case(payment, operation, history, answer, now), answer)

    def correct(self, payment: Payment, operation: Operation, answer: Approved, now: datetime) -> ChangeSet:
        """Another id of the bank's for what an operator had resolved."""
        return self._endings.corrected(_case(payment, operation, (), answer, now), answer)

    def conclude(
        self,
        payment: Payment,
        operation: Operation,
        history: Sequence[Operation],
        answer: Answer,
        now: datetime,
        agreed: datetime | None = None,
    ) -> ChangeSet | RetryAt:
        """What the bank's answer means. `history`: the payment's operations that were ever sent or are unsettled."""
        case = replace(_case(payment, operation, history, answer, now), agreed=agreed)
        evidence = case.evidence
        match answer:
            case Approved():
                return self._endings.approved(case, answer)
            case Refused() if self._is_gone(case, answer, history):
                case = replace(case, evidence={"bank_code": answer.code, "void_id": "unknown", **evidence})
                return self._endings.approved(case, Approved(reference=None, at=None))
            case Refused(reason=Refusal.UNKNOWN_REFERENCE) if self._schedule.stays_in_hand(operation):
                return self._schedule.again(operation, now, over=True)
            case Refused(reason=Refusal.ALREADY_DONE) if operation.verb is Verb.VOID:
                reason = _whose_end(operation, answer.code)
                return self._review(payment, _used_before_release(operation), now, reason, evidence)
            case Refused(reason=Refusal.UNKNOWN_REFERENCE | Refusal.ALREADY_DONE):
                return self._review(payment, operation, now, f"the bank says {answer.code}", evidence)
            case Refused(reason=Refusal.RESOLVED) if case.purpose in HOLDS:
                return self._endings.kept(case)
            case Refused() if case.purpose in HOLDS:
                return self._review(payment, operation, now, f"the hold could not be released: {answer.code}", evidence)
            case Refused():
                return self._endings.refused(case, answer)
            case NoAnswer(ask_again=False):
                return self._review(payment, _doubted(operation, now), now, answer.reason, evidence)
            case NoAnswer():
                return self._unanswered(payment, _doubted(operation, now), answer.reason, answer.over, case)
            case Unsent():
                if operation.doubted_at is None:  # the bank has still not seen its key
                    operation = replace(operation, first_sent_at=None)
                before = operation.attempts - 1
                if answer.wait is None and not self._schedule.was_forced(operation, before):
                    return self._unanswered(payment, operation, answer.reason, True, case)
                # The bank is left alone for a while, and that is nothing this operation has used up. Nor does a person
                # who had it asked although it was spent have to come again.
                operation = replace(operation, attempts=before)
                at = self._schedule.returning(now, answer.wait)
                return self._parked(payment, operation, answer.reason, at, now, evidence)

    def _attempted(
        self, payment: Payment, operation: Operation, now: datetime, agreed: datetime | None = None
    ) -> ChangeSet:
        operation = self._schedule.sent(operation, now, agreed)
        return ChangeSet(
            payment=replace(payment, version=payment.version + 1, operation_id=operation.id),
            operations=(operation,),
            then=operation,
        )

    def _owed_by_engine(self, operation: Operation, lost: bool) -> bool:
        """Whether a person had it asked although it was spent, and that call may not have been made: it went with its
        owner, or was held back and gave its attempt back. What the bank left unanswered is in review and not parked."""
        if lost:
            return self._schedule.was_forced(operation, operation.attempts - 1)
        return operation.next_attempt_at is not None and self._schedule.was_forced(operation, operation.attempts)

    def _is_gone(self, case: OutcomeCase, answer: Refused, history: Sequence[Operation]) -> bool:
        """Whether this refusal to release a hold can only mean that it is released: by us, or since it expired."""
        if answer.reason is Refusal.EXPIRED:
            return case.purpose in HOLDS
        # "Already used" is said of a captured hold too, and an expired one can be voided. So it tells of our release
        # only where an attempt of that very release went unanswered, and no capture of ours can have been carried out:
        # one that the bank called expired was not, unless an attempt of it went unanswered too.
        captures = [other for other in history if other.verb is Verb.CAPTURE and other.attempts]
        if case.purpose is SystemOperation.RELEASE:
            captures = [capture for capture in captures if capture.doubted_at is not None]
        released = case.purpose in (Verb.VOID, SystemOperation.EXPIRE, SystemOperation.RELEASE) and not captures
        unanswered = case.operation.doubted_at is not None and case.operation.failure is None
        return answer.reason is Refusal.ALREADY_DONE and released and unanswered

    def _unanswered(
        self,
        payment: Payment,
        operation: Operation,
        reason: str,
        over: bool,
        case: OutcomeCase,
    ) -> ChangeSet | RetryAt:
        now, evidence = case.now, case.evidence
        if self._schedule.retries_exhausted(operation, case.agreed or now):
            return self._review(payment, operation, now, reason, evidence)
        if self._schedule.stays_in_hand(operation):
            return self._schedule.again(operation, now, over=over, agreed=case.agreed)
        at = self._schedule.parked_until(operation, now, over=over, agreed=case.agreed)
        return self._parked(payment, operation, reason, at, now, evidence)

    def _parked(
        self,
        payment: Payment,
        operation: Operation,
        reason: str,
        at: datetime,
        now: datetime,
        evidence: Mapping[str, object],
    ) -> ChangeSet:
        payment = replace(payment, version=payment.version + 1)
        if operation.doubted_at is None or operation.status is Status.IN_DOUBT:
            # Nothing is in doubt, or everybody was told before: only the schedule moves.
            status = Status.ACCEPTED if operation.doubted_at is None else Status.IN_DOUBT
            parked = replace(operation, status=status, next_attempt_at=at)
            return ChangeSet(payment=payment, operations=(parked,))
        parked = replace(operation, status=Status.IN_DOUBT, next_attempt_at=at)
        evidence = {"reason": reason, "first_sent_at": operation.first_sent_at, "next_attempt_at": at, **evidence}
        payment, told = self._scribe.journaled(payment, parked, Event.IN_DOUBT, now, evidence)
        return ChangeSet(payment=payment, operations=(parked,), events=(told,))

    def _review(
        self, payment: Payment, operation: Operation, now: datetime, reason: str, evidence: Mapping[str, object]
    ) -> ChangeSet:
        # The engine asks no more, so the card has served (I9); unless the bank never saw it: then a person may still
        # have it asked.
        sealed = operation.sealed if _unseen(operation) else None
        reviewed = replace(operation, status=Status.REVIEW, next_attempt_at=None, sealed=sealed)
        payment = replace(payment, version=payment.version + 1, operation_id=operation.id)
        if (payment.state, Event.REVIEW) not in TRANSITIONS:  # the payment has ended, only this operation has not
            return ChangeSet(payment=payment, operations=(reviewed,))
        payment, told = self._scribe.journaled(payment, reviewed, Event.REVIEW, now, {"reason": reason, **evidence})
        return ChangeSet(payment=payment, operations=(reviewed,), events=(told,))


def _rejected(
    payment: Payment, operation: Operation, failure: PaymentFailure, status: int, body: bytes, now: datetime
) -> ChangeSet:
    """Refused by our own rules: an outcome like any other, without a call to the bank."""
    rejected = replace(
        operation,
        status=Status.REJECTED,
        sealed=None,
        failure=failure,
        response_status=status,
        response_body=body,
        settled_at=now,
    )
    return ChangeSet(payment=replace(payment, version=payment.version + 1), operations=(rejected,))


def _unseen(operation: Operation) -> bool:
    """Whether nothing of it was ever written to the bank: each attempt that was begun is known to have stayed here."""
    return operation.doubted_at is None and operation.status is Status.ACCEPTED


def _doubted(operation: Operation, now: datetime) -> Operation:
    return operation if operation.doubted_at is not None else replace(operation, doubted_at=now)


def _case(
    payment: Payment, operation: Operation, history: Sequence[Operation], answer: Answer, now: datetime
) -> OutcomeCase:
    parent = next((other for other in history if other.id == operation.parent), None)
    evidence = {"attempt": operation.attempts, **answer.evidence}
    return OutcomeCase(payment=payment, operation=operation, parent=parent, now=now, evidence=evidence)


def _used_before_release(operation: Operation) -> Operation:
    """Marked, if the hold was used before any attempt of this release went unanswered: no later one proves anything."""
    if operation.doubted_at is not None:
        return operation
    message = "The bank says that the hold was captured or voided before this void."
    return replace(operation, failure=PaymentFailure(code="payment_failed", message=message))


def _whose_end(operation: Operation, code: str) -> str:
    """Why "already used" does not prove that this release was carried out."""
    if operation.doubted_at is None or operation.failure is not None:
        return (
            f"the bank says {code}, and no attempt of ours can have released the hold: it was captured or voided there"
        )
    return f"the bank says {code}, and a capture of ours may have been carried out"
