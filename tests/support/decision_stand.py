"""One payment in the hands of the pure rules, with a clock that tests turn and every rule of a commit checked.

A `Desk` is a value: each act gives another desk, so that sequences can branch. It does what the actor does around the
rules, without stores or a bank: takes operations in, commits steps, waits, asks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import orjson
from msgspec.structs import replace as changed

from engine.domain.bank_answer import Answer, Approved, Found, NoAnswer, Refusal, Refused, Unsent
from engine.domain.changeset import ChangeSet, RetryAt
from engine.domain.command import Command
from engine.domain.creation import new_operation, new_payment
from engine.domain.decision import Decider
from engine.domain.ids import operation_id, partition_of, payment_id
from engine.domain.journal import Chained, Journal
from engine.domain.lifecycle import TRANSITIONS
from engine.domain.money import Money
from engine.domain.operator_rules import PaymentActionKind, Proof, WaitingAction, carry_out, claim_of
from engine.domain.payment import (
    UNSETTLED,
    DeclineCode,
    MaskedCard,
    Operation,
    Payment,
    PaymentState,
    Status,
    Terms,
    Verb,
)
from engine.domain.retry_policy import RetryPolicy
from engine.domain.system_operation import system_operation_of

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
AMOUNT = 5000
TERMINAL = frozenset(
    {PaymentState.REFUNDED, PaymentState.VOIDED, PaymentState.DECLINED, PaymentState.FAILED, PaymentState.EXPIRED}
)
PATIENCE = RetryPolicy(
    send_window=timedelta(seconds=2),
    attempt_timeout=timedelta(seconds=10),
    attempts_in_hand=2,
    attempts_max=5,
    retry_base=timedelta(milliseconds=200),
    retry_cap=timedelta(seconds=5),
    park_base=timedelta(seconds=5),
    park_cap=timedelta(minutes=5),
    bank_key_life=timedelta(hours=23),
    expiry_notice=timedelta(days=1),
    expiry_grace=timedelta(minutes=5),
)
JOURNAL = Journal(b"j" * 32)

LOST = NoAnswer(reason="timeout")
BROKE = NoAnswer(reason="500 internal_error", over=True)
NEVER_AGAIN = NoAnswer(reason="400 internal_error", ask_again=False, over=True)
NOT_SENT = Unsent(reason="connection refused")
HELD_BACK = Unsent(reason="the circuit breaker of this bank is open", wait=timedelta(seconds=30))
ALREADY = Refused(reason=Refusal.ALREADY_DONE, code="authorization_already_used", message="used")
UNKNOWN = Refused(reason=Refusal.UNKNOWN_REFERENCE, code="authorization_not_found", message="not found")
EXPIRED = Refused(reason=Refusal.EXPIRED, code="authorization_expired", message="expired")
MISTAKEN = Refused(reason=Refusal.MISTAKE, code="amount_mismatch", message="mismatch")
DECLINED = Refused(
    reason=Refusal.DECLINED, code="insufficient_funds", message="no funds", decline_code=DeclineCode.INSUFFICIENT_FUNDS
)


def approved(operation: Operation) -> Approved:
    """What the bank says when all is well."""
    expires_at = NOON + timedelta(days=7) if operation.verb is Verb.AUTHORIZE else None
    return Approved(reference=f"{operation.verb}_1", at=NOON, expires_at=expires_at)


def a_command(verb: Verb, key: str, *, sale: bool = False) -> Command:
    payment = payment_id("stand", "m_1", "first")
    new_payment = verb is Verb.AUTHORIZE
    terms = Terms(
        merchant="m_1",
        money=Money(amount=AMOUNT, currency="USD"),
        order_id="order 1",
        customer_id="customer 1",
        description=None,
        metadata={},
        method=MaskedCard(brand="visa", last4="1111", expiry_month=12, expiry_year=2030),
        connector="ficmart_bank",
        webhook_url=None,
    )
    return Command(
        operation=operation_id(payment, verb, key),
        payment=payment,
        verb=verb,
        merchant="m_1",
        key=key,
        amount=None,
        terms=terms if new_payment else None,
        sealed="a sealed card" if new_payment else None,
        sale=sale,
        fingerprint={"amount": "f1"},
        request_id="req_1",
        traceparent=None,
        reply_to=None,
        accepted_at=NOON,
    )


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A payment, its operations in order of acceptance, and the attempt that is at the bank."""

    payment: Payment
    operations: tuple[Operation, ...]
    now: datetime = NOON
    at_bank: Operation | None = None
    patience: RetryPolicy = PATIENCE
    attempts: tuple[tuple[datetime, Operation], ...] = ()  # when each was made
    told: tuple[tuple[Chained, str], ...] = ()
    steps: tuple[ChangeSet, ...] = ()
    accepted: int = 1

    @property
    def decider(self) -> Decider:
        return Decider(self.patience, JOURNAL, random.Random(7))

    @property
    def events(self) -> list[str]:
        return [str(chained.entry.event) for chained, _ in self.told]

    def operation(self, verb: Verb) -> Operation:
        """The newest operation of this verb."""
        return [known for known in self.operations if known.verb is verb][-1]

    @property
    def head(self) -> Operation | None:
        return next((known for known in self.operations if known.status in UNSETTLED), None)

    def accept(self, verb: Verb, key: str = "next", *, sale: bool = False) -> Desk:
        """One more command, begun at once when nothing is before it, journaled when something rests before it."""
        command = a_command(verb, key, sale=sale)
        operation = new_operation(command, self.payment, self.accepted + 1, self.now)
        desk = replace(self, operations=(*self.operations, operation), accepted=self.accepted + 1)
        if desk.at_bank is None and desk.head is not operation:
            desk = desk.commit(self.decider.queue(desk.payment, [operation]))
        return desk.go_on()

    def go_on(self) -> Desk:
        """Begin what is first, unless it rests."""
        head = self.head
        if self.at_bank is not None or head is None or head.attempts or head.status is Status.REVIEW:
            return self
        if head.next_attempt_at is not None and head.next_attempt_at > self.now:
            return self
        return self.commit(self.decider.admit(self.payment, head, self.now)).go_on()

    def answer(self, answer: Answer | Callable[[Operation], Answer]) -> Desk:
        """The bank says something to the attempt under way; what is asked again in hand is asked again."""
        operation = self.at_bank
        assert operation is not None
        said = answer(operation) if callable(answer) else answer
        history = [other for other in self.operations if other.id != operation.id]
        verdict = self.decider.conclude(self.payment, operation, history, said, self.now)
        desk = replace(self, at_bank=None)
        over = not isinstance(said, NoAnswer) or said.over
        earliest = self.now if over or operation.deadline is None else operation.deadline
        if isinstance(verdict, RetryAt):
            assert verdict.at >= earliest, "attempts never overlap at the bank (I7)"
            desk = replace(desk, now=verdict.at)
            return desk.commit(desk.decider.attempt(desk.payment, verdict.operation, desk.now, lost=False)).go_on()
        for parked in verdict.operations:
            assert parked.next_attempt_at is None or parked.next_attempt_at >= earliest, "nor after parking (I7)"
        return desk.commit(verdict).go_on()

    def holding(self, operation: Operation) -> Desk:
        """With another version of one operation, as if it had become so by and by."""
        operations = tuple(operation if known.id == operation.id else known for known in self.operations)
        return replace(self, operations=operations)

    def act(self, kind: PaymentActionKind, operation: Operation, proof: Proof | None = None, **detail: object) -> Desk:
        """An operator's act, carried out when no attempt can be at the bank any more. Unless told otherwise, an id that
        it names is nobody else's, and the bank shows it as it should be."""
        assert self.at_bank is None, "acts wait for what is under way"
        act = WaitingAction(id=1, kind=kind, operation=operation.id, actor="ada", reason="the statement", detail=detail)
        now = max(self.now, operation.deadline or self.now)
        claim = claim_of(act, self.operations)
        if claim is not None and proof is None:
            proof = a_proof(claim.verb, claim.reference, self.payment)
        step = carry_out(self.decider, self.payment, self.operations, act, now, proof)
        return replace(self, now=now).commit(step).go_on()

    @property
    def result(self) -> str:
        """What became of the last act."""
        return [done.result for step in self.steps for done in step.acts][-1]

    def expires(self) -> Desk:
        """Time passes until nobody can capture it any more; then the sweeper finds it."""
        assert self.head is None and self.payment.at.expires_at is not None
        now = self.payment.at.expires_at + self.patience.expiry_grace
        assert not self.decider.overdue(self.payment, now - timedelta(microseconds=1))
        if not self.decider.overdue(self.payment, now):
            return replace(self, now=now)
        return replace(self, now=now).commit(self.decider.expire(self.payment, self.operations[-1], now))

    def nears_expiry(self, left: timedelta) -> Desk:
        """Time passes until only so much is left of its authorization; then the sweeper finds it."""
        assert self.payment.at.expires_at is not None
        now = self.payment.at.expires_at - left
        if not self.decider.expiring(self.payment, now):
            return replace(self, now=now)
        return replace(self, now=now).commit(self.decider.notify_expiring(self.payment, self.operations[-1], now))

    def later(self, moment: datetime | None = None) -> Desk:
        """Time passes: until the parked operation is due, or until `moment`; then the sweeper finds it."""
        head = self.head
        assert head is not None and head.next_attempt_at is not None
        now = max(moment or head.next_attempt_at, head.next_attempt_at)
        return replace(self, now=now)._try_again(head, lost=False)

    def lost_by_its_owner(self) -> Desk:
        """The worker dies with an attempt under way; the next one waits for its deadline and asks again."""
        assert self.at_bank is not None and self.at_bank.deadline is not None
        committed = next(known for known in self.operations if known.id == self.at_bank.id)
        return replace(self, at_bank=None, now=self.at_bank.deadline)._try_again(committed, lost=True)

    def _try_again(self, operation: Operation, *, lost: bool) -> Desk:
        if not operation.attempts:
            return self.go_on()
        return self.commit(self.decider.attempt(self.payment, operation, self.now, lost=lost)).go_on()

    def commit(self, step: ChangeSet) -> Desk:
        """What the ledger does, and what its constraints and the invariants ask of a step."""
        check(self, step)
        news = {operation.id: operation for operation in step.operations}
        operations = [news.pop(known.id, known) for known in self.operations] + list(news.values())
        operations.sort(key=lambda operation: (operation.accept_order, operation.created_at))
        attempts = self.attempts if step.then is None else (*self.attempts, (self.now, step.then))
        return replace(
            self,
            payment=step.payment,
            operations=tuple(operations),
            at_bank=step.then,
            attempts=attempts,
            told=self.told + step.events,
            steps=(*self.steps, step),
        )


