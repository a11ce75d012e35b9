"""An answer: status, body and headers, and how an engine's reply becomes one.

Header lists are built once, here; per request only what differs is added.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

import orjson

from engine.contracts.gateway import StoredResponse
from engine.contracts.webhooks import KeyedResponse
from engine.problem import MEDIA_TYPE

Header = tuple[bytes, bytes]

JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
PROBLEM: tuple[Header, ...] = ((b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store"))
HTML: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"),
)
REPLAYED: Header = (b"idempotent-replayed", b"true")
_ASK_SOON: Header = (b"retry-after", b"1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What goes out. Date, Content-Length and X-Request-Id are added when it is sent."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = JSON


def date() -> bytes:
    """The Date of an answer that is made now (RFC 9110, 6.6.1); uvicorn's would be that of the request's arrival."""
    return _date(int(time.time()))


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def of_document(document: object, *, status: int = 200, headers: tuple[Header, ...] = JSON) -> Response:
    """An answer with this document as JSON."""
    return Response(status=status, body=orjson.dumps(document), headers=headers)


def of_answered(answered: KeyedResponse) -> Response:
    """What a change of webhooks came to, now or at the first use of its key."""
    headers = JSON
    if answered.status == 201:
        headers += ((b"location", b"/v1/webhook-endpoints/" + orjson.loads(answered.body)["id"].encode()),)
    if answered.replayed:
        headers += (REPLAYED,)
    return Response(status=answered.status, body=answered.body, headers=headers)


def of_reply(reply: StoredResponse, wait_s: int) -> Response:
    """The engine's reply, its bytes untouched. `wait_s` is the Prefer: wait that was asked for."""
    status = reply.status
    headers = JSON if status < 400 else PROBLEM
    if status in (201, 202):
        headers += ((b"location", b"/v1/payments/" + reply.payment.encode()),)
    if status == 202:
        headers += (_ASK_SOON,)
    if reply.replayed:
        headers += (REPLAYED,)
    if reply.waited:
        headers += ((b"preference-applied", b"wait=%d" % wait_s),)
    return Response(status=status, body=reply.body, headers=headers)
