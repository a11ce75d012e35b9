"""The bank's end of a TCP connection: hanging up without an answer, and the two deadlines of the contract.

ASGI has no word for closing a connection unanswered, so the protocol below hands the app one in the scope's extensions.
A request that does not arrive in time is cut off by a timer. An answer that is late is not: the handler runs to its
end, effect and key included, and only then the connection is closed instead of answering, as Go's WriteTimeout does.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, ClassVar, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HANG_UP = "penstock.hang_up"
BODY = "penstock.body"


class BankProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which can also hang up and does not wait for ever for a request."""

    read_timeout_s: ClassVar[float] = 0.0
    _read_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast(Transport, transport))
        self._start_read_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {HANG_UP: self.transport.close}
        self._start_read_timer()

    def on_message_complete(self) -> None:
        self._stop_read_timer()
        if self.cycle is not None:
            cast(dict[str, Any], self.cycle.scope["extensions"])[BODY] = bytes(self.cycle.body)
        super().on_message_complete()

    def _start_read_timer(self) -> None:
        self._stop_read_timer()
        if self.read_timeout_s > 0:
            self._read_timer = self.loop.call_later(self.read_timeout_s, self.transport.close)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None


async def read_whole_body(request: Request) -> bytes:
    """The body, also of a client that sent all of it and hung up while its request slept.

    ASGI forgets such a body; the contract's bank finds it in its buffer and executes. Raises ClientDisconnect when only
    a part has come.
    """
    arrived: bytes | None = request.scope["extensions"].get(BODY)
    return await request.body() if arrived is None else arrived


async def hang_up(scope: Scope, receive: Receive) -> None:
    """Close the connection without another byte, and return once the server has noticed."""
    scope["extensions"][HANG_UP]()
    while (await receive())["type"] != "http.disconnect":
        pass


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
