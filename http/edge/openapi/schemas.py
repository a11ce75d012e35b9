"""The OpenAPI 3.1 document, made from the models that validate, the table of calls and the catalogue of problems."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from pydantic.json_schema import models_json_schema

from edge.openapi.description import CALLS, Description, Json
from edge.openapi.payment_schemas import Problem
from edge.openapi.webhook_description import WEBHOOK_CALLS
from edge.parsing.payment_bodies import OperationBody
from edge.parsing.webhook_bodies import RotationBody
from engine.problem import CATALOGUE, MEDIA_TYPE, render

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}

_HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {
        "schema": _TEXT,
        "description": "The client's own, if it sent a sound one, else ours.",
    },
    "Location": {"schema": _TEXT, "description": "The payment."},
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
_MEANINGS: Mapping[int, str] = {
    200: "Done.",
    201: "It is there: the payment with the bank's answer, the webhook endpoint with its secret.",
    202: "Accepted, on disk; the outcome follows by GET, an act's by repeating its key.",
}


def describe() -> Json:
    """The whole document."""
    calls = (*CALLS, *WEBHOOK_CALLS)
    models = {model for call in calls for model in (*call.answers.values(), call.body) if model} | {Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Json] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method] = _call(call)
    for path, summary, media_type in (
        ("/livez", "Whether the process lives", "application/json"),
        ("/readyz", "Whether it can accept now; `?verbose` lists every check", "application/json"),
        ("/metrics", "Prometheus metrics", "text/plain"),
        ("/problems", "Every kind of problem", "application/json"),
    ):
        answers: Json = {"200": {"description": "OK", "content": {media_type: {}}}}
        if path == "/readyz":
            answers["503"] = {"description": "Not ready; `failing` says why", "content": {media_type: {}}}
        paths[path] = {"get": {"summary": summary, "tags": ["running it"], "security": [], "responses": answers}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": "1",
            "license": {"name": "Apache-2.0"},
            "description": "Authorize, capture, void and refund payments. Amounts are integers in minor units. "
            "Repeating a call with the same Idempotency-Key is always safe. "
            "Problems are listed at [/problems](/problems).",
        },
        "security": [{"ApiKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "headers": _HEADERS,
            "examples": {code: _example(code) for code in CATALOGUE},
            "securitySchemes": {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def _call(call: Description) -> Json:
    responses: dict[str, Json] = {}
    for status, model in call.answers.items():
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
        names = ("X-Request-Id", *(_HEADERS_OF[status] if call.method == "post" else ()))
        responses[str(status)] = {"description": _MEANINGS[status], "headers": _headers(names), "content": content}
    for status in sorted({CATALOGUE[code].status for code in call.codes}):
        responses[str(status)] = _refusal(status, call.codes)
    described: Json = {
        "operationId": call.name,
        "summary": call.summary,
        "tags": [_tag(call)],
        "parameters": list(call.parameters),
        "responses": responses,
    }
    if call.scope == "open":
        described["security"] = []
    if call.body is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{call.body.__name__}"}}}
        described["requestBody"] = {"required": call.body not in _OPTIONAL, "content": content}
    return described


def _tag(call: Description) -> str:
    if call.scope == "operator":
        return "operators (ok_ keys)"
    if call in WEBHOOK_CALLS:
        return "webhooks"
    return "operations" if call.path.startswith("/v1/operations") else "payments"


def _refusal(status: int, codes: tuple[str, ...]) -> Json:
    these = [code for code in dict.fromkeys(codes) if CATALOGUE[code].status == status]
    return {
        "description": "; ".join(CATALOGUE[code].title for code in these) + ".",
        "headers": _headers(("X-Request-Id", *_HEADERS_OF.get(status, ()))),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
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
