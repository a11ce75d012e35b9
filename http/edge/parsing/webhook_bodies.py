"""Bodies of what merchants say about webhooks, field by field; the rules of payment_bodies.py hold here too.

Where a URL may lead is the deployment's to say (engine/contracts/url_policy.py), so it is judged beside the model and
told with it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from edge.parsing.characters import WEB_ADDRESS
from edge.parsing.payment_bodies import DESCRIPTION, STRICT, URL_CHARACTERS_MAX, Body, Description, refused, validated
from engine.contracts.signature import SECRET_BYTES_MAX, SECRET_BYTES_MIN, secret_bytes
from engine.contracts.url_policy import UrlPolicy
from engine.contracts.webhooks import (
    EVENT_TYPES,
    OVERLAP_S,
    OVERLAP_S_MAX,
    SCHEDULE_PLACES_MAX,
    SCHEDULE_S_MAX,
    EndpointChange,
    NewEndpoint,
    Redelivery,
    SecretRotation,
)
from engine.domain import timestamp
from engine.errors import FieldError, Rejected

TYPES = tuple(sorted(EVENT_TYPES))
# Base64 of 24 to 64 bytes (signature.py): 8 to 20 groups and an end, or 21 and the last byte.
_SECRET_FORM = (
    "^whsec_(?:(?:[A-Za-z0-9+/]{4}){8,20}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    "|(?:[A-Za-z0-9+/]{4}){21}(?:[A-Za-z0-9+/]{2}==)?)$"
)


def _event_type(text: str) -> str:
    if text not in EVENT_TYPES:
        raise ValueError
    return text


def _each_once(types: list[str]) -> list[str]:
    if len(set(types)) < len(types):
        raise ValueError
    return types


def _secret(text: str) -> str:
    secret_bytes(text)
    return text


_Url = Annotated[str, Field(max_length=URL_CHARACTERS_MAX, json_schema_extra={"pattern": WEB_ADDRESS})]
_Type = Annotated[str, AfterValidator(_event_type), Field(json_schema_extra={"enum": list(TYPES)})]
_Types = (
    Annotated[
        list[_Type],
        Field(min_length=1, max_length=len(TYPES), json_schema_extra={"uniqueItems": True}),
        AfterValidator(_each_once),
    ]
    | None
)
_Seconds = Annotated[int, Field(ge=1, le=SCHEDULE_S_MAX)]
_Schedule = Annotated[list[_Seconds], Field(min_length=1, max_length=SCHEDULE_PLACES_MAX)] | None
_Secret = Annotated[str, AfterValidator(_secret), Field(json_schema_extra={"pattern": _SECRET_FORM})] | None
_Moment = Annotated[datetime, BeforeValidator(timestamp.parse)]

_URL = (
    f"an http or https URL in ASCII of at most {URL_CHARACTERS_MAX} characters, without user name, password or "
    "fragment; production takes https only, and no address that is not public"
)
_EVENTS = f"a list of event types, each once, or null for all: {', '.join(TYPES)}"
_ORDERED = (
    "true or false; true: the events of one payment are sent one after the other, each when the one before arrived"
)
_SCHEDULE = (
    f"a list of 1 to {SCHEDULE_PLACES_MAX} integers from 1 to {SCHEDULE_S_MAX}, the seconds between attempts, or null "
    "for the default"
)
_SIGNED = "true or false; true: signatures with an ed25519 key (v1a) beside those with the secret (v1)"
_SECRET = f'"whsec_" and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes; leave it out to get a random one'
_TIME = f'a date and time with its offset (RFC 3339), as in "{timestamp.EXAMPLE}"'


class EndpointBody(BaseModel):
    """POST /v1/webhook-endpoints."""

    model_config = STRICT

    url: _Url = Field(description=_URL, examples=["https://shop.example/hooks"])
    events: _Types = Field(default=None, description=_EVENTS, examples=[["payment.captured", "payment.refunded"]])
    ordered: bool = Field(default=False, description=_ORDERED)
    retry_schedule: _Schedule = Field(default=None, description=_SCHEDULE, examples=[[1, 10, 60, 600]])
    description: Description | None = Field(default=None, description=DESCRIPTION)
    ed25519: bool = Field(default=False, description=_SIGNED)
    secret: _Secret = Field(default=None, description=_SECRET)


class EndpointChangeBody(BaseModel):
    """PATCH /v1/webhook-endpoints/{id}: what is left out stays as it is."""

    model_config = STRICT

    url: _Url = Field(default="", description=_URL, examples=["https://shop.example/hooks"])
    events: _Types = Field(default=None, description=_EVENTS, examples=[["payment.captured", "payment.refunded"]])
    ordered: bool = Field(default=False, description=_ORDERED)
    retry_schedule: _Schedule = Field(default=None, description=_SCHEDULE, examples=[[1, 10, 60, 600]])
    description: Description | None = Field(default=None, description=DESCRIPTION)
    ed25519: bool = Field(default=False, description=_SIGNED)


class RotationBody(BaseModel):
    """POST /v1/webhook-endpoints/{id}/rotate-secret and /v1/webhook-secret/rotate; may be left out altogether."""

    model_config = STRICT

    overlap_s: int = Field(
        default=OVERLAP_S,
        ge=0,
        le=OVERLAP_S_MAX,
        description=f"an integer from 0 to {OVERLAP_S_MAX}: for so many seconds the old secret signs too; "
        f"{OVERLAP_S} if it is left out",
    )
    secret: _Secret = Field(default=None, description=_SECRET)


class RedeliveryBody(BaseModel):
    """POST /v1/webhook-endpoints/{id}/redeliver."""

    model_config = STRICT

    since: _Moment = Field(description=_TIME)
    until: _Moment | None = Field(default=None, description=f"{_TIME}, later than `since`, or null for now")
    deliveries: Literal["failed", "all"] = Field(
        default="failed",
        description='"failed", also if it is left out (what was given up or waits for another try) or "all" (every '
        "event that the endpoint wants, sent before or not)",
    )
    dry_run: bool = Field(default=False, description="true or false; true: nothing is sent, they are only counted")


class NothingBody(BaseModel):
    """POST without anything to say: no body, or an empty object."""

    model_config = STRICT


def new_endpoint(document: dict[str, object], url_policy: UrlPolicy) -> NewEndpoint:
    """What shall be registered. Raises Rejected(validation_failed) with every wrong field."""
    body = _judged(EndpointBody, document, url_policy)
    return NewEndpoint(
        url=body.url,
        events=None if body.events is None else tuple(body.events),
        ordered=body.ordered,
        retry_schedule=None if body.retry_schedule is None else tuple(body.retry_schedule),
        description=body.description,
        secret=None if body.secret is None else secret_bytes(body.secret),
        ed25519=body.ed25519,
    )


def change(document: dict[str, object], url_policy: UrlPolicy) -> EndpointChange:
    """What shall be different. Raises Rejected(validation_failed) with every wrong field."""
    body = _judged(EndpointChangeBody, document, url_policy)
    sent = body.model_fields_set
    return EndpointChange(
        url=body.url if "url" in sent else UNSET,
        events=UNSET if "events" not in sent else None if body.events is None else tuple(body.events),
        ordered=body.ordered if "ordered" in sent else UNSET,
        retry_schedule=UNSET
        if "retry_schedule" not in sent
        else None
        if body.retry_schedule is None
        else tuple(body.retry_schedule),
        description=body.description if "description" in sent else UNSET,
        ed25519=body.ed25519 if "ed25519" in sent else UNSET,
    )


def rotation(document: dict[str, object]) -> SecretRotation:
    """How a secret shall be replaced. Raises Rejected(validation_failed)."""
    body = validated(RotationBody, document)
    return SecretRotation(secret=None if body.secret is None else secret_bytes(body.secret), overlap_s=body.overlap_s)


def redelivery(document: dict[str, object], now: datetime) -> tuple[Redelivery, bool]:
    """What shall be delivered again, and whether it is only to be counted. Raises Rejected(validation_failed)."""
    body = validated(RedeliveryBody, document)
    until = body.until or now
    if body.since >= until:
        late = "must be earlier than `until`" if body.until else "must not be in the future"
        raise refused([FieldError(pointer="/since", detail=late)])
    return Redelivery(since=body.since, until=until, failed_only=body.deliveries == "failed"), body.dry_run


def _judged(model: type[Body], document: dict[str, object], url_policy: UrlPolicy) -> Body:
    url = document.get("url")
    refusal = url_policy.refusal_of_url(url) if isinstance(url, str) else None
    wrong = [] if refusal is None else [FieldError(pointer="/url", detail=refusal)]
    try:
        body = validated(model, document)
    except Rejected as rejected:
        raise refused([*wrong, *(error for error in rejected.errors if not wrong or error.pointer != "/url")]) from None
    if wrong:
        raise refused(wrong)
    return body