def a_proof(verb: Verb, claimed: str, payment: Payment, *, by_hand: bool = True, **shown: object) -> Proof:
    """Of an id that is nobody else's, and that the bank shows as this payment's, but for what is said otherwise."""
    parents = {Verb.CAPTURE: payment.bank.authorization_id, Verb.REFUND: payment.bank.capture_id}
    usual = Found(reference=claimed, amount=AMOUNT, currency="USD", parent=parents.get(verb), at=NOON)
    return Proof(finding=replace(usual, **shown), taken_by=None, by_hand=by_hand)  # type: ignore[arg-type]


def a_payment_begun(*, sale: bool = False, patience: RetryPolicy = PATIENCE) -> Desk:
    """Its authorize is committed and on its way to the bank."""
    command = a_command(Verb.AUTHORIZE, "first", sale=sale)
    payment, operation = new_payment(command, partition_of(command.payment, 16), 1, NOON)
    return Desk(payment=payment, operations=(operation,), patience=patience).go_on()


def an_authorized_payment(*, patience: RetryPolicy = PATIENCE) -> Desk:
    return a_payment_begun(patience=patience).answer(approved)


def a_captured_payment(*, patience: RetryPolicy = PATIENCE) -> Desk:
    return an_authorized_payment(patience=patience).accept(Verb.CAPTURE, "capture").answer(approved)


