"""What an operator asks of one operation, retry, resolve or correct: when the rules allow it, and the step it becomes.

An act waits in the audit trail until the payment's actor, its only writer (I2), carries it out; its result is written
in the commit of what it did. A refused act changes nothing and says why, in words for the person who asked.

A person may mistype: an id of the bank's is believed only with a Proof, which the actor fetches before it asks these
rules: no other receipt has the id, and the bank shows it with the amount, and of the hold or capture, that was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as dataclass_replace
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from engine.domain import timestamp
from engine.domain.bank_answer import Absent, Approved, Finding, Found, NoAnswer, Refusal, Refused, Unsearchable
from engine.domain.changeset import ActionResult, ChangeSet, RetryAt
from engine.domain.decision import Decider
from engine.domain.lifecycle import allowed
from engine.domain.payment import UNSETTLED, Operation, Payment, PaymentState, Status, Verb

_WORD_MAX = 128  # characters of a bank's id; the longest known has 41


class PaymentActionKind(StrEnum):
    RETRY = "retry"  # ask the bank again, now, with the same bank key
    RESOLVE = "resolve"  # say what the bank's own statement says
    CORRECT = "correct"  # say another id of the bank's than an operator said before


class WaitingAction(Struct, frozen=True, kw_only=True):
    """One row of the audit trail that waits to be carried out."""

    id: int
    kind: PaymentActionKind
    operation: str
    actor: str
    reason: str
    detail: Mapping[str, object]


class Claim(Struct, frozen=True, kw_only=True):
    """What an act says that the bank did: this, under this id of the bank's."""

    verb: Verb
    reference: str


class Proof(Struct, frozen=True, kw_only=True):
    """What was found out about a claim before the rules are asked.

    `taken_by` names the receipt or the act that has the id already; `by_hand`: the operation's present id is an
    operator's word.
    """

    finding: Finding
    taken_by: str | None
    by_hand: bool


class NotAllowed(Exception):
    """The rules refuse the act. The text says why."""


EVERY, RESTING = frozenset(Verb), UNSETTLED - {Status.SENT}
_CARD_GONE = "its card is gone and the bank may hold the money: look in the bank's statement, and resolve it"
_KEY_GONE = "it was asked too often, or too long ago for its bank key: look in the bank's statement, and resolve it"
_UNASKED = "the bank has not been asked for it, so no statement of the bank can show it"
_GIVEN = "the bank itself gave this id: only one that an operator gave can be corrected"

# The first row that fits decides; the one about cards fits where the card is gone, that is where the bank may have seen
# it. A capture, void or refund may be asked for again however late: the bank's own rows keep it from doing one twice.
# fmt: off
RULES: Sequence[tuple[PaymentActionKind, frozenset[Status], frozenset[Verb], str | None]] = (
    # act          the operation is              for a                         why not
    (PaymentActionKind.RETRY,   frozenset({Status.REVIEW}),   frozenset({Verb.AUTHORIZE}),  _CARD_GONE),
    (PaymentActionKind.RETRY,   RESTING,                      EVERY,                        None),
    (PaymentActionKind.RESOLVE, RESTING,                      EVERY,                        None),
)
# fmt: on


# The states in which nothing is built on what an operation of this verb did.
_LAST: Mapping[Verb, frozenset[PaymentState]] = {
    Verb.AUTHORIZE: frozenset({PaymentState.AUTHORIZED}),
    Verb.CAPTURE: frozenset({PaymentState.CAPTURED}),
    Verb.VOID: frozenset({PaymentState.VOIDED, PaymentState.EXPIRED}),
    Verb.REFUND: frozenset({PaymentState.REFUNDED}),
}
_ENDED_WITHOUT = frozenset({Status.DECLINED, Status.REJECTED, Status.FAILED})


def claim_of(act: WaitingAction, operations: Sequence[Operation]) -> Claim | None:
    """What must be proven before this act can be judged; None where it claims nothing that could be."""
    operation = next((known for known in operations if known.id == act.operation), None)
    try:
        reference = _word(act.detail, "reference")
    except NotAllowed:
        return None
    outcome = act.detail.get("outcome")
    if (
        operation is None
        or reference is None
        or not (act.kind is PaymentActionKind.CORRECT or outcome in ("approved", "captured"))
    ):
        return None
    verb = Verb.CAPTURE if act.kind is PaymentActionKind.RESOLVE and outcome == "captured" else operation.verb
    return Claim(verb=verb, reference=reference)


