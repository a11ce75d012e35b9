"""One connection: uvicorn's fast protocol, made strict, and with an end to everything.

Time: nothing that a client leaves unfinished is kept for ever: a head, a body, an answer that it does not read.
Framing: an upgrade that is not taken is ignored, and what is no sound HTTP gets a problem document, after the answers
that are owed before it. Ends: a client that half-closes gets its answers, one that hung up is noticed, and an answer to
somebody who still sends is not lost (lingering close, RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import OrderedDict, deque
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edge.server import framing
from edge.server import request as call
from edge.server.connection_keeper import Keeper, Kept
from engine.problem import MEDIA_TYPE, render

HEAD_BYTES_MAX = 32 * 1024  # honest ones have 1 to 2 KiB, with cookies and traces of many proxies 16
HEAD_WITHIN_S = 20.0  # from its first byte; a head is one packet, so even a bad line needs only seconds
KEEP_ALIVE_S = (
    75.0  # silent; above the usual 60 s of load balancers, so that they close first and no call meets a shut door
)
SEND_WITHIN_S = 30.0  # a client that reads nothing of its answer for so long does not want it
LINGER_S = 20.0  # an answer to somebody who still sends: 11 MB take 18 s at 5 Mbit/s
LINGER_BYTES_MAX = 64 * 1024 * 1024  # read and thrown away meanwhile; no memory, only what the line carries
PIPELINED_MAX = 100  # requests behind the one that is being answered; more than any client sends, and 300 KB at most

_BEGINNING = b"HTTP/1.1 "  # of every answer
_OFFER = frozenset((b"upgrade", b"http2-settings"))


class Connection(HttpToolsProtocol):
    """One connection. `deadline` (on the loop's clock) is when the keeper ends what is going on now."""

    deadline = math.inf
    resting: OrderedDict[Kept, None] | None = None

    def __init__(self, keeper: Keeper, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._keeper = keeper
        self._running: RequestResponseCycle | None = None
        self._in_head = self._in_message = False
        self._unfinished_bytes = self._packet_bytes = 0
        self._deaf = self._closing = self._half_closed = False
        self._begun = b""
        self._linger_bytes = LINGER_BYTES_MAX

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._keeper.has_room(self):
            self._limit()
        else:
            detail = "Too many connections are open here. Nothing was accepted; try again, on fewer connections."
            self.refuse("overloaded", detail, b"retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.gone(self)
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn tells only the newest of several calls
            _hang_up(self._running)

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._closing:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self.transport.abort()
            return
        cycle, in_message, self._packet_bytes = self.cycle, self._in_message, len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._read_without_offer(memoryview(data)[offer.args[0] :])
        except httptools.HttpParserError as error:
            fault = error.__context__  # what a callback raised; the parser's own words repeat nothing of the request
            if not isinstance(fault, framing.Unsound):
                fault = framing.Unsound(f"{error}. Send HTTP/1.1." if fault is None else "The target is not a URL.")
            self.refuse(fault.code, fault.detail)
            return
        # Where nothing began or ended, all of it is of one head or trailer, or of one body, which on_body subtracts.
        if (self._in_head or self._in_message) and cycle is self.cycle and in_message == self._in_message:
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > HEAD_BYTES_MAX:
                self.refuse("malformed_request", _HEAD_TOO_LONG)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. Returns True while it still gets an answer."""
        self._half_closed = True
        if (self._in_head or self._in_message) and not self._closing:
            self.refuse("malformed_request", "The request ended before it was complete. Nothing was accepted.")
        if self._closing or self._running is None or self.scheme == "https":  # TLS knows no half-closed connections
            return False
        (self.pipeline[0][0] if self.pipeline else self._running).keep_alive = False
        self._begin_answer()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._within(SEND_WITHIN_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._closing:
            self._limit()

    # What the parser tells.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._unfinished_bytes = True, 0
        self._limit()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer field: never merged with the head (RFC 9110, 6.5.1)
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if self.parser.should_upgrade() and method != b"CONNECT":
            return  # read again without the offer
        self.expect_100_continue = framing.check(version, method, self.url, self.headers)
        if self._unfinished_bytes + self._packet_bytes > HEAD_BYTES_MAX < framing.size(self.url, self.headers):
            raise framing.Unsound(_HEAD_TOO_LONG)
        if len(self.pipeline) >= PIPELINED_MAX:
            raise framing.Unsound("Too many requests were sent before the first was answered.")
        if not self.url.startswith(b"/"):
            self._take_path()
        self._in_head, self._in_message, self._unfinished_bytes = False, True, 0
        super().on_headers_complete()
        self.cycle.transport = self  # type: ignore[assignment]  # of a transport, a cycle needs our three methods
        self._keeper.busy(self)
        self._limit()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = -self._packet_bytes
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._in_head:
            return
        self._in_message = False
        super().on_message_complete()
        self._limit()

    # What a call writes to.

    def write(self, data: bytes) -> None:
        """Send a part of an answer; its first bytes may be on their way already."""
        if self._begun:
            data, self._begun = data.removeprefix(self._begun), b""
        self.transport.write(data)

    def close(self) -> None:
        """End the connection, so that the last answer is read: closed over unread bytes, it would be reset."""
        if self._closing:
            return
        self._closing = True
        self._within(LINGER_S)
        if self._half_closed or not (self._deaf or self._in_head or self._in_message):
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._keeper.idle(self, used=False)

    def is_closing(self) -> bool:
        return self._closing or self.transport.is_closing()

    # What uvicorn and the keeper call.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._running = None
        if self.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.flow.resume_reading()
        self._limit()

    def shutdown(self) -> None:
        if self._closing:
            self.transport.close()
        else:
            super().shutdown()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._closing or self.flow.write_paused:
            self.transport.abort()
        elif self._in_head:
            self.refuse("request_timeout", f"The head was not complete within {HEAD_WITHIN_S:.0f} s. Send it again.")
        elif self._running is not None:
            detail = (
                f"The body was not complete within {call.BODY_WITHIN_S:.0f} s. Nothing was accepted; send it again."
            )
            self.refuse("request_timeout", detail)
        else:
            self.close()

    def drop(self) -> None:
        """Make room for somebody else. Called only while no call is under way."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def look_at_peer(self) -> None:
        """End the connection when its half-closed peer has turned out to be gone."""
        if not self.transport.is_closing():
            wire: socket.socket = self.transport.get_extra_info("socket")
            if wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.transport.abort()

    def refuse(self, code: str, detail: str, headers: bytes = b"") -> None:
        """Answer what cannot be handled, after the calls before it, and close. Nothing more is read."""
        broken, self._deaf = (self.cycle if self._in_message else None), True
        if self._in_head:
            self._linger_bytes = HEAD_BYTES_MAX * 8  # no honest client has much more to say after half a head
        if broken is not None:
            _hang_up(broken)
            self.pipeline = deque(waiting for waiting in self.pipeline if waiting[0] is not broken)
        if self._running is not None and self._running is not broken:
            # Whoever pipelines repeats what is unanswered when the connection ends (RFC 9112, 9.3.2).
            (self.pipeline[0][0] if self.pipeline else self._running).keep_alive = False
            return
        if broken is None or not broken.response_started:
            body = render(code, detail, request_id="")
            self.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\ncache-control: no-store\r\n%s"
                b"connection: close\r\n\r\n%s" % (*_STATUS[code], MEDIA_TYPE.encode(), len(body), headers, body)
            )
        self.close()

    # Its own.

    def _read_without_offer(self, rest: memoryview) -> None:
        """llhttp leaves what follows an offered upgrade to the other protocol. Nobody speaks one here: the same head
        without the offer is the same request (RFC 9110, 7.8), and this time its body is read."""
        while True:
            version = self.parser.get_http_version().encode()
            head = [b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%s: %s\r\n" % header for header in self.headers if header[0] not in _OFFER]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(b"".join((*head, b"\r\n")))
            try:
                if rest:
                    self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]

    def _take_path(self) -> None:
        """Of a target in absolute form the path counts; the host is the one that was connected to."""
        target = httptools.parse_url(self.url)
        self.url = (target.path or b"/") + (b"?" + target.query if target.query else b"")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _begin_answer(self) -> None:
        """Send the bytes that every answer begins with: a client that only half-closed waits for them, and one that has
        hung up resets the connection, which is how the two are told apart."""
        if self._running is not None and not self._running.response_started and not self._begun:
            self._running.waiting_for_100_continue = False
            self.transport.write(_BEGINNING)
            self._begun = _BEGINNING
            self._keeper.watch(self)

    def _limit(self) -> None:
        """What goes on now has an end: the wait for a call, for its head, or for its body; not the call itself."""
        if self._running is None:
            self._keeper.idle(self, used=self.cycle is not None)
        if self.flow.write_paused:
            return  # an answer that nobody reads has its own
        if self._running is not None and (self.pipeline or not self._in_message):
            self.deadline = math.inf
        else:
            self._within(HEAD_WITHIN_S if self._in_head else call.BODY_WITHIN_S if self._in_message else KEEP_ALIVE_S)

    def _within(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds


def _hang_up(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()


_HEAD_TOO_LONG = f"The head of the request, or its trailer, is longer than {HEAD_BYTES_MAX} bytes."
_STATUS = {
    "overloaded": (503, b"Service Unavailable"),
    "malformed_request": (400, b"Bad Request"),
    "request_timeout": (408, b"Request Timeout"),
    "expectation_failed": (417, b"Expectation Failed"),
}
