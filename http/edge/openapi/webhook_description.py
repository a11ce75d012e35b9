"""The calls about webhooks and events as data, like description.py, for the OpenAPI document."""

from __future__ import annotations

from edge.openapi.description import GUARDED, KEY, PAGED, PAYMENT_ID, PREFER, READ, TEXT, Description, parameter
from edge.openapi.webhook_schemas import (
    DeletedWebhookEndpoint,
    Delivery,
    DeliveryList,
    EventList,
    PublicKeyList,
    RedeliveryDone,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
    WebhookSecret,
    WebhookSecretShown,
)
from edge.parsing.webhook_bodies import (
    TYPES,
    EndpointBody,
    EndpointChangeBody,
    RedeliveryBody,
    RotationBody,
)
from engine.contracts.webhooks import DeliveryState

_ENDPOINTS = "/v1/webhook-endpoints"
_ONE = f"{_ENDPOINTS}/{{endpoint}}"
_DELIVERY = f"{_ONE}/deliveries/{{delivery}}"

_ENDPOINT_ID = parameter("endpoint", "path", "The webhook endpoint's id.", {**TEXT, "pattern": "^whe_"}, required=True)
_DELIVERY_ID = parameter("delivery", "path", "The delivery's id.", {**TEXT, "pattern": "^dlv_"}, required=True)
_STATE = parameter("status", "query", "Deliveries in this state.", {"enum": [*DeliveryState]})
_FEED = (
    parameter(
        "after", "query", "`next_cursor` of the page before, or `latest` for what comes from now on.", dict(TEXT)
    ),
    parameter("cursor", "query", "Another name of `after`, the one that lists have.", dict(TEXT)),
    parameter("type", "query", f"Only these types, separated by commas: {', '.join(TYPES)}.", dict(TEXT)),
    PAGED[0],
    PREFER,
)

_BODY = ("malformed_json", "payload_too_large", "request_timeout", "unsupported_media_type", "validation_failed")
_ACT = ("idempotency_key_missing", "idempotency_key_invalid", "idempotency_key_reused", *_BODY)
_DERIVED = ("webhook_endpoint_derived", *READ)


