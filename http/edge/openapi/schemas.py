"""The OpenAPI 3.1 document, made from the models that validate, the table of calls and the catalogue of problems.

It is the deployment's own: currencies are those that its connectors take. Generators of clients read it, and a test has
three of them make a payment each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edge.openapi.dead_letter_schemas import Act
from edge.openapi.description import CALLS, Description, Json
from edge.openapi.payment_schemas import PaymentSchema, Problem, Readiness
from edge.openapi.service_description import SERVICE_CALLS
from edge.openapi.webhook_description import TOLD, WEBHOOK_CALLS
from edge.openapi.webhook_schemas import WebhookEndpointWithSecret
from edge.parsing.json_body import JSON, media_types
from edge.parsing.payment_bodies import OperationBody
from edge.parsing.webhook_bodies import RotationBody
from engine.contracts.connector import Capabilities
from engine.domain.money import DECIMALS
from engine.problem import CATALOGUE, MEDIA_TYPE, render

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
_COMPONENTS = "#/components/schemas/"

# Public names of classes that are called otherwise in the code; a suffix "Schema" is left out of all others.
_NAMES: Mapping[str, str] = {
    "PaymentState": "PaymentStatus",
    "DeliveryState": "DeliveryStatus",
    "Status": "OperationStatus",
    "Verb": "OperationVerb",
    "Method": "PaymentMethod",
    "AttemptOutcome": "DeliveryOutcome",
    "DeadReason": "DeliveryDeadReason",
    "EndpointStatus": "WebhookEndpointStatus",
    "DisabledReason": "WebhookEndpointDisabledReason",
}
_TAGS: Mapping[str, str] = {
    "payments": "Authorize, capture, void, refund, and look payments up.",
    "operations": "The single operations of payments, and looking them up by their idempotency key.",
    "webhooks": "Being told of events: webhook endpoints, deliveries, and pulling events instead.",
    "events": "What your webhook endpoints are called with.",
    "operators": "For the people who run the gateway: needs a key of operator scope (`ok_...`).",
    "service": "How this gateway is, and what describes it. Needs no key.",
}
_HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {
        "schema": _TEXT,
        "description": "The client's own, if it sent a sound one, else ours.",
    },
    "Location": {"schema": _TEXT, "description": "The path of the payment or webhook endpoint."},
    "Retry-After": {"schema": _WHOLE, "description": "Seconds after which to ask again."},
    "Idempotent-Replayed": {"schema": _TEXT, "description": "`true` when this is the stored answer of an earlier use."},
    "Preference-Applied": {"schema": _TEXT, "description": "`wait=N` when Prefer was honoured."},
    "WWW-Authenticate": {"schema": _TEXT, "description": "ApiKey"},
}
_HEADERS_OF: Mapping[int, tuple[str, ...]] = {
    200: ("Idempotent-Replayed", "Preference-Applied"),
    201: ("Location", "Idempotent-Replayed", "Preference-Applied"),
    202: ("Location", "Retry-After", "Preference-Applied"),
    401: ("WWW-Authenticate",),
    402: ("Idempotent-Replayed", "Preference-Applied"),
    409: ("Idempotent-Replayed", "Preference-Applied"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

_OPTIONAL = (OperationBody, RotationBody)  # bodies that may be left out
# What an answer means where that is more than what it shows; else its model says it.
_MEANINGS: Mapping[tuple[int, type[BaseModel] | None], str] = {
    (200, None): "Metrics in the text format of Prometheus.",
    (201, PaymentSchema): "The bank has answered: the payment is authorized or, with `capture: true`, captured.",
    (202, PaymentSchema): "Accepted and on disk. The outcome is not known yet: GET the payment, or repeat the call.",
    (503, Readiness): "The process cannot accept payments; `failing` says why.",
    (202, Act): "Written down. The payment's actor carries it out: repeat the call with its key for the result.",
    (201, WebhookEndpointWithSecret): "Registered. The secret is in this answer only.",
}


def describe(capabilities: Mapping[str, Capabilities]) -> Json:
    """The whole document, for connectors with these capabilities (by payment method)."""
    calls = (*CALLS, *WEBHOOK_CALLS, *SERVICE_CALLS)
    paths: dict[str, Json] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method] = _call(call)
    schemas = _schemas((*calls, *TOLD))
    currency = schemas["PaymentBody"]["properties"]["currency"]  # type: ignore[index]
    currency.update(_currencies({code for able in capabilities.values() for code in able.currencies}))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": "1",
            "summary": "A payment gateway.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Authorize, capture, void and refund payments. Amounts are integers in minor units. "
            "Repeating a call with the same Idempotency-Key is always safe. "
            "Problems are listed at [/problems](/problems). Answers may get more fields at any time.",
        },
        "servers": [{"url": "/", "description": "The gateway that serves this document."}],
        "security": [{"ApiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "webhooks": {told.name: {"post": _told(told)} for told in TOLD},
        "components": {
            "schemas": schemas,
            "headers": _HEADERS,
            "examples": {code: _example(code) for code in CATALOGUE},
            "securitySchemes": {
                "ApiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "A secret key of the merchant (`sk_...`) or of an operator (`ok_...`).",
                }
            },
        },
    }


def _schemas(calls: Iterable[Description]) -> dict[str, Json]:
    """The models of these calls and all they consist of, under names of their own."""
    models = {model for call in calls for model in (*call.answers.values(), call.body) if model} | {Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, made = models_json_schema([(model, "validation") for model in ordered], ref_template=_COMPONENTS + "{model}")
    schemas: dict[str, Json] = {_public_name(name): _public(schema) for name, schema in made["$defs"].items()}
    return dict(sorted(schemas.items()))


def _public_name(name: str) -> str:
    return _NAMES.get(name) or name.removesuffix("Schema")


def _public(schema: Json) -> Json:
    """With references to the names that schemas have here, without the titles that pydantic makes of names, and without
    defaults: generators would say that a field is always there, or send it where it was to stay as it is."""
    schema = {name: _referring(part) for name, part in schema.items() if name != "title"}
    for field in schema.get("properties", {}).values():  # type: ignore[attr-defined]
        field.pop("title", None)
        field.pop("default", None)
    return schema


def _referring(part: object) -> object:
    if isinstance(part, list):
        return [_referring(item) for item in part]
    if isinstance(part, dict):
        return _nullable({name: _referring(item) for name, item in part.items()})
    if isinstance(part, str) and part.startswith(_COMPONENTS):
        name = part.removeprefix(_COMPONENTS)
        return _COMPONENTS + _public_name(name)
    return part


def _nullable(schema: Json) -> Json:
    """`type: [x, "null"]` for what pydantic writes as a choice of the two; some generators stumble over those."""
    match schema.get("anyOf"):
        case [{"type": str(kind), **rest}, {"type": "null"}] if "enum" not in rest:
            others = {name: part for name, part in schema.items() if name != "anyOf"}
            return {"type": [kind, "null"], **{str(name): part for name, part in rest.items()}, **others}
    return schema


def _currencies(codes: Iterable[str]) -> Json:
    """What the field `currency` may be, and where its minor unit is no hundredth."""
    taken = sorted(codes)
    whole = [code for code in taken if DECIMALS.get(code) == 0]
    thousandths = [code for code in taken if DECIMALS.get(code) == 3]
    text = 'an active ISO 4217 code in capitals, as in "USD", that a connector here takes'
    text += f". No minor unit: {', '.join(whole)}" if whole else ""
    text += f". Thousandths: {', '.join(thousandths)}" if thousandths else ""
    return {"enum": taken, "description": text}


def _call(call: Description) -> Json:
    responses: dict[str, Json] = {}
    for status, model in call.answers.items():
        names = ("X-Request-Id", *(_HEADERS_OF.get(status, ()) if call.method == "post" or call.waits else ()))
        plain: Json = {"text/plain": {"schema": _TEXT}}
        responses[str(status)] = {
            "description": (call.done if status == 200 else "") or _meaning(status, model),
            "headers": _headers(names),
            "content": plain if model is None else _content(model, JSON),
        }
    for status in sorted({CATALOGUE[code].status for code in call.codes}):
        responses[str(status)] = _refusal(status, call.codes)
    described: Json = {
        "operationId": call.name,
        "summary": call.summary,
        "tags": [call.tag],
        "parameters": list(call.parameters),
        "responses": responses,
    }
    if call.scope == "open":
        described["security"] = []
    if call.body is not None:
        content = _content(call.body, *media_types(call.method))
        described["requestBody"] = {"required": call.body not in _OPTIONAL, "content": content}
    return described


def _told(told: Description) -> Json:
    """What a merchant's own server is called with: an event, whose data is a payment where its name says so."""
    content = _content(told.body, JSON)
    if told.name == "paymentEvent":
        payment = {
            "type": "object",
            "properties": {"data": {"$ref": _COMPONENTS + _public_name(PaymentSchema.__name__)}},
        }
        content = {kind: {"schema": {"allOf": [part["schema"], payment]}} for kind, part in content.items()}
    return {
        "operationId": told.name,
        "summary": told.summary,
        "tags": [told.tag],
        "security": [],
        "parameters": list(told.parameters),
        "requestBody": {"required": True, "content": content},
        "responses": {"2XX": {"description": "Received. Any other answer is a failure, and it is sent again."}},
    }


def _content(model: type[BaseModel] | None, *kinds: str) -> dict[str, Json]:
    assert model is not None
    return {kind: {"schema": {"$ref": _COMPONENTS + _public_name(model.__name__)}} for kind in kinds}


def _meaning(status: int, model: type[BaseModel] | None) -> str:
    return _MEANINGS.get((status, model)) or " ".join((model.__doc__ or "").split())


def _refusal(status: int, codes: tuple[str, ...]) -> Json:
    these = [code for code in dict.fromkeys(codes) if CATALOGUE[code].status == status]
    return {
        "description": "; ".join(CATALOGUE[code].title for code in these) + ".",
        "headers": _headers(("X-Request-Id", *_HEADERS_OF.get(status, ()))),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": _COMPONENTS + "Problem"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in these},
            }
        },
    }


def _headers(names: tuple[str, ...]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _example(code: str) -> Json:
    kind = CATALOGUE[code]
    document = render(code, kind.meaning, request_id="req_5f0c", instance="/v1/payments")
    return {"summary": kind.title, "value": orjson.loads(document)}
