"""Raw sockets for the tests of the edge: nothing stands between the bytes of a test and the server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson
import psutil

_PATIENCE_S = 30


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(orjson.loads(self.body)["code"])


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield wire


def exchange(port: int, *parts: bytes, half_close: bool = False, pause_s: float = 0.0) -> list[Reply]:
    """Send the parts, one packet each, and read until the other side closes."""
    with connected(port) as wire:
        for part in parts:
            wire.sendall(part)
            time.sleep(pause_s)
        if half_close:
            wire.shutdown(socket.SHUT_WR)
        return replies(read_all(wire))


def read_all(wire: socket.socket) -> bytes:
    """Everything until the edge closes, or resets after its answer."""
    data = b""
    try:
        while part := wire.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def read_reply(wire: socket.socket) -> Reply:
    """One whole answer of a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(wire)
    head, _, body = data.partition(b"\r\n\r\n")
    while len(body) < _length(head):
        body += _received(wire)
    (reply,) = replies(head + b"\r\n\r\n" + body)
    return reply


def replies(data: bytes) -> list[Reply]:
    """The answers in these bytes, interim ones left out. Fails where a rest is no whole answer."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator and head.startswith(b"HTTP/1.1 "), head
        status, length = int(head[9:12]), _length(head)
        assert len(data) >= length, data
        if status >= 200:
            lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            found.append(
                Reply(status=status, headers={name.lower(): value for name, value in lines}, body=data[:length])
            )
        data = data[length:]
    return found


def is_kept(wire: socket.socket) -> bool:
    """Whether a server in this process still has its end of the connection."""
    ours, theirs = wire.getsockname()[1], wire.getpeername()[1]
    return any(
        each.laddr.port == theirs and each.raddr and each.raddr.port == ours and each.fd != -1
        for each in psutil.Process().net_connections("tcp")
        if each.laddr
    )


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return int(found[1]) if found else 0


def _received(wire: socket.socket) -> bytes:
    data = wire.recv(65536)
    assert data, "the edge closed the connection instead of answering"
    return data
