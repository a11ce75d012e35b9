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
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

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
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from engine.contracts.url_policy import UrlPolicy
from engine.contracts.webhooks import AttemptOutcome
from engine.webhooks.delivery import EndpointReply

BODY_BYTES_KEPT = 1024
_READ_BYTES = 4096  # what may be in memory of an answer; the rest stays in the socket and is never asked for
_BODY_S = 2.0  # the status is the answer; its body is a courtesy to whoever reads the log
_KEEPALIVE_S = 4.0  # below the 5 s after which common servers hang up, so that it is we who close
_URLS_MAX = 10_000  # verdicts kept: some megabytes
_LOOKUPS_MAX = 64  # names that are looked up at once; one whose servers are silent holds a thread for long
_HEADERS: Mapping[str, str] = {
    hdrs.ACCEPT: "*/*",
    hdrs.ACCEPT_ENCODING: "identity",
    hdrs.CONTENT_TYPE: "application/json",
    hdrs.USER_AGENT: "penstock-webhooks",
}


class ForbiddenAddress(OSError):
    """This address must not be called. The same text for each, because several at once are told by their text."""

    def __init__(self) -> None:
        super().__init__("the address is not public")


class SystemResolver(AbstractResolver):
    """The system's resolver in threads of its own: silent name servers of one endpoint hold up no other's names."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS_MAX, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Refuses a name as a whole when any of its addresses leads inside."""

    def __init__(self, url_policy: UrlPolicy, resolver: AbstractResolver) -> None:
        self._url_policy, self._resolver = url_policy, resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(_allowed(self._url_policy, one["host"]) for one in found):
            raise ForbiddenAddress
        return found

    async def close(self) -> None:
        await self._resolver.close()


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

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> EndpointReply:
        """One attempt, over within the timeout. Raises nothing for what an endpoint may do."""
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
        # As it was registered, byte for byte: a shop may sign or compare what it is called with.
        literal, headers = URL(url, encoded=True), dict(_HEADERS) | dict(headers)
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
        if not _allowed(self._url_policy, str(where[0])):
            raise ForbiddenAddress
        return socket.socket(family, kind, proto)


_OUTCOMES = {410: AttemptOutcome.GONE}


def _by_class(status: int) -> AttemptOutcome:
    return AttemptOutcome.DELIVERED if 200 <= status < 300 else AttemptOutcome.REFUSED


def _allowed(url_policy: UrlPolicy, address: str) -> bool:
    try:
        return url_policy.allows(ip_address(address.partition("%")[0]))  # without the zone of a link-local one
    except ValueError:
        return False


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
    """Seconds or an HTTP date (RFC 9110, 10.2.3); None for anything else."""
    if value is None or len(value) > 64:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _since_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