def check(desk: Desk, step: ChangeSet) -> None:
    """Everything that must hold of a step, whatever led to it."""
    before, after = desk.payment, step.payment
    assert after.version == before.version + 1
    assert (after.id, after.terms, after.partition) == (before.id, before.terms, before.partition)
    _check_journal(desk, step)
    _check_receipt(before, after)
    known = {operation.id: operation for operation in desk.operations}
    for operation in step.operations:
        _check_operation(known.get(operation.id), operation, by_a_person=bool(step.acts))
    final = {**known, **{operation.id: operation for operation in step.operations}}
    successes = [operation.verb for operation in final.values() if operation.status is Status.SUCCEEDED]
    assert len(successes) == len(set(successes)), "one effect per kind and payment (I5)"
    if step.then is not None:
        assert step.then in step.operations, "no attempt that the same commit does not hold (I1)"
        assert step.then.attempts == (known[step.then.id].attempts if step.then.id in known else 0) + 1
        assert step.then.send_by is not None and step.then.send_by > desk.now
        assert not [other for other in final.values() if other.status is Status.SENT and other.id != step.then.id]


def _check_journal(desk: Desk, step: ChangeSet) -> None:
    """Gapless, chained, in the words of the table, verifiable from what is stored (I8)."""
    state, sequence, head = desk.payment.state, desk.payment.sequence, desk.payment.journal_head
    for chained, body in step.events:
        entry = chained.entry
        sequence += 1
        assert entry.sequence == sequence
        assert entry.from_state == (None if sequence == 1 else state)
        assert TRANSITIONS[state, entry.event][0] is entry.to_state
        stored = changed(entry, evidence=orjson.loads(orjson.dumps(entry.evidence)))
        assert JOURNAL.chain(head, stored).mac == chained.mac
        event = orjson.loads(body)
        assert (event["type"], event["sequence"]) == (f"payment.{entry.event}", sequence)
        assert event["data"]["status"] == entry.to_state
        assert event["data"]["sequence"] == sequence
        state, head = entry.to_state, chained.mac
    assert (step.payment.state, step.payment.sequence, step.payment.journal_head) == (state, sequence, head)


