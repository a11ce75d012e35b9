"""The public face of a payment: the payment object of API.md, events, and the responses that are stored for ever.

Rendered in one place, by worker and edge alike, so that a GET, a webhook and a replay never disagree. Field order is
fixed; timestamps are RFC 3339 in UTC.
"""

from __future__ import annotations

from datetime import datetime

import orjson

from engine.domain.command import Command, method_to_json
from engine.domain.journal import JournalEntry
from engine.domain.payment import Operation, Payment, PaymentFailure, Status, Terms, Verb
from engine.domain.system_operation import system_operation_of
from engine.errors import FieldError
from engine.problem import render as render_problem

_OPTIONS = orjson.OPT_UTC_Z
_DOUBTFUL = frozenset({Status.IN_DOUBT, Status.REVIEW})


def payment_document(payment: Payment, operation: Operation) -> dict[str, object]:
    """The payment object; `operation` is the one it shows as its latest."""
    terms, bank, at = payment.terms, payment.bank, payment.at
    return {
        "object": "payment",
        "id": payment.id,
        "status": payment.state,
        "in_doubt": operation.status in _DOUBTFUL,
        "amount": terms.money.amount,
        "amount_captured": payment.amount_captured,
        "amount_refunded": payment.amount_refunded,
        "currency": terms.money.currency,
        "order_id": terms.order_id,
        "customer_id": terms.customer_id,
        "description": terms.description,
        "statement_descriptor": terms.statement_descriptor,
        "metadata": terms.metadata,
        "payment_method": method_to_json(terms.method),
        "connector": terms.connector,
        "bank": {
            "authorization_id": bank.authorization_id,
            "capture_id": bank.capture_id,
            "void_id": bank.void_id,
            "refund_id": bank.refund_id,
            "auth_code": bank.auth_code,
        },
        "operation": {
            "id": operation.id,
            "verb": operation.verb,
            "status": operation.status,
            "attempts": operation.attempts,
            "next_attempt_at": operation.next_attempt_at,
        },
        "failure": failure_document(payment.failure),
        "next_action": None,
        "sequence": payment.sequence,
        "created_at": at.created_at,
        "authorized_at": at.authorized_at,
        "captured_at": at.captured_at,
        "voided_at": at.voided_at,
        "refunded_at": at.refunded_at,
        "declined_at": at.declined_at,
        "failed_at": at.failed_at,
        "expired_at": at.expired_at,
        "expires_at": at.expires_at,
    }


def failure_document(failure: PaymentFailure | None) -> dict[str, object] | None:
    if failure is None:
        return None
    return {"code": failure.code, "message": failure.message, "decline_code": failure.decline_code}


def operation_document(operation: Operation) -> dict[str, object]:
    """The operation object of GET /v1/operations."""
    return {
        "object": "operation",
        "id": operation.id,
        "payment_id": operation.payment,
        "verb": operation.verb,
        "status": operation.status,
        "in_doubt": operation.status in _DOUBTFUL,
        "amount": operation.amount,
        "idempotency_key": operation.key if system_operation_of(operation) is None else None,
        "attempts": operation.attempts,
        "first_sent_at": operation.first_sent_at,
        "next_attempt_at": operation.next_attempt_at,
        "failure": failure_document(operation.failure),
        "response_status": operation.response_status,
        "created_at": operation.created_at,
        "settled_at": operation.settled_at,
    }


def render(document: object) -> bytes:
    """JSON bytes of a document, timestamps in UTC with Z."""
    return orjson.dumps(document, option=_OPTIONS)


def render_payment(payment: Payment, operation: Operation) -> bytes:
    return render(payment_document(payment, operation))


def render_event(entry: JournalEntry, payment_body: bytes) -> str:
    """The event body of one journal row: type, timestamp, the payment after it, and its sequence."""
    head = orjson.dumps({"type": f"payment.{entry.event}", "timestamp": entry.at}, option=_OPTIONS)
    return f'{head[:-1].decode()},"data":{payment_body.decode()},"sequence":{entry.sequence}}}'


