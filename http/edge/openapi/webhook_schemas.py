"""What the engine answers about webhooks and events, described for clients, for the OpenAPI document only.

The engine renders the bytes (endpoint.py, delivery_log.py, event_feed.py), and tests hold both together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from edge.openapi.payment_schemas import ANSWER
from engine.contracts.webhooks import AttemptOutcome, DeadReason, DeliveryState, DisabledReason, EndpointStatus

_Endpoint = Annotated[str, Field(examples=["whe_3K7VZ0Q1M8C2R4T6W9XABDEFGH"])]
_SHOWN_ONCE = "`whsec_...`, in the answer that made it and nowhere else; kept sealed"


class WebhookEndpoint(BaseModel):
    """A webhook endpoint: whom to tell what. `kind` payment_url: it stands for the `webhook_url` of payments."""

    model_config = ANSWER

    object: Literal["webhook_endpoint"]
    id: _Endpoint
    kind: Literal["registered", "payment_url"]
    url: str
    description: str | None
    events: list[str] | None = Field(description="null: all")
    ordered: bool
    retry_schedule: list[int] | None = Field(description="seconds between attempts; null: the default")
    status: EndpointStatus
    disabled_reason: DisabledReason | None
    disabled_at: datetime | None
    failing_since: datetime | None = Field(description="the first failure of an unbroken row, while it fails")
    ed25519: bool
    public_key: str | None = Field(description="`whpk_...`, to verify v1a signatures; also under /.well-known")
    previous_secret_expires_at: datetime | None = Field(description="until then the secret before signs too")
    created_at: datetime
    updated_at: datetime


class WebhookEndpointWithSecret(WebhookEndpoint):
    """A webhook endpoint, with the secret that was just made."""

    secret: str = Field(description=_SHOWN_ONCE, examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])


class WebhookEndpointList(BaseModel):
    """A page of webhook endpoints, newest first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[WebhookEndpoint]
    has_more: bool
    next_cursor: str | None
    as_of: datetime = Field(description="when the ledger was read, by its own clock")


class DeletedWebhookEndpoint(BaseModel):
    """What is left of a webhook endpoint."""

    model_config = ANSWER

    object: Literal["webhook_endpoint"]
    id: _Endpoint
    status: Literal[EndpointStatus.DELETED]


class WebhookSecret(BaseModel):
    """The merchant's default secret, which signs what goes to the `webhook_url` of payments."""

    model_config = ANSWER

    object: Literal["webhook_secret"]
    created_at: datetime | None = Field(description="null: there is none yet")
    previous_secret_expires_at: datetime | None


class WebhookSecretShown(WebhookSecret):
    """The merchant's default secret, with the secret that was just made."""

    secret: str = Field(description=_SHOWN_ONCE, examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])


class PublicKey(BaseModel):
    """A key that verifies v1a signatures."""

    model_config = ANSWER

    scheme: Literal["v1a"]
    public_key: str = Field(examples=["whpk_Q1TpI6Hm0lmFEpTlEtpSl6E1RTD7Yq0Tg9yB4x0a1mU="])
    role: Literal["current", "previous"]
    expires_at: datetime | None


class PublicKeyList(BaseModel):
    """The keys of one webhook endpoint, the current one first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[PublicKey]


class DeliveryAttempt(BaseModel):
    """One attempt to deliver."""

    model_config = ANSWER

    attempt: int
    at: datetime
    outcome: AttemptOutcome
    status: int | None = Field(description="of HTTP; null where there was no answer")
    duration_ms: int
    error: str | None
    response_body: str | None = Field(description="its first KiB")


class Delivery(BaseModel):
    """One event for one webhook endpoint. `attempts` has the newest 20 attempts, newest first."""

    model_config = ANSWER

    object: Literal["webhook_delivery"]
    id: str = Field(examples=["dlv_pay_3K7VZ0Q1M8C2R4T6W9XABDEFGH_2"])
    endpoint_id: _Endpoint
    event_id: str = Field(description="the `webhook-id` of all its attempts")
    type: str
    payment_id: str | None
    sequence: int
    previous_sequence: int | None = Field(description="for endpoints with a filter: of the event before that they want")
    status: DeliveryState
    dead_reason: DeadReason | None
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    attempts: list[DeliveryAttempt]


class DeliveryList(BaseModel):
    """A page of deliveries, newest first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[Delivery]
    has_more: bool
    next_cursor: str | None
    as_of: datetime = Field(description="when the ledger was read, by its own clock")


class RedeliveryDone(BaseModel):
    """How many deliveries are due again or, of a dry run, would be. A dry run counts up to one more than `limit`."""

    model_config = ANSWER

    object: Literal["webhook_redelivery"]
    endpoint_id: _Endpoint
    deliveries: Literal["failed", "all"]
    since: datetime
    until: datetime
    dry_run: bool
    count: int
    limit: int


class EventSchema(BaseModel):
    """What happened, as the body of a webhook and in the list of events."""

    model_config = ANSWER

    id: str | None = Field(
        default=None,
        description="in the list of events; a webhook has it in its header `webhook-id`",
        examples=["evt_5N2J8P4S6V0Y1Z3B7DCEFGHKMQ"],
    )
    type: str = Field(examples=["payment.captured"])
    timestamp: datetime
    data: dict[str, Any] = Field(description="the payment after it; of webhook_endpoint.disabled, the endpoint")
    sequence: int = Field(description="of the payment's events, without gaps")
    previous_sequence: int | None = Field(
        default=None, description="in webhooks to endpoints with a filter: of the event before that they want; 0: none"
    )


class EventList(BaseModel):
    """A page of events, oldest first. `next_cursor` is always there: with it the reading goes on, now or later."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[EventSchema]
    has_more: bool = Field(description="there may be more at once; with a filter, also where this page has none")
    next_cursor: str