def carry_out(
    decider: Decider,
    payment: Payment,
    operations: Sequence[Operation],
    act: WaitingAction,
    now: datetime,
    proof: Proof | None = None,
) -> ChangeSet:
    """The step with the act's result in it. `operations`: unsettled or ever sent, in accept order. `proof` is of the
    act's claim, if it makes one."""
    try:
        if act.kind is PaymentActionKind.CORRECT:
            step, result = _correction(decider, payment, operations, act, now, proof)
        else:
            operation = _subject(act, operations)
            step = _step(decider, payment, operations, operation, act, now, proof)
            changed = next(known for known in step.operations if known.id == operation.id)
            result = f"carried out: the {changed.verb} is {changed.status}, attempt {changed.attempts}"
    except NotAllowed as refusal:
        step, result = decider.queue(payment, ()), f"refused: {refusal}"
    return replace(step, acts=(ActionResult(id=act.id, result=result, done_at=now),))


def declined(decider: Decider, payment: Payment, act: WaitingAction, why: str, now: datetime) -> ChangeSet:
    """Nothing but the act's refusal."""
    return replace(decider.queue(payment, ()), acts=(ActionResult(id=act.id, result=f"refused: {why}", done_at=now),))


def _subject(act: WaitingAction, operations: Sequence[Operation]) -> Operation:
    """The operation, if this may be done to it."""
    operation = next((known for known in operations if known.id == act.operation), None)
    if operation is None:
        raise NotAllowed("the payment has no such operation, or the bank was never asked for it")
    if operation.status not in UNSETTLED:
        raise NotAllowed(f"the {operation.verb} is {operation.status} already")
    head = next(known for known in operations if known.status in UNSETTLED)
    if head.id != operation.id:
        raise NotAllowed(f"the {operation.verb} waits behind the {head.verb} {head.id}, which is {head.status}")
    for kind, statuses, verbs, why_not in RULES:
        if kind is act.kind and operation.status in statuses and operation.verb in verbs:
            if why_not is _CARD_GONE and operation.sealed is not None:
                continue
            if why_not is not None:
                raise NotAllowed(why_not)
            return operation
    raise NotAllowed(f"the {operation.verb} is at the bank just now")


def _step(
    decider: Decider,
    payment: Payment,
    operations: Sequence[Operation],
    operation: Operation,
    act: WaitingAction,
    now: datetime,
    proof: Proof | None,
) -> ChangeSet:
    if act.kind is PaymentActionKind.RETRY:
        if operation.verb is Verb.AUTHORIZE and decider.retries_exhausted(operation, now):
            raise NotAllowed(_KEY_GONE)
        return decider.force_attempt(payment, operation, now)
    others = [other for other in operations if other.id != operation.id]
    if act.detail.get("outcome") == "captured":
        return _taken(decider, payment, operation, others, act, now, proof)
    answer = _answer(act, payment, operation, proof)
    if operation.attempts == 0 and not allowed(payment.state, operation.verb):
        return decider.admit(payment, operation, now)  # given up before the table was asked: its word, then
    step = decider.conclude(payment, operation, others, answer, now)
    if isinstance(step, RetryAt):
        raise NotAllowed("that is no end of it")
    return step


def _answer(act: WaitingAction, payment: Payment, operation: Operation, proof: Proof | None) -> Approved | Refused:
    """What the operator found, as the bank would have said it."""
    match act.detail.get("outcome"):
        case "refused":
            message = "not done, says the bank's statement"
            return Refused(reason=Refusal.RESOLVED, code="resolved", message=message, evidence=_evidence(act))
        case "approved" if operation.attempts == 0 or operation.status is Status.ACCEPTED:
            raise NotAllowed(_UNASKED)
        case "approved":
            return _proven(act, operation.verb, payment, operation, proof)
    raise NotAllowed('the outcome is "approved", "refused" or, of a release, "captured"')


def _taken(
    decider: Decider,
    payment: Payment,
    operation: Operation,
    others: Sequence[Operation],
    act: WaitingAction,
    now: datetime,
    proof: Proof | None,
) -> ChangeSet:
    """The hold was captured, and not by this payment's own capture."""
    if operation.verb is not Verb.VOID:
        raise NotAllowed('only the release of a hold ends as "captured": resolve it as approved or refused')
    if payment.state is not PaymentState.AUTHORIZED:
        raise NotAllowed(f"the payment is {payment.state} already: resolve it as refused, the hold was not released")
    return decider.taken(payment, operation, others, _proven(act, Verb.CAPTURE, payment, operation, proof), now)


