"""A JSON body as it arrives: declared as JSON in UTF-8, not compressed. What is in it is document.py's to read.

A declaration is a media type (RFC 9110, 8.3.1). JSON defines no parameters (RFC 8259, 11), so they are ignored, but for
a charset that is not UTF-8: who declares another one means other characters than would be read here.
"""

from __future__ import annotations

import re

from edge.server.request import Request
from engine.errors import Rejected

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"  # RFC 7396, for PATCH

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"[ \t]*({_TOKEN}/{_TOKEN})[ \t]*")
# One parameter or none behind a semicolon. What may follow one another differs in its first character: no backtracking.
_PARAMETER = re.compile(rf';[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*)?')
_UTF_8 = frozenset({"utf-8", "utf8"})


async def of_call(call: Request, *, required: bool) -> bytes:
    """The bytes of the body, declared as JSON. An optional one may be empty, and then needs no declaration.

    Raises Rejected(unsupported_media_type), saying what was declared wrongly and what to send.
    """
    refusal = _refusal(call)
    if required and refusal is not None:
        raise refusal
    body = await call.body()
    if body and refusal is not None:
        raise refusal
    return body


def media_types(method: str) -> tuple[str, ...]:
    """How the body of a call with this method may be declared."""
    return (JSON, MERGE_PATCH) if method.upper() == "PATCH" else (JSON,)


def _refusal(call: Request) -> Rejected | None:
    if call.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return _unsupported("The body is compressed. Send it without Content-Encoding.")
    content_type = call.headers.get(b"content-type", b"")
    if content_type == b"application/json":
        return None
    known = media_types(call.scope["method"])
    media_type, charsets = _parts(content_type.decode("latin-1"))
    if media_type not in known:
        return _unsupported(f"The body is not declared as JSON. Send Content-Type: {' or '.join(known)}.")
    if not _UTF_8.issuperset(charsets):
        return _unsupported(
            "The body is declared in another charset than UTF-8, the only one of JSON (RFC 8259). "
            f"Encode it in UTF-8 and send Content-Type: {known[0]}."
        )
    return None


def _parts(content_type: str) -> tuple[str, list[str]]:
    """The media type and its charsets, in small letters; "" for what is no media type."""
    found = _TYPE.match(content_type)
    if found is None:
        return "", []
    charsets, at = [], found.end()
    while at < len(content_type):
        parameter = _PARAMETER.match(content_type, at)
        if parameter is None:
            return "", []
        name, word, quoted = parameter.groups()
        if name is not None and name.lower() == "charset":
            charsets.append((re.sub(r"\\(.)", r"\1", quoted) if word is None else word).lower())
        at = parameter.end()
    return found[1].lower(), charsets


def _unsupported(detail: str) -> Rejected:
    return Rejected("unsupported_media_type", detail)
