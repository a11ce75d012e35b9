"""The receiver of the webhook bench: a process of its own that answers 200 and notes when each event came.

It reads no more of a request than it must, because each microsecond spent here is taken from the dispatchers on this
machine. Prints its port; when its stdin ends, it prints what came as one line of JSON: per path, pairs of the moment an
event was due (its body's `due`) and its latency in seconds, the CPU seconds it took, and how many ids came twice.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from typing import cast

import orjson
import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: (\S+)", re.IGNORECASE)
_DUE = re.compile(rb'"due":([0-9.]+)')


class Sink:
    """What came, by path."""

    def __init__(self) -> None:
        self.came: dict[str, list[tuple[float, float]]] = {}
        self.seen: set[tuple[str, bytes]] = set()
        self.repeated = 0

    def take(self, path: str, event: bytes, due: float) -> None:
        if (path, event) in self.seen:
            self.repeated += 1
            return
        self.seen.add((path, event))
        self.came.setdefault(path, []).append((due, time.time() - due))


class SinkConnection(asyncio.Protocol):
    """A kept connection; requests come whole or in parts, one after the other."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head_end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:head_end]
            length = _LENGTH.search(head)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            event, due = _ID.search(head), _DUE.search(self._received, head_end, end)
            if event and due:
                self._sink.take(head.split(b" ", 2)[1].decode(), event[1], float(due[1]))
            self._received = self._received[end:]
            self._transport.write(_ANSWER)


async def serve() -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    sink = Sink()
    server = await loop.create_server(lambda: SinkConnection(sink), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    figures = {"came": sink.came, "repeated": sink.repeated, "cpu_s": time.process_time()}
    sys.stdout.buffer.write(orjson.dumps(figures) + b"\n")


if __name__ == "__main__":
    gc.disable()  # nothing here is a cycle, and a collection would be somebody's latency
    uvloop.run(serve())
