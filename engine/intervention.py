"""What an operator asks of one operation, retry or resolve: when the rules allow it, and the step that it becomes.

An act waits in the audit trail until the payment's actor, its only writer (I2), carries it out; its result is written
in the commit of what it did. A refused act changes nothing and says why, in words for the person who asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from engine.decision import Decider
from engine.lifecycle import allowed
from engine.outcome import Approved, Refusal, Refused
from engine.payment import UNSETTLED, Operation, Payment, Status, Verb
from engine.step import ActDone, Again, Step

_WORD_MAX = 128  # characters of a bank's id; the longest known has 41


class Kind(StrEnum):
    RETRY = "retry"  # ask the bank again, now, with the same bank key
    RESOLVE = "resolve"  # say what the bank's own statement says


class Intervention(Struct, frozen=True, kw_only=True):
    """One row of the audit trail that waits to be carried out."""

    id: int
    kind: Kind
    operation: str
    actor: str
    reason: str
    detail: Mapping[str, object]


class NotAllowed(Exception):
    """The rules refuse the act. The text says why."""


EVERY, RESTING = frozenset(Verb), UNSETTLED - {Status.SENT}
_CARD_GONE = "its card is gone and the bank may hold the money: look in the bank's statement, and resolve it"
_KEY_GONE = "it was asked too often, or too long ago for its bank key: look in the bank's statement, and resolve it"
_UNASKED = "the bank has not been asked for it, so no statement of the bank can show it"

# The first row that fits decides; the one about cards fits where the card is gone, that is where the bank may have seen
# it. A capture, void or refund may be asked for again however late: the bank's own rows keep it from doing one twice.
# fmt: off
RULES: Sequence[tuple[Kind, frozenset[Status], frozenset[Verb], str | None]] = (
    # act          the operation is              for a                         why not
    (Kind.RETRY,   frozenset({Status.REVIEW}),   frozenset({Verb.AUTHORIZE}),  _CARD_GONE),
    (Kind.RETRY,   RESTING,                      EVERY,                        None),
    (Kind.RESOLVE, RESTING,                      EVERY,                        None),
)
# fmt: on


def carry_out(
    decider: Decider, payment: Payment, operations: Sequence[Operation], act: Intervention, now: datetime
) -> Step:
    """The step with the act's result in it. `operations`: unsettled or ever sent, in accept order."""
    try:
        operation = _subject(act, operations)
        step = _step(decider, payment, operations, operation, act, now)
        changed = next(known for known in step.operations if known.id == operation.id)
        result = f"carried out: the {changed.verb} is {changed.status}, attempt {changed.attempts}"
    except NotAllowed as refusal:
        step, result = decider.queue(payment, ()), f"refused: {refusal}"
    return replace(step, acts=(ActDone(id=act.id, result=result, done_at=now),))


def declined(decider: Decider, payment: Payment, act: Intervention, why: str, now: datetime) -> Step:
    """Nothing but the act's refusal."""
    return replace(decider.queue(payment, ()), acts=(ActDone(id=act.id, result=f"refused: {why}", done_at=now),))


def _subject(act: Intervention, operations: Sequence[Operation]) -> Operation:
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
    act: Intervention,
    now: datetime,
) -> Step:
    if act.kind is Kind.RETRY:
        if operation.verb is Verb.AUTHORIZE and decider.spent(operation, now):
            raise NotAllowed(_KEY_GONE)
        return decider.insist(payment, operation, now)
    answer = _answer(act, operation)
    if operation.attempts == 0 and not allowed(payment.state, operation.verb):
        return decider.admit(payment, operation, now)  # given up before the table was asked: its word, then
    others = [other for other in operations if other.id != operation.id]
    step = decider.conclude(payment, operation, others, answer, now)
    if isinstance(step, Again):
        raise NotAllowed("that is no end of it")
    return step


def _answer(act: Intervention, operation: Operation) -> Approved | Refused:
    """What the operator found, as the bank would have said it."""
    evidence: dict[str, object] = {"act": {"id": act.id, "actor": act.actor, "reason": act.reason}}
    match act.detail.get("outcome"):
        case "refused":
            message = "not done, says the bank's statement"
            return Refused(reason=Refusal.RESOLVED, code="resolved", message=message, evidence=evidence)
        case "approved" if operation.attempts == 0 or operation.status is Status.ACCEPTED:
            raise NotAllowed(_UNASKED)
        case "approved":
            reference = _word(act.detail, "reference")
            if reference is None and operation.verb is not Verb.VOID:
                raise NotAllowed(f"the bank's id of the {operation.verb} is needed as reference")
            return Approved(
                reference=reference,
                at=_moment(act.detail, "bank_at"),
                expires_at=_moment(act.detail, "expires_at") if operation.verb is Verb.AUTHORIZE else None,
                auth_code=_word(act.detail, "auth_code"),
                evidence=evidence,
            )
    raise NotAllowed('the outcome is "approved" or "refused"')


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
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise NotAllowed(f"{name} is a time with its offset, such as 2030-01-31T12:00:00Z")
    return moment
