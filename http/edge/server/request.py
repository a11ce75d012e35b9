"""A call: one HTTP request as the edge reads it, with its headers, its id and its bounded body.

Reads no more of a body than it may have (64 KiB), whatever the client declares, and never less than was announced.
Leaves meaning to others: document.py reads JSON, payment_bodies.py fields, authentication.py keys.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.types import Receive, Scope

from edge.server.admission import Slot
from engine.errors import Rejected

BODY_BYTES_MAX = 64 * 1024  # the largest honest body (metadata 8 KiB, webhook_url 2 KiB) is a quarter of it
BODY_WITHIN_S = 10.0  # from its head to its end, for a slow client; its call holds a place meanwhile (connection.py)

Result = TypeVar("Result")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=-]{1,128}\Z")
_CARD_NUMBER = re.compile(r"(?<![0-9A-Za-z_])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


class Disconnected(Exception):
    """The client went away before it had said everything; there is nobody to answer."""


class Request:
    """One request. `merchant`, and for operators `actor` (the id of their key), are set once the key is known, `place`
    once it is admitted; `framing_broken`: the connection cannot be used again."""

    __slots__ = (
        *("_body_read", "_receive", "actor", "framing_broken", "headers", "merchant", "place", "repeated"),
        *("_new_request_id", "request_id", "scope"),
    )

    def __init__(self, scope: Scope, receive: Receive, new_request_id: Callable[[], str]) -> None:
        self.scope = scope
        self._receive = receive
        self._body_read = False
        self.framing_broken = False
        self.merchant = self.actor = ""
        self.place: Slot | None = None
        self.headers: dict[bytes, bytes] = {}
        self.repeated: tuple[bytes, ...] = ()
        headers = self.headers
        for name, value in scope["headers"]:
            if name in headers:  # RFC 9110, 5.3: several lines of a list are one list
                headers[name] += b", " + value
                self.repeated += (name,)
            else:
                headers[name] = value
        self._new_request_id = new_request_id
        offered = headers.get(b"x-request-id")
        self.request_id = offered.decode() if offered and _REQUEST_ID.match(offered) else new_request_id()

    def rename(self) -> None:
        """Give it an id of ours: the client's must not be kept or shown."""
        self.request_id = self._new_request_id()

    @property
    def path(self) -> str:
        """The path as it was sent, fit to be shown: short, and without what may be a card number (I9)."""
        raw: bytes = self.scope.get("raw_path") or self.scope["path"].encode("utf-8", "replace")
        return _CARD_NUMBER.sub("…", raw[:256].decode("ascii", "replace"))

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context, if the client sent a sound one."""
        value = self.headers.get(b"traceparent")
        return value.decode() if value and _TRACEPARENT.match(value) else None

    def parameter(self, name: str) -> str:
        """A parameter of the route's path."""
        value: str = self.scope["path_params"][name]
        return value

    def prefers_html(self) -> bool:
        """Whether a browser is asking."""
        return b"text/html" in self.headers.get(b"accept", b"")

    def declares_too_much(self) -> bool:
        """Whether an unread body could be larger than any that is accepted, or might never come: a client that waits to
        be told to send it (Expect: 100-continue) may go on with its next request instead."""
        if self._body_read:
            return self.framing_broken
        length = self.headers.get(b"content-length", b"0")
        announced_only = b"transfer-encoding" in self.headers or b"expect" in self.headers
        return announced_only or not length.isdigit() or int(length[:20]) > BODY_BYTES_MAX

    async def body(self) -> bytes:
        """The whole body. Raises Rejected (payload_too_large as soon as it is known, malformed_request where it is not
        what was announced) and Disconnected, also when it has not come within BODY_WITHIN_S (connection.py)."""
        announced = self.headers.get(b"content-length")
        if announced is not None and (not announced.isdigit() or int(announced[:20]) > BODY_BYTES_MAX):
            raise _too_large()
        self._body_read = self.framing_broken = True  # broken until the end is seen
        chunks, size, more = [], 0, True
        while more and size <= BODY_BYTES_MAX:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Disconnected
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
        if size > BODY_BYTES_MAX:
            raise _too_large()
        if announced is not None and size != int(announced):
            detail = f"Content-Length announced {int(announced)} bytes, and {size} came. Nothing was accepted."
            raise Rejected("malformed_request", detail)
        self.framing_broken = False
        return b"".join(chunks)

    async def while_connected(self, work: Awaitable[Result]) -> Result:
        """The result of `work`, which is cancelled when the client hangs up. Raises Disconnected.

        For those who wait (Prefer: wait): nobody waits for them any more. The body must have been read.
        """
        with anyio.CancelScope() as scope:
            listening = asyncio.create_task(self._cancel_when_gone(scope))
            try:
                return await work
            finally:
                listening.cancel()
        raise Disconnected

    async def _cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        while (await self._receive())["type"] == "http.request":
            pass
        scope.cancel()


def _too_large() -> Rejected:
    return Rejected(
        "payload_too_large", f"The body is larger than {BODY_BYTES_MAX} bytes. Send less, for example less metadata."
    )
