"""An operator's act: what was asked, why, by whom, and how it ended. Pure; audit_log.py keeps it.

Acts on a payment (retry, resolve, correct) are carried out by the payment's own actor, which finds the row in the
ledger; those on a dead letter by whoever was asked (operator_actions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine.problem import render as render_problem

REFUSED = "refused"  # how the result of an act begins that was not done, followed by why


class ActionKind(StrEnum):
    RETRY = "retry"
    RESOLVE = "resolve"
    CORRECT = "correct"
    REQUEUE = "dead_letter.requeue"
    DROP = "dead_letter.drop"
    RELEASE = "hold.release"


class ActionOrder(Struct, frozen=True, kw_only=True):
    """What an operator asks for. `merchant` and `key`: the scope of the idempotency key, for acts over HTTP."""

    act: ActionKind
    subject: str  # the payment or the dead letter
    reason: str
    actor: str
    detail: Mapping[str, str]
    merchant: str | None = None
    key: str | None = None
    request_id: str | None = None


class OperatorAction(Struct, frozen=True, kw_only=True):
    """A row of the audit. `result` is None until it is known."""

    id: int
    at: datetime
    actor: str
    act: str
    subject: str
    reason: str
    detail: Mapping[str, Any]
    payment: str | None
    operation: str | None
    result: str | None
    done_at: datetime | None
    request_id: str | None

    @property
    def refused(self) -> bool:
        return self.result is not None and self.result.startswith(REFUSED)


def action_document(act: OperatorAction) -> dict[str, object]:
    """An act, as it was asked for and as it ended. `result` is null until it is known."""
    return {
        "object": "act",
        "id": f"act_{act.id}",
        "act": act.act,
        "subject": act.subject,
        "payment_id": act.payment,
        "operation_id": act.operation,
        "reason": act.reason,
        "actor": act.actor,
        "result": act.result,
        "at": act.at,
        "done_at": act.done_at,
    }


def render_refused_act(act: OperatorAction) -> bytes:
    """The problem of an act that was not done: the same bytes under the same key, with the id of the first request."""
    extra = {"act_id": f"act_{act.id}", "operation_id": act.operation, "payment_id": act.payment}
    return render_problem("act_refused", f"The act was {act.result}.", request_id=act.request_id or "", extra=extra)
