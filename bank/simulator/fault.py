"""Faults on request: rules that make the bank misbehave in a chosen way, once, n times or always.

Rules of the first kind act before the effect; those of the second kind only on a request that has had its effect, so
a declined request does not use them up. A rule may be narrowed to one operation or one card.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from starlette.types import Scope

SCOPE_KEY = "penstock.faults"


class FaultOperation(StrEnum):
    """What the bank can be asked to do."""

    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class FaultKind(StrEnum):
    """What can go wrong on request."""

    FAIL_BEFORE = "fail_before"  # 500, and nothing happened.
    LATENCY = "latency"  # So many more milliseconds before anything happens.
    CLOCK_OFFSET = "clock_offset"  # The clock is so many seconds ahead.
    DROP_RESPONSE = "drop_response"  # The effect, the key kept, and the connection closed without an answer.
    DROP_KEY = "drop_key"  # The effect and its answer, but the key is forgotten.
    DROP_KEY_AND_RESPONSE = "drop_key_and_response"
    INTERNAL_ERROR_AFTER = "internal_error_after"  # The effect, answered 400 internal_error, the key not kept.
    UNREADABLE_ANSWER = "unreadable_answer"  # The effect, the key kept, and half of the 200's body on the wire.
    MISMATCHED_ANSWER = "mismatched_answer"  # The effect, and a 200, also under its key, that tells of something else.


BEFORE = frozenset({FaultKind.FAIL_BEFORE, FaultKind.LATENCY, FaultKind.CLOCK_OFFSET})
AFTER = frozenset(FaultKind) - BEFORE


@dataclass(slots=True, kw_only=True)
class Rule:
    """One fault in force. `times` counts down to 0, at which the rule is gone; None is always."""

    id: int
    kind: FaultKind
    operation: FaultOperation | None
    card_number: str | None
    times: int | None
    latency_ms: int = 0
    clock_offset_s: int = 0

    def matches(self, operation: FaultOperation, card_number: str | None) -> bool:
        """Whether the rule is about such a request."""
        return self.operation in (None, operation) and self.card_number in (None, card_number)


class FaultRules:
    """The rules in force, in the order they were added."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.ids = count(1)

    @property
    def asks_for_cards(self) -> bool:
        """Whether any rule needs to know the card behind a capture, void or refund."""
        return any(rule.card_number is not None for rule in self.rules)

    def take(self, kinds: frozenset[FaultKind], operation: FaultOperation, card_number: str | None) -> list[Rule]:
        """The rules of these kinds that act on this request, each used once more."""
        taken = [rule for rule in self.rules if rule.kind in kinds and rule.matches(operation, card_number)]
        for rule in taken:
            if rule.times is not None:
                rule.times -= 1
        if taken:
            self.rules = [rule for rule in self.rules if rule.times != 0]
        return taken


def mark_after(scope: Scope, rules: Iterable[Rule]) -> frozenset[FaultKind]:
    """Tell the layers around the handler which faults are theirs to commit on this answer."""
    kinds = frozenset(rule.kind for rule in rules)
    scope[SCOPE_KEY] = kinds
    return kinds


def faults_after(scope: Scope) -> frozenset[FaultKind]:
    """The faults the handler left for this answer."""
    kinds: frozenset[FaultKind] = scope.get(SCOPE_KEY, frozenset())
    return kinds
