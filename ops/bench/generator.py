"""The load generator of the bench: a process of its own.

The next arrival waits where it is until a connection is free: that is the only queue, and the wait is part of the
latency. Requests are bytes from a template, answers are read as far as their status and length, because each
microsecond spent here is taken from the gateway on the same machine.

Reads one Load as JSON on stdin, writes lines of JSON on stdout: progress while it runs, and at the end the figures.
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from typing import cast
from urllib.parse import urlsplit

import orjson
import uvloop

from ops.bench.load import ACCEPTED, Figures, Load, answer_length, arrivals_due, due_s, percentiles, request_template

TICK_S = 0.001  # the clock of uvloop; arrivals of one tick leave together
FULL_S = 0.02
REPORT_S = 0.25
SENDS_MAX = 3  # a kept connection may be closed under a request; the same key makes repeating it safe
PATIENCE_S = 10.0  # for answers after the last arrival
CONNECT_PAUSE_S = 0.1  # before a refused connection is tried again


class LoadConnection(asyncio.Protocol):
    """A kept connection with at most one request on it."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._arrival: int | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._generator.opened(self)

    def send(self, arrival: int, request: bytes) -> None:
        if self._transport is None:
            raise RuntimeError("not connected")
        self._arrival = arrival
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        length = answer_length(received)
        if length is None or len(received) < length:
            self._received = received
            return
        arrival, self._arrival, self._received = self._arrival, None, b""
        if arrival is not None:
            self._generator.answered(self, arrival, received[9:12].decode("latin-1"))

    def connection_lost(self, error: Exception | None) -> None:
        arrival, self._arrival = self._arrival, None
        self._generator.lost(self, arrival)


