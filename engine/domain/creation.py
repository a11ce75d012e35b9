"""A payment and its operations as they begin: from a command, before anything was decided or committed about them."""

from __future__ import annotations

from datetime import datetime

from engine.domain.command import Command
from engine.domain.payment import BankIds, Operation, Payment, PaymentState, Status, Times


def new_payment(command: Command, partition: int, accept_order: int, now: datetime) -> tuple[Payment, Operation]:
    """A new payment and its authorize."""
    if command.terms is None:
        raise ValueError("an authorize carries the terms of its payment")
    payment = Payment(
        id=command.payment,
        partition=partition,
        terms=command.terms,
        state=PaymentState.PENDING,
        version=0,
        sequence=0,
        amount_captured=0,
        amount_refunded=0,
        bank=BankIds(),
        at=Times(created_at=command.accepted_at),
        failure=None,
        operation_id=command.operation,
        journal_head="",
    )
    return payment, new_operation(command, payment, accept_order, now)


def new_operation(command: Command, payment: Payment, accept_order: int, now: datetime) -> Operation:
    """The operation a command asks for."""
    return Operation(
        id=command.operation,
        payment=payment.id,
        merchant=command.merchant,
        partition=payment.partition,
        verb=command.verb,
        key=command.key,
        parent=None,
        sale=command.sale,
        amount=payment.terms.money.amount if command.amount is None else command.amount,
        fingerprint=command.fingerprint,
        accept_order=accept_order,
        status=Status.ACCEPTED,
        attempts=0,
        first_sent_at=None,
        send_by=None,
        deadline=None,
        next_attempt_at=None,
        doubted_at=None,
        sealed=command.sealed,
        request_id=command.request_id,
        traceparent=command.traceparent,
        failure=None,
        response_status=None,
        response_body=None,
        created_at=now,
        settled_at=None,
    )
