"""A wire between a process and a store that a test can break at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class LossyWire:
    """Breaks right before chosen bytes pass, whichever way: one end has sent them, the other never hears of it."""

    upstream: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    connections: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    doomed: tuple[bytes, ...] = ()  # what has all of these in it is not passed on
    lost: threading.Event = field(default_factory=threading.Event)
    on_loss: Callable[[], object] = lambda: None  # done right before the wire breaks

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def lose(self, *doomed: bytes) -> None:
        """Break, once, before bytes that contain all of these."""
        self.lost.clear()
        self.doomed = doomed

    def run(self) -> None:
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(("127.0.0.1", self.upstream))
            self.connections += [ours, theirs]
            self._spawn(self._carry, ours, theirs)
            self._spawn(self._carry, theirs, ours)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 20):
                if self.doomed and all(mark in data for mark in self.doomed):
                    self.doomed = ()
                    self.on_loss()
                    self.lost.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def a_lossy_wire(upstream: int, wire: LossyWire | None = None) -> Iterator[LossyWire]:
    wire = wire or LossyWire(upstream=upstream)
    wire._spawn(wire.run)
    try:
        yield wire
    finally:
        with suppress(OSError):
            wire.listener.shutdown(socket.SHUT_RDWR)
        wire.listener.close()
        for connection in wire.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in wire.threads:
            thread.join(10)
        for connection in wire.connections:
            connection.close()