class Generator:
    """Offers one load once; `say` is told how it goes."""

    def __init__(self, load: Load, say: Callable[[dict[str, object]], None]) -> None:
        self._load, self._say = load, say
        self._templates = [request_template(load, card) for card in load.cards]
        self._connections: set[LoadConnection] = set()
        self._idle: list[LoadConnection] = []
        self._again: deque[int] = deque()
        self._sends = bytearray(load.arrivals)
        self._open = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._next = 0
        self._left = load.arrivals
        self._began = 0.0
        self._late_s = array("d")
        self._latency_s = array("d", bytes(8 * load.arrivals))
        self._accepted = bytearray(load.arrivals)
        self._last_accept = 0.0
        self._errors: Counter[str] = Counter()
        self._waited = 0
        self._done = asyncio.Event()

    async def run(self) -> Figures:
        load = self._load
        await self._open_first()
        began_at, self._began = time.time(), time.perf_counter()
        reporter = asyncio.create_task(self._report())
        cpu_s = math.nan
        last_due = due_s(load.arrivals, load.rate_per_s)
        while not self._done.is_set() and self._elapsed() < last_due + PATIENCE_S:
            if math.isnan(cpu_s) and self._elapsed() >= load.warmup_s:
                cpu_s = time.process_time()
                self._say({"measuring": True})
            self._send_on_time()
            await asyncio.sleep(self._pause_s())
        cpu_s = time.process_time() - cpu_s
        reporter.cancel()
        if self._left:
            self._errors["no answer"] += self._left
        return self._figures(began_at, cpu_s)

    def close(self) -> None:
        """Let go of every connection."""
        for connection in tuple(self._connections):
            connection.close()

    def opened(self, connection: LoadConnection) -> None:
        self._connections.add(connection)
        self._give_back(connection)

    def answered(self, connection: LoadConnection, arrival: int, status: str) -> None:
        now = self._elapsed()
        self._latency_s[arrival] = now - due_s(arrival, self._load.rate_per_s)
        if status == ACCEPTED:
            self._accepted[arrival] = 1
            self._last_accept = now
        elif arrival >= self._load.warmups:
            self._errors[status] += 1
        self._finished()
        self._give_back(connection)

    def lost(self, connection: LoadConnection, arrival: int | None) -> None:
        self._open -= 1
        self._connections.discard(connection)
        if arrival is None:
            if connection in self._idle:
                self._idle.remove(connection)
        elif self._sends[arrival] < SENDS_MAX:
            self._again.append(arrival)
        else:
            self._errors["connection lost"] += 1
            self._finished()

    def _pause_s(self) -> float:
        """Until the next arrival is due. Where all connections are taken, their answers send the next ones."""
        if not self._idle and self._open >= self._load.connections_max:
            return FULL_S
        return max(TICK_S, due_s(self._next, self._load.rate_per_s) - self._elapsed())

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began

    def _give_back(self, connection: LoadConnection) -> None:
        """The freed connection takes what is overdue at once, not with the next tick."""
        self._idle.append(connection)
        if self._again or (self._began and self._next < self._due()):
            self._waited += self._send_due()

    def _due(self) -> int:
        return arrivals_due(self._elapsed(), self._load.rate_per_s, self._load.arrivals)

    def _send_on_time(self) -> None:
        """What falls due while connections are free: if it is late, that is our own doing."""
        first = self._next
        self._send_due()
        now = self._elapsed()
        self._late_s.extend(now - due_s(arrival, self._load.rate_per_s) for arrival in range(first, self._next))

    def _send_due(self) -> int:
        """Send what is due as far as connections are free, open some for the rest; how many arrivals were sent."""
        due, idle, first = self._due(), self._idle, self._next
        while idle and (self._again or self._next < due):
            if self._again:
                arrival = self._again.popleft()
            else:
                arrival, self._next = self._next, self._next + 1
            self._sends[arrival] += 1
            idle.pop().send(arrival, self._templates[arrival % len(self._templates)] % (arrival, arrival))
        wanted = due - self._next + len(self._again) - len(self._opening)
        for _ in range(min(wanted, self._load.connections_max - self._open)):
            self._open_one()
        return self._next - first

    def _finished(self) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()

    async def _open_first(self) -> None:
        """Raises OSError when nobody listens there."""
        self._open += 1
        await self._connect()

    def _open_one(self) -> None:
        self._open += 1
        task = asyncio.create_task(self._connect_later())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_later(self) -> None:
        try:
            await self._connect()
        except OSError:
            await asyncio.sleep(CONNECT_PAUSE_S)
            self._open -= 1

    async def _connect(self) -> None:
        to = urlsplit(self._load.url)
        tls = to.scheme == "https"
        port = to.port or (443 if tls else 80)
        await asyncio.get_running_loop().create_connection(
            lambda: LoadConnection(self), to.hostname or "", port, ssl=True if tls else None
        )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            answered = self._load.arrivals - self._left
            self._say({"answered": answered, "waiting": self._due() - answered, "errors": self._errors.total()})

    def _figures(self, began_at: float, cpu_s: float) -> Figures:
        load = self._load
        counted = range(load.warmups, load.arrivals)
        accepted = [1000 * self._latency_s[arrival] for arrival in counted if self._accepted[arrival]]
        first, end = due_s(load.warmups, load.rate_per_s), due_s(load.arrivals, load.rate_per_s)
        return Figures(
            began_at=began_at,
            accepted=len(accepted),
            accepted_in_all=sum(self._accepted),
            accepts_per_s=round(len(accepted) / (max(self._last_accept, end) - first), 1),
            accept_ms=percentiles(accepted),
            errors=dict(self._errors),
            late_ms=percentiles([1000 * late_s for late_s in self._late_s]),
            waited_for_connection=self._waited,
            connections=self._open,
            cpu_s=round(cpu_s, 3),
        )


def _say(document: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """`python -m ops.bench.generator`, the Load on stdin."""
    load = Load(**orjson.loads(sys.stdin.buffer.read()))
    gc.disable()  # nothing here makes cycles, and a collection would be a late tick

    async def offer() -> Figures:
        return await Generator(load, _say).run()

    try:
        figures = uvloop.run(offer())
    except OSError as error:
        _say({"failed": f"{load.url} cannot be reached: {error}"})
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    _say({"figures": asdict(figures)})


if __name__ == "__main__":
    main()
