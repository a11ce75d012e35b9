"""Receipts and operations as rows of the ledger, and back. The only place that knows the columns by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from engine.domain.changeset import ChangeSet
from engine.domain.command import terms_to_json
from engine.domain.money import Money
from engine.domain.operator_rules import PaymentActionKind, WaitingAction
from engine.domain.payment import (
    BankIds,
    DeclineCode,
    Details,
    MaskedCard,
    Operation,
    Payment,
    PaymentFailure,
    PaymentState,
    Status,
    Terms,
    Times,
    Verb,
)
from engine.domain.rendering import failure_document
from engine.errors import Broken

Row = Mapping[str, Any]
Made = TypeVar("Made")


def read(make: Callable[[Row], Made], row: Row) -> Made | Broken:
    """What `make` makes of a row. A row that somebody edited into nonsense is Broken, and alone in it."""
    try:
        return make(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Broken(f"the ledger's row {row['id']} cannot be read: {type(error).__name__}")


def payment_row(step: ChangeSet, write_id: str) -> dict[str, object]:
    """The receipt as the commit wants it; what never changes is left out unless the payment is opened."""
    payment = step.payment
    bank, at = payment.bank, payment.at
    row: dict[str, object] = {
        "id": payment.id,
        "partition": payment.partition,
        "state": payment.state,
        "version": payment.version,
        "sequence": payment.sequence,
        "amount_captured": payment.amount_captured,
        "amount_refunded": payment.amount_refunded,
        "authorization_id": bank.authorization_id,
        "capture_id": bank.capture_id,
        "void_id": bank.void_id,
        "refund_id": bank.refund_id,
        "auth_code": bank.auth_code,
        "failure": failure_document(payment.failure),
        "authorized_at": at.authorized_at,
        "captured_at": at.captured_at,
        "voided_at": at.voided_at,
        "refunded_at": at.refunded_at,
        "declined_at": at.declined_at,
        "failed_at": at.failed_at,
        "expired_at": at.expired_at,
        "expires_at": at.expires_at,
        "expiring_at": at.expiring_at,
        "operation_id": payment.operation_id,
        "journal_head": payment.journal_head,
        "write_id": write_id,
    }
    if step.opened:
        row.update(terms_to_json(payment.terms), merchant=payment.terms.merchant, created_at=at.created_at)
    return row


def is_known(operation: Operation) -> bool:
    """Whether the ledger surely has this operation: an attempt before this step was committed."""
    return operation.attempts > 1 or (operation.attempts == 1 and operation.status is not Status.SENT)


def operation_row(operation: Operation) -> dict[str, object]:
    """The whole row of an operation."""
    return {
        **answered_row(operation),
        "merchant": operation.merchant,
        "partition": operation.partition,
        "verb": operation.verb,
        "key": operation.key,
        "parent": operation.parent,
        "sale": operation.sale,
        "amount": operation.amount,
        "fingerprint": operation.fingerprint,
        "accept_order": operation.accept_order,
        "request_id": operation.request_id,
        "traceparent": operation.traceparent,
        "created_at": operation.created_at,
    }


def answered_row(operation: Operation) -> dict[str, object]:
    """What may change of an operation."""
    body = operation.response_body
    return {
        "id": operation.id,
        "payment": operation.payment,
        "status": operation.status,
        "attempts": operation.attempts,
        "first_sent_at": operation.first_sent_at,
        "send_by": operation.send_by,
        "deadline": operation.deadline,
        "next_attempt_at": operation.next_attempt_at,
        "doubted_at": operation.doubted_at,
        "sealed": operation.sealed,
        "failure": failure_document(operation.failure),
        "response_status": operation.response_status,
        "response_body": None if body is None else body.decode(),
        "settled_at": operation.settled_at,
    }


def entry_rows(step: ChangeSet) -> list[dict[str, object]]:
    """The journal rows of a step, each with its event."""
    return [
        {
            "payment": chained.entry.payment,
            "sequence": chained.entry.sequence,
            "from_state": chained.entry.from_state,
            "to_state": chained.entry.to_state,
            "event": chained.entry.event,
            "operation": chained.entry.operation,
            "at": chained.entry.at,
            "evidence": chained.entry.evidence,
            "mac": chained.mac,
            "event_id": chained.event_id,
            "merchant": step.payment.terms.merchant,
            "payload": payload,
        }
        for chained, payload in step.events
    ]


def payment_of(row: Row) -> Payment:
    return Payment(
        id=row["id"],
        partition=row["partition"],
        terms=Terms(
            merchant=row["merchant"],
            money=Money(amount=row["amount"], currency=row["currency"]),
            method=MaskedCard(**row["method"]),
            connector=row["connector"],
            **{name: row[name] for name in Details.__struct_fields__},
        ),
        state=PaymentState(row["state"]),
        version=row["version"],
        sequence=row["sequence"],
        amount_captured=row["amount_captured"],
        amount_refunded=row["amount_refunded"],
        bank=BankIds(
            authorization_id=row["authorization_id"],
            capture_id=row["capture_id"],
            void_id=row["void_id"],
            refund_id=row["refund_id"],
            auth_code=row["auth_code"],
        ),
        at=Times(
            created_at=row["created_at"],
            authorized_at=row["authorized_at"],
            captured_at=row["captured_at"],
            voided_at=row["voided_at"],
            refunded_at=row["refunded_at"],
            declined_at=row["declined_at"],
            failed_at=row["failed_at"],
            expired_at=row["expired_at"],
            expires_at=row["expires_at"],
            expiring_at=row["expiring_at"],
        ),
        failure=_failure_of(row["failure"]),
        operation_id=row["operation_id"],
        journal_head=row["journal_head"],
    )


def operation_of(row: Row) -> Operation:
    """From a row of the table, or from its JSON inside another row."""
    body = row["response_body"]
    return Operation(
        id=row["id"],
        payment=row["payment"],
        merchant=row["merchant"],
        partition=row["partition"],
        verb=Verb(row["verb"]),
        key=row["key"],
        parent=row["parent"],
        sale=row["sale"],
        amount=row["amount"],
        fingerprint=row["fingerprint"],
        accept_order=row["accept_order"],
        status=Status(row["status"]),
        attempts=row["attempts"],
        first_sent_at=_moment(row["first_sent_at"]),
        send_by=_moment(row["send_by"]),
        deadline=_moment(row["deadline"]),
        next_attempt_at=_moment(row["next_attempt_at"]),
        doubted_at=_moment(row["doubted_at"]),
        sealed=row["sealed"],
        request_id=row["request_id"],
        traceparent=row["traceparent"],
        failure=_failure_of(row["failure"]),
        response_status=row["response_status"],
        response_body=bytes.fromhex(body[2:]) if isinstance(body, str) else body,
        created_at=_moment(row["created_at"]) or datetime.min,
        settled_at=_moment(row["settled_at"]),
    )


def intervention_of(row: Row) -> WaitingAction:
    return WaitingAction(
        id=row["id"],
        kind=PaymentActionKind(row["act"]),
        operation=row["operation"],
        actor=row["actor"],
        reason=row["reason"],
        detail=row["detail"] if isinstance(row["detail"], dict) else {},
    )


def _moment(value: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _failure_of(value: Mapping[str, Any] | None) -> PaymentFailure | None:
    if value is None:
        return None
    code = value["decline_code"]
    return PaymentFailure(
        code=value["code"], message=value["message"], decline_code=None if code is None else DeclineCode(code)
    )
