"""The one documented list of problem codes (RFC 9457), and how a problem document is rendered.

The engine renders the problems that are stored with an operation (402, 409), the edge all others; both from this table,
which is also what is served at each `type` URI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from engine.errors import FieldError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKind:
    """One kind of problem: its HTTP status, a title, and what the reader can do about it."""

    status: int
    title: str
    meaning: str


def _kind(status: int, title: str, meaning: str) -> ProblemKind:
    return ProblemKind(status=status, title=title, meaning=meaning)


# fmt: off
CATALOGUE: Mapping[str, ProblemKind] = {
    "malformed_json":           _kind(400, "The body is not valid JSON", "Send one JSON object in UTF-8, each name once, nested at most 32 deep."),
    "malformed_request":        _kind(400, "The request is malformed", "Correct the header, parameter or framing that `detail` names."),
    "idempotency_key_missing":  _kind(400, "Idempotency-Key is missing", "Send an Idempotency-Key header: 1 to 255 printable ASCII characters, one value per intended operation."),
    "idempotency_key_invalid":  _kind(400, "Idempotency-Key is not usable", "Use 1 to 255 printable ASCII characters, bare or in double quotes."),
    "api_key_missing":          _kind(401, "X-API-Key is missing", "Send your secret key in the X-API-Key header."),
    "api_key_invalid":          _kind(401, "X-API-Key is not valid", "Check the key; it may have been revoked or rotated."),
    "card_declined":            _kind(402, "The payment was declined", "Ask the customer for another way to pay. Use a new Idempotency-Key for a new attempt."),
    "payment_failed":           _kind(402, "The bank refused the operation", "The operation had no effect; `detail` says what the bank said."),
    "scope_missing":            _kind(403, "The key lacks the scope", "Use a key whose scope allows this call."),
    "merchant_disabled":        _kind(403, "The merchant is disabled", "Ask the operator of this gateway to enable the merchant again."),
    "not_found":                _kind(404, "Not found", "There is nothing here that this key may see."),
    "method_not_allowed":       _kind(405, "The method is not allowed here", "Use one of the methods in the Allow header."),
    "request_timeout":          _kind(408, "The request did not arrive in time", "Nothing was accepted. Send it again, with the same key; `detail` says how long it may take."),
    "transition_not_allowed":   _kind(409, "The payment's state does not allow this", "Look at `payment_status` and `winning_operation`; the refusal is final for this key."),
    "authorization_expired":    _kind(409, "The authorization has expired", "Authorize again with a new Idempotency-Key."),
    "act_refused":              _kind(409, "The act was not carried out", "`detail` says why; look again before you ask for another one, under a new key."),
    "webhook_endpoint_limit":   _kind(409, "There are as many webhook endpoints as there may be", "Delete one that is not needed any more."),
    "webhook_endpoint_disabled": _kind(409, "The webhook endpoint is disabled", "Enable it first; what it missed can then be delivered again."),
    "webhook_endpoint_derived": _kind(409, "The webhook endpoint belongs to payments", "It stands for the `webhook_url` of payments: it can be looked at, disabled and enabled, and not changed."),
    "cursor_unknown":           _kind(410, "The cursor is of another history", "The event that it names is not in this ledger, which may have been restored from an older copy. Ask for `after=latest` and keep its cursor, read your open payments again, then go on from that cursor; or leave the cursor out and begin at your first event."),
    "payload_too_large":        _kind(413, "The body is too large", "Bodies have at most 64 KiB."),
    "unsupported_media_type":   _kind(415, "The body is not declared as JSON", "Send Content-Type: application/json."),
    "expectation_failed":       _kind(417, "The expectation cannot be met", "Send `Expect: 100-continue`, or no Expect header."),
    "validation_failed":        _kind(422, "A field is not valid", "Correct each field in `errors`."),
    "currency_not_supported":   _kind(422, "The currency is not supported", "The connector for this payment method does not take this currency."),
    "amount_not_supported":     _kind(422, "The amount is not supported", "The connector knows no partial amounts: leave `amount` out or send the full one."),
    "idempotency_key_reused":   _kind(422, "The key was used with another payload", "Use a new Idempotency-Key, or repeat the first payload exactly; `errors` names the fields that differ."),
    "too_many_open_operations": _kind(429, "Too many operations are open on this payment", "Wait until some of them are answered."),
    "rate_limited":             _kind(429, "Too many requests", "Slow down; Retry-After says for how long."),
    "overloaded":               _kind(503, "The gateway is full", "This call changed nothing, and a look-up found nothing out. Try again after Retry-After, with the same key."),
    "store_unavailable":        _kind(503, "A store is away", "Nothing is known to be lost. Try again after Retry-After; repeating the same key is safe."),
    "acceptance_unknown":       _kind(503, "The request may have been accepted", "Repeat it with the same Idempotency-Key: it will not be done twice."),
    "internal_error":           _kind(500, "The gateway made a mistake", "Repeating the same key is safe. Tell the operator the request_id."),
}
# fmt: on


def type_uri(code: str) -> str:
    """The `type` of a problem: a path of this gateway that describes the code."""
    return f"/problems/{code}"


def render(
    code: str,
    detail: str,
    *,
    request_id: str,
    instance: str | None = None,
    errors: Sequence[FieldError] = (),
    extra: Mapping[str, object] | None = None,
) -> bytes:
    """A problem document. `extra` adds members such as decline_code, operation_id or payment_status."""
    kind = CATALOGUE[code]
    document: dict[str, object] = {
        "type": type_uri(code),
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
    }
    if errors:
        document["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in errors]
    document.update(extra or {})
    return orjson.dumps(document)
