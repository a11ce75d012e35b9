"""How uvicorn serves the edge: its fast parts, no access log, and three things that httptools lacks.

A head that never ends is cut off (httptools would buffer it for ever), what is no HTTP at all is answered with a
problem document like every other mistake, and there are only so many connections: each may hold 64 KiB unseen.
"""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.problem import MEDIA_TYPE, render

HEAD_BYTES_MAX = 64 * 1024  # of an unfinished head; honest ones have 1 to 2 KiB
KEEP_ALIVE_S = 75  # above the usual 60 s of load balancers, so that they close first and no call meets a closed door
DRAIN_S = 35  # a client that waits (Prefer: wait=30) gets its answer before the process goes
BACKLOG = 2048
CONNECTIONS_MAX = 10_000  # open ones; far above the calls that are handled at once, and 640 MiB at the very worst


class Protocol(HttpToolsProtocol):
    """One connection."""

    connections_max = CONNECTIONS_MAX
    _unfinished_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            detail = "Too many connections are open here. Nothing was accepted; try again, on fewer connections."
            self._say_last(
                "503 Service Unavailable", render("overloaded", detail, request_id=""), b"retry-after: 1\r\n"
            )

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > HEAD_BYTES_MAX:
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._in_head, self._unfinished_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        body = render("malformed_request", f"{msg.rstrip('.')}. Send HTTP/1.1.", request_id="")
        self._say_last("400 Bad Request", body)

    def _say_last(self, status: str, body: bytes, headers: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\ncache-control: no-store\r\n%s"
            b"connection: close\r\n\r\n%s" % (status.encode(), MEDIA_TYPE.encode(), len(body), headers, body)
        )
        self.transport.close()


def configuration(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8000) -> uvicorn.Config:
    """A uvicorn configuration for `create_app`'s application; pass it to uvicorn.Server, or take it apart."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