def render_failure(payment: Payment, operation: Operation, failure: PaymentFailure) -> bytes:
    """The stored problem of an operation that the bank refused (402) or that came too late (409)."""
    extra: dict[str, object] = {"operation_id": operation.id, "payment_id": payment.id, "payment_status": payment.state}
    if failure.decline_code is not None:
        extra["decline_code"] = failure.decline_code
    return render_problem(
        failure.code,
        failure.message,
        request_id=operation.request_id,
        instance=f"/v1/payments/{payment.id}",
        extra=extra,
    )


def render_refusal(payment: Payment, operation: Operation, code: str) -> bytes:
    """The stored 409 of the transition table: names the state and the operation that led there."""
    return render_problem(
        code,
        f"A payment that is {payment.state} cannot be the subject of {operation.verb}.",
        request_id=operation.request_id,
        instance=f"/v1/payments/{payment.id}",
        extra={
            "operation_id": operation.id,
            "payment_id": payment.id,
            "payment_status": payment.state,
            "winning_operation": payment.operation_id,
        },
    )


def render_wrong_amount(payment: Payment, operation: Operation) -> bytes:
    """The stored 422 of a capture, void or refund whose amount is not the payment's."""
    detail = f"This payment is of {payment.terms.money.amount}, and this connector takes the full amount only."
    return render_problem(
        "amount_not_supported",
        detail,
        request_id=operation.request_id,
        instance=f"/v1/payments/{payment.id}",
        errors=(FieldError(pointer="/amount", detail=f"leave it out or send {payment.terms.money.amount}"),),
        extra={"operation_id": operation.id, "payment_id": payment.id, "payment_status": payment.state},
    )


def accepted_document(operation: str, verb: Verb, status: Status = Status.ACCEPTED) -> dict[str, object]:
    """The `operation` member of a payment for one that is accepted and not begun. REVIEW: given up, for a person."""
    return {"id": operation, "verb": verb, "status": status, "attempts": 0, "next_attempt_at": None}


def accepted_operation_document(command: Command, amount: int | None, status: Status) -> dict[str, object]:
    """The operation object of a command that the ledger does not have yet. `amount` is None where nobody can tell."""
    return {
        "object": "operation",
        "id": command.operation,
        "payment_id": command.payment,
        "verb": command.verb,
        "status": status,
        "in_doubt": False,
        "amount": amount,
        "idempotency_key": command.key,
        "attempts": 0,
        "first_sent_at": None,
        "next_attempt_at": None,
        "failure": None,
        "response_status": None,
        "created_at": command.accepted_at,
        "settled_at": None,
    }


def render_pending(payment: str, operation: str, terms: Terms, now: datetime) -> bytes:
    """The payment object of a payment that is accepted and not begun."""
    return render(pending_document(payment, operation, terms, now))


def pending_document(payment: str, operation: str, terms: Terms, now: datetime) -> dict[str, object]:
    return {
        "object": "payment",
        "id": payment,
        "status": "pending",
        "in_doubt": False,
        "amount": terms.money.amount,
        "amount_captured": 0,
        "amount_refunded": 0,
        "currency": terms.money.currency,
        "order_id": terms.order_id,
        "customer_id": terms.customer_id,
        "description": terms.description,
        "statement_descriptor": terms.statement_descriptor,
        "metadata": terms.metadata,
        "payment_method": method_to_json(terms.method),
        "connector": terms.connector,
        "bank": dict.fromkeys(("authorization_id", "capture_id", "void_id", "refund_id", "auth_code")),
        "operation": accepted_document(operation, Verb.AUTHORIZE),
        "failure": None,
        "next_action": None,
        "sequence": 0,
        "created_at": now,
        **dict.fromkeys(
            (
                "authorized_at",
                "captured_at",
                "voided_at",
                "refunded_at",
                "declined_at",
                "failed_at",
                "expired_at",
                "expires_at",
            )
        ),
    }