WEBHOOK_CALLS: tuple[Description, ...] = (
    Description(
        path=_ENDPOINTS,
        method="post",
        name="createWebhookEndpoint",
        summary="Register a URL to be told of events; the answer shows its secret, once",
        parameters=(KEY,),
        body=EndpointBody,
        answers={201: WebhookEndpointWithSecret},
        codes=(*_ACT, "webhook_endpoint_limit", *GUARDED),
    ),
    Description(
        path=_ENDPOINTS,
        method="get",
        name="listWebhookEndpoints",
        summary="Webhook endpoints, newest first",
        parameters=PAGED,
        body=None,
        answers={200: WebhookEndpointList},
        codes=GUARDED,
    ),
    Description(
        path=_ONE,
        method="get",
        name="getWebhookEndpoint",
        summary="One webhook endpoint",
        parameters=(_ENDPOINT_ID,),
        body=None,
        answers={200: WebhookEndpoint},
        codes=READ,
    ),
    Description(
        path=_ONE,
        method="patch",
        name="changeWebhookEndpoint",
        summary="Change what is sent along; the rest stays as it is",
        parameters=(_ENDPOINT_ID,),
        body=EndpointChangeBody,
        answers={200: WebhookEndpoint},
        codes=(*_BODY, *_DERIVED),
    ),
    Description(
        path=_ONE,
        method="delete",
        name="deleteWebhookEndpoint",
        summary="Tell this URL nothing any more",
        parameters=(_ENDPOINT_ID,),
        body=None,
        answers={200: DeletedWebhookEndpoint},
        codes=_DERIVED,
    ),
    Description(
        path=f"{_ONE}/rotate-secret",
        method="post",
        name="rotateWebhookSecret",
        summary="A new secret; the old one signs too for a while",
        parameters=(_ENDPOINT_ID, KEY),
        body=RotationBody,
        answers={200: WebhookEndpointWithSecret},
        codes=(*_ACT, *_DERIVED),
    ),
    Description(
        path=f"{_ONE}/disable",
        method="post",
        name="disableWebhookEndpoint",
        summary="Send nothing there; what waits is given up",
        parameters=(_ENDPOINT_ID, KEY),
        body=None,
        answers={200: WebhookEndpoint},
        codes=(*_ACT, *READ),
    ),
    Description(
        path=f"{_ONE}/enable",
        method="post",
        name="enableWebhookEndpoint",
        summary="Send new events there again; what it missed comes by redelivery",
        parameters=(_ENDPOINT_ID, KEY),
        body=None,
        answers={200: WebhookEndpoint},
        codes=(*_ACT, *READ),
    ),
    Description(
        path=f"{_ONE}/redeliver",
        method="post",
        name="redeliverRange",
        summary="Deliver again what failed since a time, or all of a range; `dry_run` counts (and needs no key)",
        parameters=(_ENDPOINT_ID, {**KEY, "required": False}),
        body=RedeliveryBody,
        answers={200: RedeliveryDone},
        codes=(*_ACT, "webhook_endpoint_disabled", *READ),
    ),
    Description(
        path=f"{_ONE}/deliveries",
        method="get",
        name="listDeliveries",
        summary="What was sent to a webhook endpoint, and what came of it, newest first",
        parameters=(_ENDPOINT_ID, _STATE, *PAGED),
        body=None,
        answers={200: DeliveryList},
        codes=READ,
    ),
    Description(
        path=_DELIVERY,
        method="get",
        name="getDelivery",
        summary="One delivery",
        parameters=(_ENDPOINT_ID, _DELIVERY_ID),
        body=None,
        answers={200: Delivery},
        codes=READ,
    ),
    Description(
        path=f"{_DELIVERY}/redeliver",
        method="post",
        name="redeliver",
        summary="Deliver one event again, now",
        parameters=(_ENDPOINT_ID, _DELIVERY_ID, KEY),
        body=None,
        answers={200: Delivery},
        codes=(*_ACT, "webhook_endpoint_disabled", *READ),
    ),
    Description(
        path="/v1/payments/{payment}/deliveries",
        method="get",
        name="listDeliveriesOfPayment",
        summary="What was sent about a payment, to all endpoints, newest first",
        parameters=(PAYMENT_ID, *PAGED),
        body=None,
        answers={200: DeliveryList},
        codes=READ,
    ),
    Description(
        path="/v1/webhook-secret",
        method="get",
        name="getDefaultWebhookSecret",
        summary="Since when there is a default secret, for the `webhook_url` of payments",
        parameters=(),
        body=None,
        answers={200: WebhookSecret},
        codes=GUARDED,
    ),
    Description(
        path="/v1/webhook-secret/rotate",
        method="post",
        name="rotateDefaultWebhookSecret",
        summary="A new default secret, shown once; the old one signs too for a while",
        parameters=(KEY,),
        body=RotationBody,
        answers={200: WebhookSecretShown},
        codes=(*_ACT, *GUARDED),
    ),
    Description(
        path="/v1/events",
        method="get",
        name="listEvents",
        summary="What webhooks push, pulled: the same ids and payloads, oldest first, nothing skipped",
        parameters=_FEED,
        body=None,
        answers={200: EventList},
        codes=("cursor_unknown", *GUARDED),
    ),
    Description(
        path="/.well-known/webhook-keys/{endpoint}",
        method="get",
        name="getWebhookKeys",
        summary="The public keys of a webhook endpoint's v1a signatures",
        parameters=(_ENDPOINT_ID,),
        body=None,
        answers={200: PublicKeyList},
        codes=("not_found", "malformed_request", "store_unavailable", "internal_error"),
        scope="open",
    ),
)
