"""The payment, its operations and what never changes about it: the nouns of the engine.

A payment is the receipt the shop trusts. An operation is one thing asked of the bank for it (authorize, capture, void,
refund), with one bank key for ever (I1). Whether a payment is in flight is the operation's status, not a payment state.
Pure values; who may change them is lifecycle.py's business, how they are stored is writer.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine.domain.money import Money


class PaymentState(StrEnum):
    PENDING = "pending"
    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    REFUNDED = "refunded"
    VOIDED = "voided"
    DECLINED = "declined"
    FAILED = "failed"
    EXPIRED = "expired"


class Verb(StrEnum):
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class Status(StrEnum):
    """Where an operation stands. The first three and REVIEW are unsettled: the client has no final answer yet."""

    ACCEPTED = "accepted"  # journaled or on its way to be; no attempt may have reached the bank
    SENT = "sent"  # an attempt is committed and may be at the bank right now
    IN_DOUBT = "in_doubt"  # an attempt went unanswered; asked again with the same key
    REVIEW = "review"  # only a person can tell what happened
    SUCCEEDED = "succeeded"
    DECLINED = "declined"  # the bank's word about the card
    REJECTED = "rejected"  # refused by our own table, no bank call
    FAILED = "failed"  # the bank refused for another reason, or our own mistake


UNSETTLED = frozenset({Status.ACCEPTED, Status.SENT, Status.IN_DOUBT, Status.REVIEW})


class DeclineCode(StrEnum):
    INSUFFICIENT_FUNDS = "insufficient_funds"
    CARD_EXPIRED = "card_expired"
    INVALID_CARD = "invalid_card"
    INVALID_CVV = "invalid_cvv"
    RISK_DENIED = "risk_denied"
    PROVIDER_DECLINED = "provider_declined"


class Card(Struct, frozen=True, kw_only=True):
    """A card in clear. Lives in the edge until it is sealed and in the worker around the bank call (I9)."""

    number: str
    cvv: str
    expiry_month: int
    expiry_year: int

    def __repr__(self) -> str:
        return "Card(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class MaskedCard(Struct, frozen=True, kw_only=True):
    """What may be kept and shown of a card."""

    type: str = "card"
    brand: str
    last4: str
    expiry_month: int
    expiry_year: int


class Details(Struct, frozen=True, kw_only=True):
    """What the client says about a new payment beside its money and method; fields that the engine keeps and shows.

    A field added here is carried through the stream, the idempotency fingerprint and the ledger's row by its name.
    """

    order_id: str
    customer_id: str
    description: str | None = None
    statement_descriptor: str | None = None  # what the card holder shall read on the statement
    metadata: Mapping[str, str]
    webhook_url: str | None = None


class Terms(Details, frozen=True, kw_only=True):
    """What was agreed when the payment was created; never changes."""

    merchant: str
    money: Money
    method: MaskedCard
    connector: str


def details_of(source: object) -> dict[str, Any]:
    """The fields of Details of anything that has them as attributes."""
    return {name: getattr(source, name) for name in Details.__struct_fields__}


class BankIds(Struct, frozen=True, kw_only=True):
    """The bank's own names for what it did."""

    authorization_id: str | None = None
    capture_id: str | None = None
    void_id: str | None = None
    refund_id: str | None = None
    auth_code: str | None = None


class Times(Struct, frozen=True, kw_only=True):
    """A timestamp (UTC) per transition."""

    created_at: datetime
    authorized_at: datetime | None = None
    captured_at: datetime | None = None
    voided_at: datetime | None = None
    refunded_at: datetime | None = None
    declined_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    expires_at: datetime | None = None  # the authorization's, as the bank told it
    expiring_at: datetime | None = None  # when the merchant was told that this comes soon


class PaymentFailure(Struct, frozen=True, kw_only=True):
    """Why a payment or an operation did not succeed, in words fit for the shop."""

    code: str
    message: str
    decline_code: DeclineCode | None = None


class Payment(Struct, frozen=True, kw_only=True):
    """The receipt. `version` counts commits (the ledger's compare-and-set), `sequence` counts journal rows."""

    id: str
    partition: int
    terms: Terms
    state: PaymentState
    version: int
    sequence: int
    amount_captured: int
    amount_refunded: int
    bank: BankIds
    at: Times
    failure: PaymentFailure | None
    operation_id: str
    journal_head: str  # hex HMAC of the last journal row, "" before the first


class Operation(Struct, frozen=True, kw_only=True):
    """One thing asked for a payment. `parent` is the authorize of a sale whose answer waits for this operation."""

    id: str
    payment: str
    merchant: str
    partition: int
    verb: Verb
    key: str  # the client's idempotency key, or the engine's own for a child operation
    parent: str | None
    sale: bool  # an authorize that shall be captured at once
    amount: int
    fingerprint: Mapping[str, str]
    accept_order: int
    status: Status
    attempts: int
    first_sent_at: datetime | None
    send_by: datetime | None  # no socket write of the current attempt after this
    deadline: datetime | None  # the current attempt is over at the bank by then
    next_attempt_at: datetime | None
    doubted_at: datetime | None  # when an attempt first went unanswered; a later Unsent does not clear that doubt
    sealed: str | None  # base64 envelope of the card; gone with the outcome
    request_id: str
    traceparent: str | None
    failure: PaymentFailure | None
    response_status: int | None
    response_body: bytes | None
    created_at: datetime
    settled_at: datetime | None

    @property
    def bank_key(self) -> str:
        """The idempotency key the bank sees: the operation's own id, for ever (I1)."""
        return self.id
