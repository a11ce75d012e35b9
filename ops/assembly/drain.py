"""How an edge stops: nobody who was let in, or could believe so, goes without an answer.

1. It is not ready any more, and each answer says `Connection: close`. For `linger_s` it still takes connections: load
   balancers and service meshes hear of the end later than the process does.
2. It stops listening. A handshake begun now is not answered, so the client is refused; connections that the kernel has
   completed are taken. (Closing the socket at once would reset them.)
3. A connection without a call stays a moment longer: its client may be sending one. Then it is closed.
4. Calls under way are answered, those that wait included, as long as the configuration's graceful time-out allows.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn

from ops.assembly.serving import Server

_TICK_S = 0.05
_HANDSHAKE_S = 0.2  # above the round trip of a client that has been answered and has not answered yet
_LOOKS_MAX = 10_000  # the queue of a listening socket is shorter
_SILENCE_S = 2.0  # between the last look at a connection and its end; a call under way arrives within it
_SO_ATTACH_FILTER = 26  # Linux; Python has no name for it
# Classic BPF over the TCP header: a segment with SYN and without ACK is dropped, everything else passes.
_NO_NEW_HANDSHAKES = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


class DrainingServer(Server):
    """A server that stops as told above. `draining` is true once its answers say `Connection: close`."""

    def __init__(self, config: uvicorn.Config, *, linger_s: float = 0.0) -> None:
        super().__init__(config)
        self._linger_s = linger_s
        self.draining = False

    def secure(self, context: ssl.SSLContext) -> None:
        """Serve HTTPS."""
        self.config.load()
        self.config.ssl = context

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._pass_time(self._linger_s, lambda: True)
        await self._stop_listening(sockets or [])
        # With TLS there may be connections whose handshake is not through, which nobody lists.
        await self._pass_time(_SILENCE_S, lambda: bool(self.server_state.connections or self.config.ssl))
        await self._close_silent()
        await super().shutdown(sockets)

    async def _pass_time(self, seconds: float, goes_on: Callable[[], bool]) -> None:
        """While connections are kept and calls answered, each as the last one of its connection."""
        until = time.monotonic() + seconds
        await self._say_close()
        while time.monotonic() < until and goes_on() and not self.force_exit:
            await asyncio.sleep(_TICK_S)
            await self._say_close()

    async def _say_close(self) -> None:
        self.draining = True
        await self.on_tick(0)  # the date of an answer goes on
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in list(self.server_state.connections):
            if not _is_silent(connection):
                connection.shutdown()  # closes it behind the answer

    async def _stop_listening(self, listeners: list[socket.socket]) -> None:
        for listener in listeners:
            _answer_no_handshake(listener)
        await self._pass_time(_HANDSHAKE_S, lambda: True)
        for _ in range(_LOOKS_MAX):
            if not any(map(_has_input, listeners)):
                break
            await asyncio.sleep(0)  # the loop takes what there is
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()

    async def _close_silent(self) -> None:
        """Those that nothing has arrived on; what arrives at the last moment is answered."""
        for connection in list(self.server_state.connections):
            if _is_silent(connection) and not _has_input(connection.transport.get_extra_info("socket")):
                connection.shutdown()
        await asyncio.sleep(_TICK_S)  # what has arrived is read, and begins a call
        await self._say_close()


def _is_silent(connection: Any) -> bool:
    """Whether no call is under way on it, as uvicorn's protocols tell."""
    return connection.cycle is None or connection.cycle.response_complete


def _has_input(connection: Any) -> bool:
    """Whether the kernel holds something of this socket that nobody has read, or taken."""
    poll = select.poll()
    try:
        poll.register(connection.fileno(), select.POLLIN)
    except (AttributeError, ValueError, OSError):  # it is closed
        return False
    return bool(poll.poll(0))


def _answer_no_handshake(listener: socket.socket) -> None:
    """From now on. Elsewhere than on Linux there is no such filter: a client that comes in the microseconds between our
    last look and the end of the socket is reset."""
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_NEW_HANDSHAKES)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HP", len(_NO_NEW_HANDSHAKES), ctypes.addressof(buffer))
    if sys.platform == "linux":
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
