"""A step: everything that one commit writes for one payment, with its journal rows already chained (I8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.journal import Chained, Journal, JournalEntry
from engine.domain.lifecycle import Event, transition
from engine.domain.payment import Operation, Payment
from engine.domain.rendering import render_event, render_payment

JournaledEvent = tuple[Chained, str]
"""A journal row with the body of the event that tells of it."""


class ActionResult(Struct, frozen=True, kw_only=True):
    """What became of an operator's act: written into its row of the audit trail by the commit of what it did."""

    id: int
    result: str
    done_at: datetime


class ChangeSet(Struct, frozen=True, kw_only=True):
    """What one commit writes for one payment. `then` is the operation to ask the bank for next, already in it.

    `inherited`: that repeats an attempt whose owner is gone. Nobody knows of a bank that left it unanswered.
    """

    payment: Payment
    operations: tuple[Operation, ...]
    events: tuple[JournaledEvent, ...] = ()
    opened: bool = False
    then: Operation | None = None
    acts: tuple[ActionResult, ...] = ()
    inherited: bool = False


class RetryAt(Struct, frozen=True, kw_only=True):
    """Ask again with the same bank key, not before `at`."""

    operation: Operation
    at: datetime


class JournalWriter:
    """Changes a payment's state by the table and writes it down in the same breath (I3, I8)."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def journaled(
        self, payment: Payment, shown: Operation, event: Event, now: datetime, evidence: Mapping[str, object]
    ) -> tuple[Payment, JournaledEvent]:
        """The payment after the event, and its journal row with the body of its message; `shown` is in that body."""
        to, _ = transition(payment.state, event)
        entry = JournalEntry(
            payment=payment.id,
            sequence=payment.sequence + 1,
            from_state=None if event is Event.CREATED else payment.state,
            to_state=to,
            event=event,
            operation=shown.id,
            at=now,
            evidence=evidence,
        )
        chained = self._journal.chain(payment.journal_head, entry)
        payment = replace(payment, state=to, sequence=entry.sequence, journal_head=chained.mac)
        return payment, (chained, render_event(entry, render_payment(payment, shown)))
