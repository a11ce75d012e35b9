"""Answers: the two error shapes of the contract, its codes, and JSON as it writes it."""

from collections.abc import Mapping

import orjson
from starlette.responses import PlainTextResponse, Response

NOSNIFF = {"X-Content-Type-Options": "nosniff"}

# fmt: off
REFUSALS: Mapping[str, tuple[int, str]] = {
    # code                        status  message
    "invalid_card":               (400, "card not found or invalid"),
    "invalid_cvv":                (400, "CVV does not match"),
    "invalid_amount":             (400, "invalid amount: must be greater than 0"),
    "card_expired":               (400, "card has expired"),
    "insufficient_funds":         (402, "insufficient funds"),
    "authorization_not_found":    (400, "authorization not found"),
    "authorization_already_used": (400, "authorization has already been completed or cancelled"),
    "authorization_expired":      (400, "authorization has expired"),
    "amount_mismatch":            (400, "capture amount does not match authorized amount"),
    "already_captured":           (400, "authorization has already been captured"),
    "already_voided":             (400, "authorization has already been voided"),
    "capture_not_found":          (400, "capture not found"),
    "already_refunded":           (400, "capture has already been refunded"),
    "not_found":                  (404, "not found"),
}
# fmt: on


def reply(body: Mapping[str, object], status: int = 200) -> Response:
    """JSON with the keys in alphabetical order and a newline at the end."""
    content = orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, media_type="application/json")


def refusal(code: str, message: str | None = None) -> Response:
    """An error of the contract by its code, with its own message unless a better one is given."""
    status, usual_message = REFUSALS[code]
    return reply({"error": code, "message": message or usual_message}, status)


def failure(status: int, message: str) -> Response:
    """`internal_error`, which comes as 500 and, where the contract wraps a database error, as 400."""
    return reply({"error": "internal_error", "message": message}, status)


def text_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error that never reached a handler, in the plain text of Go's http.Error."""
    return PlainTextResponse(f"{message}\n", status, headers={**NOSNIFF, **(headers or {})})
