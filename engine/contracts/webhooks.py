"""What a merchant asks about webhooks and events, and what comes back: the contracts between the edge and the engine.

Implemented by endpoint.py (Subscribing), delivery_log.py (Inspecting) and event_feed.py (Feeding). All methods raise
Rejected and Unavailable (errors.py); another merchant's endpoint is not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from engine.domain.lifecycle import TRANSITIONS, Effect

ENDPOINTS_MAX = 50  # of a merchant: each one more is one more delivery of each event
REDELIVERIES_MAX = 10_000  # at once: more would not be done within the time that a statement has
OVERLAP_S = 86_400  # how long the secret before a rotation signs too: a day is enough to deploy every receiver
OVERLAP_S_MAX = 7 * 86_400
ENDPOINT_DISABLED = "webhook_endpoint.disabled"  # operational: its `payment` is the endpoint's id
EVENT_TYPES = frozenset(
    {f"payment.{event}" for (_, event), (_, effects) in TRANSITIONS.items() if Effect.JOURNAL in effects}
    | {ENDPOINT_DISABLED}
)
SCHEDULE_PLACES_MAX = 30
SCHEDULE_S_MAX = 604_800


class DeliveryState(StrEnum):
    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"


class AttemptOutcome(StrEnum):
    """What one attempt came to."""

    DELIVERED = "delivered"  # 2xx
    REFUSED = "refused"  # any other status; a redirect is one, and is not followed
    GONE = "gone"  # 410: the endpoint wants nothing any more
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"  # no address, no connection, no TLS, no HTTP
    FORBIDDEN = "forbidden"  # the address is one that we must not call (url_policy.py)


class DeadReason(StrEnum):
    EXHAUSTED = "exhausted"
    ENDPOINT_GONE = "endpoint_gone"
    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"


class EndpointStatus(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class DisabledReason(StrEnum):
    MERCHANT = "merchant"
    GONE = "gone"
    FAILING = "failing"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """Who asks for a change, under which key; `path` is its scope, `payload` what a repetition must repeat."""

    merchant: str
    key: str
    path: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedResponse:
    """What to send back, now and whenever the key is used again."""

    status: int
    body: bytes
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEndpoint:
    """A validated body of POST /v1/webhook-endpoints. `events` None: all; `retry_schedule` in seconds, None: the
    default; `secret` None: we make one; `ed25519`: sign with a key pair as well."""

    url: str
    events: tuple[str, ...] | None
    ordered: bool
    retry_schedule: tuple[int, ...] | None
    description: str | None
    secret: bytes | None
    ed25519: bool


class EndpointChange(Struct, frozen=True, kw_only=True):
    """A validated body of PATCH: what was not sent stays as it is."""

    url: str | UnsetType = UNSET
    events: tuple[str, ...] | UnsetType | None = UNSET
    ordered: bool | UnsetType = UNSET
    retry_schedule: tuple[int, ...] | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    ed25519: bool | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRotation:
    """A new secret: a given one or, for None, one that we make. The old one signs for `overlap_s` more."""

    secret: bytes | None
    overlap_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Redelivery:
    """What shall be delivered again: all of a stretch of time, or what failed in it."""

    since: datetime
    until: datetime
    failed_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page of deliveries: state or None for all, and where to go on."""

    state: str | None
    limit: int
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage:
    """A page of events: types or None for all, and how long to wait for the first one."""

    types: tuple[str, ...] | None
    limit: int
    after: str | None
    wait_s: float


class EndpointCommands(Protocol):
    """Endpoints and secrets, as the edge sees them."""

    async def create(self, asked: KeyedRequest, new: NewEndpoint) -> KeyedResponse: ...

    async def endpoints(self, merchant: str, limit: int, cursor: str | None) -> bytes: ...

    async def endpoint(self, merchant: str, endpoint: str) -> bytes: ...

    async def change(self, merchant: str, endpoint: str, change: EndpointChange) -> bytes: ...

    async def switch(self, asked: KeyedRequest, endpoint: str, *, on: bool) -> KeyedResponse: ...

    async def delete(self, merchant: str, endpoint: str) -> bytes: ...

    async def rotate(self, asked: KeyedRequest, endpoint: str, rotation: SecretRotation) -> KeyedResponse: ...

    async def rotate_default(self, asked: KeyedRequest, rotation: SecretRotation) -> KeyedResponse: ...

    async def default_secret(self, merchant: str) -> bytes: ...

    async def public_keys(self, endpoint: str) -> bytes: ...


class DeliveryQueries(Protocol):
    """The log of deliveries, and doing them again."""

    async def of_endpoint(self, merchant: str, endpoint: str, page: LogPage) -> bytes: ...

    async def of_payment(self, merchant: str, payment: str, page: LogPage) -> bytes: ...

    async def delivery(self, merchant: str, endpoint: str, delivery: str) -> bytes: ...

    async def redeliver(self, asked: KeyedRequest, endpoint: str, delivery: str) -> KeyedResponse: ...

    async def count_range(self, merchant: str, endpoint: str, wanted: Redelivery) -> bytes: ...

    async def redeliver_range(self, asked: KeyedRequest, endpoint: str, wanted: Redelivery) -> KeyedResponse: ...


class EventQueries(Protocol):
    """The events, pulled."""

    async def events(self, merchant: str, page: FeedPage) -> bytes: ...
