"""The bank's end of a TCP connection: hang-ups of either side, expectations, and the two deadlines of the contract.

ASGI has no word for any of them, so the protocol below tells the app, and is told, in the scope's extensions.
A request that does not arrive in time is cut off by a timer, a body among its handler's reading. An answer that is
late is not: the handler runs to its end, effect and key included, and only then the connection is closed instead of
answering, as Go's WriteTimeout does.
"""

import re
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bank.simulator.capacity import TURNED_AWAY_S, Capacity, turned_away
from bank.simulator.hang_up import CLIENT, Client

HANG_UP = "penstock.hang_up"
BODY = "penstock.body"
TIMED_OUT = "penstock.timed_out"  # The body came too late, and this says so.
GO_ON = "penstock.go_on"  # Sends 100 Continue. It is there as long as the client waits for it.
MISFIT = "penstock.misfit"  # The status of a request that no handler sees.
NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
MISFITS = {
    400: PlainTextResponse("400 Bad Request", 400, {"Connection": "close"}),
    417: Response(status_code=417, headers={"Connection": "close"}),
}


class BankProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also knows hang-ups and does not wait for ever for a request."""

    read_timeout_s: ClassVar[float] = 0.0
    capacity: ClassVar[Capacity]
    _served = True
    _read_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast(Transport, transport))
        self._far_end = Client()
        self._start_read_timer()
        if not self.capacity.has_room(len(self.connections)):
            self._turn_away()

    def _turn_away(self) -> None:
        self._served = False
        if self.capacity.has_words_for(len(self.connections)):
            self.loop.call_later(TURNED_AWAY_S, self.transport.close)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._served:
            super().data_received(data)
        elif not self.transport.is_closing():
            self.transport.write(turned_away())
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        super().connection_lost(exc)
        self._far_end.leave()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the answer, uvicorn gives none.
        """A client that only stopped sending has hung up, for the contract's bank, but it is answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        if cycle.more_body:
            self._end_body(cycle)
        cycle.keep_alive = False
        self._far_end.leave()
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {HANG_UP: self.transport.close, CLIENT: self._far_end}
        self._start_read_timer()

    def on_headers_complete(self) -> None:
        extensions = cast(dict[str, Any], self.scope)["extensions"]
        self.expect_100_continue = False  # uvicorn only takes the one spelling, and forgets it when the body is there.
        if b"#" in self.url:  # A fragment has no place in a request, so it is part of the path.
            self.url = self.url.replace(b"#", b"%23")
        if b"%" in self.url and NO_ESCAPE.search(self.url.partition(b"?")[0]):
            extensions[MISFIT] = 400
        super().on_headers_complete()
        expected = next((value for name, value in self.headers if name == b"expect"), b"")
        if expected:
            self._expect(expected, self.cycle, extensions)

    def _expect(self, expected: bytes, cycle: RequestResponseCycle, extensions: dict[str, Any]) -> None:
        if b"100-continue" not in [token.strip(b" \t").lower() for token in expected.split(b",")]:
            extensions[MISFIT] = 417
        elif cycle.scope["http_version"] == "1.1" and _has_body(self.headers):
            extensions[GO_ON] = lambda: self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_message_complete(self) -> None:
        self._stop_read_timer()
        if self.cycle is not None:
            cast(dict[str, Any], self.cycle.scope["extensions"])[BODY] = bytes(self.cycle.body)
        super().on_message_complete()

    def _end_body(self, cycle: RequestResponseCycle) -> None:
        """Leave the request with the part of its body that has come: the rest will not."""
        cast(dict[str, Any], cycle.scope["extensions"])[BODY] = bytes(cycle.body)
        cycle.more_body = False
        cycle.message_event.set()

    def _read_timed_out(self) -> None:
        """Without a request under way the connection ends; one whose body is too late is answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            self.transport.close()
            return
        here, there = (":".join(map(str, self.transport.get_extra_info(name)[:2])) for name in ("sockname", "peername"))
        cast(dict[str, Any], cycle.scope["extensions"])[TIMED_OUT] = f"read tcp {here}->{there}: i/o timeout"
        cycle.keep_alive = False
        self._end_body(cycle)

    def _start_read_timer(self) -> None:
        self._stop_read_timer()
        if self.read_timeout_s > 0:
            self._read_timer = self.loop.call_later(self.read_timeout_s, self._read_timed_out)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None


async def read_whole_body(request: Request) -> bytes:
    """The body, also of a client that sent all of it and hung up while its request slept.

    ASGI forgets such a body; the contract's bank finds it in its buffer and executes. Raises ClientDisconnect when only
    a part has come.
    """
    extensions = request.scope["extensions"]
    if go_on := extensions.pop(GO_ON, None):
        go_on()
    arrived: bytes | None = extensions.get(BODY)
    return await request.body() if arrived is None else arrived


def read_failure(request: Request) -> str | None:
    """Why the body broke off, if it did so because it was too late."""
    failure: str | None = request.scope["extensions"].get(TIMED_OUT)
    return failure


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection without another byte, and return once the server has noticed."""
    scope["extensions"][HANG_UP]()
    while (await receive())["type"] != "http.disconnect":
        pass


class Expectations:
    """The ASGI layer that answers requests of which no handler hears, as Go's server does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions = scope.get("extensions") or {}
        if MISFIT in extensions:
            await MISFITS[extensions[MISFIT]](scope, receive, send)
        elif GO_ON in extensions:
            await self.app(scope, receive, _closing_if_waiting(extensions, send))
        else:
            await self.app(scope, receive, send)


def _closing_if_waiting(extensions: dict[str, Any], send: Send) -> Send:
    """Whoever is answered without having been told to go on must not send the body any more."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start" and GO_ON in extensions:
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return closing


def _has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(n == b"transfer-encoding" or (n == b"content-length" and v.strip(b"0 ")) for n, v in headers)


class WriteDeadline:
    """The outermost ASGI layer: an answer later than the write timeout is dropped with its connection."""

    def __init__(self, app: ASGIApp, *, write_timeout_s: float, now_s: Any) -> None:
        self.app = app
        self.write_timeout_s = write_timeout_s
        self.now_s = now_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.write_timeout_s <= 0:
            await self.app(scope, receive, send)
            return
        deadline_s = self.now_s() + self.write_timeout_s

        async def send_in_time(message: Message) -> None:
            if self.now_s() > deadline_s:
                await hang_up(scope, receive)
            else:
                await send(message)

        await self.app(scope, receive, send_in_time)
