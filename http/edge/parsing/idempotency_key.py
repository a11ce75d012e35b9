"""The Idempotency-Key header (IETF httpapi draft): bare, or quoted as an RFC 8941 string; both are the same key."""

from __future__ import annotations

import re

from edge.server.request import Request
from engine.errors import Rejected

HEADER = b"idempotency-key"
KEY_CHARACTERS_MAX = 255

# The same two as one pattern, for the description; spaces around a header's value are no part of it.
FORM = r'^(?:[!#-~](?:[ -~]{0,253}[!-~])?|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'
_BARE = re.compile(rb"[\x20\x21\x23-\x7e][\x20-\x7e]{0,254}\Z")  # anything printable that does not open a quotation
_QUOTED = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"\Z')
_ESCAPED = re.compile(rb'\\(["\\])')
_DERIVED = re.compile(r"drv_[0-9A-Fa-f]{64}\Z")


def of_call(call: Request) -> str:
    """The key of a POST. Raises Rejected: missing or empty, unusable, sent twice, or derived."""
    value = call.headers.get(HEADER, b"").strip(b" \t")
    if HEADER in call.repeated:
        raise Rejected("idempotency_key_invalid", "Idempotency-Key was sent more than once. Send it exactly once.")
    if not value:
        raise Rejected(
            "idempotency_key_missing", "Idempotency-Key is missing or empty. Send one that names this attempt."
        )
    key = parse(value)
    if _DERIVED.match(key):
        raise Rejected(
            "validation_failed",
            "Keys of the form drv_<64 hex digits> are reserved for derived keys, which are not available yet. "
            "Send a key of another form.",
        )
    return key


def parse(value: bytes) -> str:
    """The key that a header value stands for. Raises Rejected(idempotency_key_missing or idempotency_key_invalid)."""
    if _BARE.match(value):
        return value.decode()
    quoted = _QUOTED.match(value)
    if quoted is not None:
        key = _ESCAPED.sub(rb"\1", quoted[1])
        if not key:
            raise Rejected(
                "idempotency_key_missing", "Idempotency-Key is an empty string. Send one that names this attempt."
            )
        if len(key) <= KEY_CHARACTERS_MAX:
            return key.decode()
    raise Rejected(
        "idempotency_key_invalid",
        f"Idempotency-Key must be 1 to {KEY_CHARACTERS_MAX} printable ASCII characters, bare or as one string in "
        'double quotes (with only \\" and \\\\ as escapes).',
    )
