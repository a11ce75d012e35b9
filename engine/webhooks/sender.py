"""The webhook sender: one webhook to one address, at most one answer, whatever waits there.

Bounded against what an endpoint may do: connect to inside our network (every address is judged, and the one that was
judged is the one connected to), redirect, answer with a gigabyte or garbage, or never. Retries are the dispatcher's.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
    hdrs,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from engine.contracts.url_policy import UrlPolicy, normal_form
from engine.contracts.webhooks import AttemptOutcome
from engine.webhooks.delivery import RETRY_AFTER_S_MAX, EndpointReply
from engine.webhooks.resolver import ForbiddenAddress, GuardedResolver, SystemResolver, is_allowed, on_behalf_of

BODY_BYTES_KEPT = 1024
_READ_BYTES = 4096  # what may be in memory of an answer; the rest stays in the socket and is never asked for
_BODY_S = 2.0  # the status is the answer; its body is a courtesy to whoever reads the log
_KEEPALIVE_S = 4.0  # below the 5 s after which common servers hang up, so that it is we who close
_URLS_MAX = 10_000  # verdicts kept: some megabytes
_RETRY_AFTER_MAX = 64  # characters: twice the longest date
_HEADERS: Mapping[str, str] = {
    hdrs.ACCEPT: "*/*",
    hdrs.ACCEPT_ENCODING: "identity",
    hdrs.CONTENT_TYPE: "application/json",
    hdrs.USER_AGENT: "penstock-webhooks",
}


class WebhookSender:
    """An async context manager: connections live as long as it is open. `names_s`: how long a look-up is believed."""

    def __init__(
        self, url_policy: UrlPolicy, *, timeout_ms: int, resolver: AbstractResolver | None = None, names_s: int = 10
    ) -> None:
        self._url_policy = url_policy
        self._timeout_s = timeout_ms / 1000
        self._resolver, self._names_s = resolver, names_s
        self._refusal_of = lru_cache(_URLS_MAX)(url_policy.refusal_of_url)
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        pool = TCPConnector(
            limit=0,  # the dispatcher bounds what is under way, for each endpoint and in all
            keepalive_timeout=_KEEPALIVE_S,
            resolver=GuardedResolver(self._url_policy, self._resolver or SystemResolver()),
            use_dns_cache=self._names_s > 0,
            ttl_dns_cache=self._names_s,
            socket_factory=self._socket,
        )
        self._session = ClientSession(
            connector=pool, cookie_jar=DummyCookieJar(), auto_decompress=False, read_bufsize=_READ_BYTES
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, merchant: str = "") -> EndpointReply:
        """One attempt, over within the timeout. Raises nothing for what an endpoint may do. `merchant`: whose look-up
        of a name it is."""
        on_behalf_of(merchant)
        refusal = self._refusal_of(url)
        if refusal is not None:
            return EndpointReply(outcome=AttemptOutcome.FORBIDDEN, error=refusal)
        began = time.monotonic()
        try:
            try:
                reply = await self._exchange(url, headers, body, began)
            except (ServerDisconnectedError, ClientOSError) as fault:
                if isinstance(fault, ClientConnectorError):
                    raise
                # The endpoint closed a kept connection as we wrote to it. A new one will tell whether it is there.
                reply = await self._exchange(url, headers, body, began)
        except (ClientError, OSError, ValueError) as fault:  # time-outs are OSErrors, bad URLs are ValueErrors
            outcome, error = _reading(fault)
            return EndpointReply(outcome=outcome, error=error, duration_ms=_since_ms(began))
        return reply

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, began: float) -> EndpointReply:
        if self._session is None:
            raise RuntimeError("the courier is not open")
        left_s = max(0.001, began + self._timeout_s - time.monotonic())
        timeout = ClientTimeout(total=left_s, ceil_threshold=math.inf)  # else long ones are rounded up
        # As it was registered, byte for byte: a shop may sign or compare what it is called with. Where it leads is read
        # from the same parts of the URL that were judged (url_policy.py).
        literal = URL(normal_form(url), encoded=True)
        headers = {**_HEADERS, hdrs.HOST: urlsplit(url).netloc, **headers}
        async with self._session.post(
            literal, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            text = await _beginning(response, min(_BODY_S, began + self._timeout_s - time.monotonic()))
            return EndpointReply(
                outcome=_OUTCOMES.get(response.status, _by_class(response.status)),
                status=response.status,
                body=text,
                retry_after_s=_retry_after_s(response.headers.get(hdrs.RETRY_AFTER)),
                duration_ms=_since_ms(began),
            )

    def _socket(self, address: Any) -> socket.socket:
        """The last gate before a connection: whatever named it, this is where the packets would go."""
        family, kind, proto, _, where = address
        if not is_allowed(self._url_policy, str(where[0])):
            raise ForbiddenAddress
        return socket.socket(family, kind, proto)


_OUTCOMES = {410: AttemptOutcome.GONE}


def _by_class(status: int) -> AttemptOutcome:
    return AttemptOutcome.DELIVERED if 200 <= status < 300 else AttemptOutcome.REFUSED


async def _beginning(response: ClientResponse, patience_s: float) -> str:
    """The first KiB of the answer's body. A longer or slower rest is not waited for, and its connection not kept."""
    start = b""
    if response.content.at_eof():
        return ""
    try:
        async with asyncio.timeout(patience_s):
            while len(start) <= BODY_BYTES_KEPT and (chunk := await response.content.read(_READ_BYTES)):
                start += chunk
    except (ClientError, OSError):
        pass
    if not response.content.at_eof():
        response.close()
    return start[:BODY_BYTES_KEPT].decode(errors="replace").replace("\x00", "�")


def _reading(fault: Exception) -> tuple[AttemptOutcome, str]:
    """A fault in words that say nothing of our network."""
    if isinstance(fault, TimeoutError):
        return AttemptOutcome.TIMEOUT, "no answer in time"
    cause = fault.os_error if isinstance(fault, ClientConnectorError) else fault
    if isinstance(cause, ForbiddenAddress) or str(ForbiddenAddress()) in str(cause):
        return AttemptOutcome.FORBIDDEN, str(ForbiddenAddress())
    if isinstance(cause, socket.gaierror):
        return AttemptOutcome.UNREACHABLE, "the name was not found"
    if isinstance(fault, ClientConnectorError):
        return AttemptOutcome.UNREACHABLE, f"no connection: {type(cause).__name__}"
    return AttemptOutcome.UNREACHABLE, f"no HTTP answer: {type(fault).__name__}"


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3), between now and RETRY_AFTER_S_MAX; None for anything else."""
    if value is None or len(value) > _RETRY_AFTER_MAX:
        return None
    text = value.strip()
    try:
        # Of a date everything may be out of bounds: its year, its day, its zone.
        asked_s = int(text) if text.isascii() and text.isdigit() else _until_s(parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError):
        return None
    return float(min(max(asked_s, 0), RETRY_AFTER_S_MAX))


def _until_s(at: datetime) -> float:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()


def _since_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
