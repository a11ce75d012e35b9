"""A JSON body as it arrives: declared as JSON in UTF-8, not compressed. What is in it is document.py's to read."""

from __future__ import annotations

from edge.server.request import Request
from engine.errors import Rejected


async def of_call(call: Request, *, required: bool) -> bytes:
    """The bytes of the body, declared as JSON. An optional one may be empty, and then needs no declaration."""
    content_type = call.headers.get(b"content-type", b"")
    declared = content_type == b"application/json" or _is_json(content_type)
    encoded = call.headers.get(b"content-encoding", b"identity") != b"identity"
    if required and (not declared or encoded):
        raise _unsupported(encoded)
    body = await call.body()
    if body and (not declared or encoded):
        raise _unsupported(encoded)
    return body


def _is_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.decode("latin-1").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    return media_type.strip() == "application/json" and charset in ("", "charset=utf-8")


def _unsupported(encoded: bool) -> Rejected:
    if encoded:
        return Rejected("unsupported_media_type", "The body is compressed. Send it without Content-Encoding.")
    return Rejected(
        "unsupported_media_type", "The body is not declared as JSON in UTF-8. Send Content-Type: application/json."
    )
