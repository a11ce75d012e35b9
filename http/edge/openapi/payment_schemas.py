"""What the engine answers, described for clients: the payment object, operations, lists and problems.

Used for the OpenAPI document only; the engine renders the bytes (engine/domain/rendering.py), and a test holds both
together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.domain.payment import DeclineCode, PaymentState, Status, Verb


def _open(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


# Here a field that is not described is an error, which a test would find. Clients are told nothing of the kind: there
# may be more fields tomorrow (docs/compatibility.md).
ANSWER = ConfigDict(extra="forbid", json_schema_extra=_open)
_Pay = Annotated[str, Field(examples=["pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH"])]
_Op = Annotated[str, Field(examples=["op_5N2J8P4S6V0Y1Z3B7DCEFGHKMQ"])]


class Method(BaseModel):
    """The payment method, masked."""

    model_config = ANSWER

    type: Literal["card"]
    brand: str
    last4: str
    expiry_month: int
    expiry_year: int


class Bank(BaseModel):
    """The bank's own ids of what it did."""

    model_config = ANSWER

    authorization_id: str | None
    capture_id: str | None
    void_id: str | None
    refund_id: str | None
    auth_code: str | None


class LatestOperation(BaseModel):
    """The latest operation of a payment."""

    model_config = ANSWER

    id: _Op
    verb: Verb
    status: Status
    attempts: int
    next_attempt_at: datetime | None


class Failure(BaseModel):
    """Why it did not succeed."""

    model_config = ANSWER

    code: str
    message: str
    decline_code: DeclineCode | None


class PaymentSchema(BaseModel):
    """A payment: the receipt the shop can trust. `in_doubt` is true while the bank's answer to the current operation is
    unknown."""

    model_config = ANSWER

    object: Literal["payment"]
    id: _Pay
    status: PaymentState
    in_doubt: bool
    amount: int
    amount_captured: int
    amount_refunded: int
    currency: str
    order_id: str
    customer_id: str
    description: str | None
    statement_descriptor: str | None
    metadata: dict[str, str]
    payment_method: Method
    connector: str
    bank: Bank
    operation: LatestOperation
    failure: Failure | None
    next_action: dict[str, Any] | None
    sequence: int
    created_at: datetime
    authorized_at: datetime | None
    captured_at: datetime | None
    voided_at: datetime | None
    refunded_at: datetime | None
    declined_at: datetime | None
    failed_at: datetime | None
    expired_at: datetime | None
    expires_at: datetime | None


class PaymentList(BaseModel):
    """A page of payments, newest first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[PaymentSchema]
    has_more: bool
    next_cursor: str | None
    as_of: datetime = Field(description="when the ledger was read, by its own clock; Redis was read before")


class OperationSchema(BaseModel):
    """One thing asked of the bank for a payment."""

    model_config = ANSWER

    object: Literal["operation"]
    id: _Op
    payment_id: _Pay
    verb: Verb
    status: Status
    in_doubt: bool
    amount: int | None = Field(description="null while it is accepted and nobody knows of its payment")
    idempotency_key: str | None
    attempts: int
    first_sent_at: datetime | None
    next_attempt_at: datetime | None
    failure: Failure | None
    response_status: int | None
    created_at: datetime
    settled_at: datetime | None


class OperationList(BaseModel):
    """A page of the operations that were asked for under one idempotency key, newest first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[OperationSchema]
    has_more: bool
    next_cursor: str | None
    as_of: datetime = Field(description="when the ledger was read, by its own clock; Redis was read before")


class Shippable(BaseModel):
    """Whether the goods may leave, and why: `reason` is a payment state, or what stands against it."""

    model_config = ANSWER

    shippable: bool
    reason: str = Field(examples=["captured", "in_doubt", "void_accepted"])
    payment_id: _Pay
    as_of: datetime


class WrongField(BaseModel):
    """One wrong field."""

    model_config = ANSWER

    pointer: str = Field(description="JSON pointer (RFC 6901)", examples=["/amount"])
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ANSWER

    type: str = Field(description="where this kind of problem is described", examples=["/problems/validation_failed"])
    title: str
    status: int
    detail: str
    instance: str | None
    code: str
    request_id: str
    errors: list[WrongField] = Field(default=[], description="on 422: every wrong field")
    decline_code: DeclineCode | None = Field(default=None, description="on 402: why the bank declined")
    operation_id: str | None = None
    payment_id: str | None = None
    payment_status: PaymentState | None = None
    winning_operation: str | None = Field(default=None, description="on 409: the operation that led to this state")
    act_id: str | None = Field(default=None, description="on 409 of an operator's action: its row in the audit")


class ProblemType(BaseModel):
    """A kind of problem: when it comes, and what to do about it."""

    model_config = ANSWER

    object: Literal["problem_type"]
    type: str = Field(examples=["/problems/validation_failed"])
    code: str
    status: int
    title: str
    meaning: str


class ProblemTypeList(BaseModel):
    """Every kind of problem."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[ProblemType]


class Home(BaseModel):
    """Where the descriptions of this gateway are."""

    model_config = ANSWER

    object: Literal["gateway"]
    name: str
    docs: str
    openapi: str
    problems: str
    ready: str


class Liveness(BaseModel):
    """The process lives; it says nothing of the stores."""

    model_config = ANSWER

    status: Literal["alive"]


class Readiness(BaseModel):
    """Whether the process can accept payments, and what fails, by name. `degraded`: it accepts, and something fails."""

    model_config = ANSWER

    status: Literal["ready", "degraded", "not ready"]
    failing: dict[str, str]
    checks: dict[str, str] = Field(default={}, description="every check, with `?verbose`")