def _check_receipt(before: Payment, after: Payment) -> None:
    assert 0 <= after.amount_refunded <= after.amount_captured <= AMOUNT
    if before.state in TERMINAL:
        assert after.state is before.state, "terminal states stay"
        # Only the hold of an authorization that the bank called expired may be told of afterwards, and a corrected id.
        assert after.sequence == before.sequence or before.state is PaymentState.EXPIRED or after.bank != before.bank
    if after.state in (
        PaymentState.AUTHORIZED,
        PaymentState.CAPTURED,
        PaymentState.REFUNDED,
        PaymentState.VOIDED,
        PaymentState.EXPIRED,
    ):
        assert after.bank.authorization_id and after.at.authorized_at
    if after.state in (PaymentState.CAPTURED, PaymentState.REFUNDED):
        assert after.amount_captured == AMOUNT and after.at.captured_at and after.bank.capture_id
    if after.state is PaymentState.REFUNDED:
        assert after.amount_refunded == AMOUNT and after.at.refunded_at
    if after.state is PaymentState.VOIDED:
        assert after.at.voided_at
    if after.state in (PaymentState.DECLINED, PaymentState.FAILED):
        assert after.failure is not None and (after.at.declined_at or after.at.failed_at)


def _check_operation(before: Operation | None, after: Operation, *, by_a_person: bool) -> None:
    if before is not None:
        assert before.settled_at is None, "an answer once given is never touched (I6)"
        mine = before.status is not Status.REVIEW or after.attempts == before.attempts
        assert mine or by_a_person, "what is in review is a person's, not the engine's"
        for name in ("id", "bank_key", "verb", "key", "parent", "amount", "accept_order", "created_at"):
            assert getattr(before, name) == getattr(after, name), name
        held_back = before.attempts - 1 if after.next_attempt_at is not None else before.attempts
        assert after.attempts >= held_back, "only an attempt that was never sent does not count"
        assert before.doubted_at is None or after.doubted_at == before.doubted_at
        assert before.status is not Status.IN_DOUBT or after.status is not Status.ACCEPTED
    assert after.bank_key == after.id
    assert (after.response_status is None) == (after.response_body is None)
    if after.status is Status.SENT:
        assert after.attempts and after.send_by and after.deadline and after.deadline > after.send_by
    if after.status in UNSETTLED:
        assert after.settled_at is None and after.response_status is None
    if after.status in UNSETTLED - {Status.REVIEW}:
        assert after.verb is not Verb.AUTHORIZE or after.sealed, "an attempt needs its card"
    elif after.status is not Status.REVIEW or after.doubted_at is not None:
        assert after.sealed is None, "no card outlives the answer, or the last attempt that the bank may have seen (I9)"
    if after.settled_at is not None:
        assert after.status not in UNSETTLED
        if system_operation_of(after) is None:
            assert after.response_status in (200, 201, 402, 409)
            assert after.response_body and isinstance(orjson.loads(after.response_body), dict)
