"""What a timeline is made of, described for clients. Used for the OpenAPI document only; a test holds the engine's
rendering (engine/gateway/timeline.py) and these models together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from edge.openapi.payment_schemas import ANSWER
from engine.contracts.webhooks import AttemptOutcome
from engine.domain.payment import PaymentState, Status, Verb


class CommandSchema(BaseModel):
    """An operation from its acceptance, and where it stands now. `idempotency_key` is null for the gateway's own."""

    model_config = ANSWER

    type: Literal["command"]
    at: datetime
    operation_id: str
    verb: Verb
    amount: int | None
    idempotency_key: str | None
    request_id: str | None
    status: Status
    attempts: int
    first_sent_at: datetime | None
    doubted_at: datetime | None = Field(description="when an attempt first went unanswered")
    next_attempt_at: datetime | None
    response_status: int | None
    settled_at: datetime | None


class BankAttempt(BaseModel):
    """An attempt at the bank that left something to tell. Those that were repeated at once are only counted, in
    `attempts` of the command and in the number of the next one that is told."""

    model_config = ANSWER

    type: Literal["bank_attempt"]
    at: datetime
    operation_id: str
    attempt: int
    answer: Literal["approved", "refused", "none", "none_yet"]
    send_by: datetime | None = Field(description="of an attempt without an answer yet: not written after this")
    deadline: datetime | None = Field(description="of an attempt without an answer yet: over at the bank by then")
    evidence: dict[str, Any] = Field(description="what the bank's answer, or its absence, left behind")


class Transition(BaseModel):
    """A row of the journal."""

    model_config = ANSWER

    type: Literal["transition"]
    at: datetime
    sequence: int
    event: str
    from_: PaymentState | None = Field(alias="from")
    to: PaymentState
    operation_id: str
    evidence: dict[str, Any]


class OperatorAct(BaseModel):
    """What an operator of the gateway did about this payment, and why."""

    model_config = ANSWER

    type: Literal["operator_act"]
    at: datetime
    act: str = Field(examples=["retry", "resolve", "dead_letter.requeue"])
    operation_id: str | None
    reason: str
    result: str | None = Field(description="null until it is carried out or refused")
    done_at: datetime | None


class WebhookAttempt(BaseModel):
    """An attempt to tell a webhook endpoint of one of the payment's events, and what came of it."""

    model_config = ANSWER

    type: Literal["webhook_attempt"]
    at: datetime
    event: str = Field(examples=["payment.captured"])
    event_id: str = Field(description="the `webhook-id` of all attempts of this event")
    sequence: int
    endpoint_id: str
    attempt: int
    outcome: AttemptOutcome
    status: int | None = Field(description="of HTTP; null where there was no answer")
    error: str | None
    duration_ms: int
    next_attempt_at: datetime | None = Field(description="of the last attempt, while another one is to come")


TimelineEntry = TypeAliasType(
    "TimelineEntry",
    Annotated[CommandSchema | BankAttempt | Transition | OperatorAct | WebhookAttempt, Field(discriminator="type")],
)


class Timeline(BaseModel):
    """What happened to a payment, oldest first. `has_more`: only the newest thousand of a kind are shown."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[TimelineEntry]
    has_more: bool
    as_of: datetime = Field(description="when the ledger was read, by its own clock")
