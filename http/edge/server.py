"""How uvicorn serves the edge: its fast parts, no access log, and two things that httptools lacks.

A head that never ends is cut off (httptools would buffer it for ever), and what is no HTTP at all is answered with a
problem document like every other mistake.
"""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.problem import MEDIA_TYPE, render

HEAD_BYTES_MAX = 64 * 1024  # of an unfinished head; honest ones have 1 to 2 KiB
KEEP_ALIVE_S = 75  # above the usual 60 s of load balancers, so that they close first and no call meets a closed door
DRAIN_S = 35  # a client that waits (Prefer: wait=30) gets its answer before the process goes
BACKLOG = 2048


class Protocol(HttpToolsProtocol):
    """One connection."""

    _unfinished_bytes = 0
    _in_head = True

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
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %s\r\ncontent-length: %d\r\ncache-control: no-store\r\n"
            b"connection: close\r\n\r\n%s" % (MEDIA_TYPE.encode(), len(body), body)
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