def _correction(
    decider: Decider,
    payment: Payment,
    operations: Sequence[Operation],
    act: WaitingAction,
    now: datetime,
    proof: Proof | None,
) -> tuple[ChangeSet, str]:
    """Another id of the bank's instead of the one that an operator gave, while nothing is built on that."""
    operation = next((known for known in operations if known.id == act.operation), None)
    if operation is None:
        raise NotAllowed("the payment has no such operation, or the bank was never asked for it")
    if operation.status is not Status.SUCCEEDED:
        raise NotAllowed(f"the {operation.verb} is {operation.status}: there is no id of it to correct")
    if proof is None or not proof.by_hand:
        raise NotAllowed(_GIVEN)
    if payment.state not in _LAST[operation.verb]:
        raise NotAllowed(f"the payment is {payment.state}: something is built on this {operation.verb}")
    for later in operations[operations.index(operation) + 1 :]:
        if later.attempts and later.status not in _ENDED_WITHOUT:
            raise NotAllowed(f"the {later.verb} {later.id}, which is {later.status}, is built on it")
    answer = _proven(act, operation.verb, payment, operation, proof)
    step = decider.correct(payment, operation, answer, now)
    return step, f"carried out: the bank's id of the {operation.verb} is {answer.reference}"


def _proven(act: WaitingAction, verb: Verb, payment: Payment, operation: Operation, proof: Proof | None) -> Approved:
    """The bank's approval, as the operator claims it and as it was found to be."""
    reference = _word(act.detail, "reference")
    said = Approved(
        reference=reference,
        at=_moment(act.detail, "bank_at"),
        expires_at=_moment(act.detail, "expires_at") if verb is Verb.AUTHORIZE else None,
        auth_code=_word(act.detail, "auth_code"),
        evidence=_evidence(act),
    )
    if reference is None:
        if verb is Verb.VOID and act.kind is PaymentActionKind.RESOLVE:
            return said
        raise NotAllowed(f"the bank's id of the {verb} is needed as reference")
    if proof is None:
        raise NotAllowed(f"nobody has asked the bank about {reference}")
    if proof.taken_by is not None:
        raise NotAllowed(f"{reference} is taken: {proof.taken_by} has it")
    match proof.finding:
        case Absent(reason=reason):
            raise NotAllowed(f"{reference} is no {verb} at the bank: {reason}. Look into its statement again")
        case NoAnswer(reason=reason):
            raise NotAllowed(f"{reference} cannot be looked up just now, {reason}: nothing has changed, try again")
        case Unsearchable(reason=reason):
            return _with(said, {"look_up": f"not possible: {reason}"})
        case Found() as found:
            _compare(found, reference, verb, payment, operation)
            shown = {"amount": found.amount, "currency": found.currency, "of": found.parent, "at": found.at}
            # The bank's own times win over what was typed.
            said = dataclass_replace(said, at=found.at or said.at, expires_at=found.expires_at or said.expires_at)
            return _with(said, {"look_up": {"reference": found.reference, **shown, "expires_at": found.expires_at}})


def _compare(found: Found, reference: str, verb: Verb, payment: Payment, operation: Operation) -> None:
    """Raises NotAllowed where the bank shows something else than this operation asked for."""
    if found.reference != reference:
        raise NotAllowed(f"the bank writes this id as {found.reference}: give it so")
    parents = {Verb.CAPTURE: payment.bank.authorization_id, Verb.REFUND: payment.bank.capture_id}
    money, currency = operation.amount, payment.terms.money.currency
    if (found.amount, found.currency) != (money, currency):
        shown = f"{found.amount} {found.currency}"
        raise NotAllowed(f"the bank's {reference} is of {shown}, and this {verb} of {money} {currency}")
    if verb in parents and found.parent != parents[verb]:
        raise NotAllowed(f"the bank's {reference} is of {found.parent}, and this payment's is {parents[verb]}")


def _evidence(act: WaitingAction) -> dict[str, object]:
    return {"act": {"id": act.id, "actor": act.actor, "reason": act.reason}}


def _with(said: Approved, more: Mapping[str, object]) -> Approved:
    return dataclass_replace(said, evidence={**said.evidence, **more})


def _word(detail: Mapping[str, object], name: str) -> str | None:
    text = detail.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip() or len(text) > _WORD_MAX or not text.isprintable():
        raise NotAllowed(f"{name} has 1 to {_WORD_MAX} printable characters")
    return text


def _moment(detail: Mapping[str, object], name: str) -> datetime | None:
    text = detail.get(name)
    if text is None:
        return None
    try:
        return timestamp.parse(text)
    except ValueError as wrong:
        raise NotAllowed(f"{name} must be {wrong}") from None
