"""A breach: one thing that should not be, with the ids that show it; and all that one look found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ops.audit.invariant import BY_NAME, INVARIANTS, Invariant, Weight
from ops.audit.ledger_view import Unsettled


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """`at` is when the thing happened that shows it, as far as anybody knows."""

    invariant: Invariant
    payment: str | None
    operation: str | None
    at: datetime | None
    detail: str


def breach(
    name: str, detail: str, *, payment: str | None = None, operation: str | None = None, at: datetime | None = None
) -> Breach:
    """Of the invariant with this name."""
    return Breach(invariant=BY_NAME[name], payment=payment, operation=operation, at=at, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvariantResult:
    """What stands against one invariant. `more`: there may be more than was asked for."""

    invariant: Invariant
    breaches: tuple[Breach, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One look. `payments` is how many were looked at (None: all), `whole` whether nothing was left for later."""

    at: datetime
    took_s: float
    payments: int | None
    whole: bool
    unsettled: Unsettled
    found: tuple[InvariantResult, ...]

    @property
    def breached(self) -> tuple[InvariantResult, ...]:
        """The promises that do not hold."""
        return tuple(found for found in self.found if found.breaches and found.invariant.weight is Weight.BREACH)


def sorted_out(breaches: Iterable[Breach], looked_for: Iterable[Invariant], limit: int) -> tuple[InvariantResult, ...]:
    """By invariant, in the order of the table, at most `limit` of each."""
    wanted = list(looked_for)
    by_name: dict[str, list[Breach]] = {}
    for each in dict.fromkeys(breaches):
        by_name.setdefault(each.invariant.name, []).append(each)
    return tuple(
        InvariantResult(
            invariant=invariant,
            breaches=tuple(by_name.get(invariant.name, ())[:limit]),
            more=len(by_name.get(invariant.name, ())) >= limit,
        )
        for invariant in INVARIANTS
        if invariant in wanted
    )
