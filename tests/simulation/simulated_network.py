"""The way to a store or a bank and back: latency, lost requests, lost replies, long delays, refused connections.

What is sent is carried out at the far side at one moment, whatever became of the sender; whoever waits learns of it,
or of a fault, at another. So a request whose sender gave up (or died, or was stopped) may still arrive, much later.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Generic, TypeVar

from simulation.simulated_loop import SimulatedLoop

Reply = TypeVar("Reply")


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How things are on one way. Shares are of one; the latencies are for each direction."""

    latency_s: tuple[float, float] = (0.0005, 0.003)
    delayed: float = 0.0  # requests that arrive after `delay_s` instead
    delay_s: tuple[float, float] = (0.3, 2.0)
    lost_requests: float = 0.0
    lost_replies: float = 0.0
    away: bool = False  # nobody listens


FAIR = Weather()


class Promise(Generic[Reply]):
    """A reply that the far side gives later, or never: its connection breaks first."""

    def __init__(self) -> None:
        self.keep: Callable[[Reply], None] = lambda reply: None
        self.break_off: Callable[[], None] = lambda: None


class Link:
    """One far side. `broken` and `silent` make the client library's exceptions for a connection that is refused or
    breaks, and for an answer that did not come within its patience."""

    def __init__(
        self,
        loop: SimulatedLoop,
        draw: Random,
        *,
        broken: Callable[[], Exception],
        silent: Callable[[], Exception],
        patience_s: float,
    ) -> None:
        self._loop, self._draw = loop, draw
        self._broken, self._silent, self._patience_s = broken, silent, patience_s
        self.weather = FAIR
        self.late = 0  # delayed requests that have not arrived yet
        self._cuts = 0

    def cut(self) -> None:
        """Every connection breaks; what is on its way does not arrive."""
        self._cuts += 1

    async def exchange(self, serve: Callable[[], Reply | Promise[Reply]]) -> Reply:
        """Have `serve` carried out on the far side. Raises what it raises there, or the fault on the way."""
        loop, draw, weather = self._loop, self._draw, self.weather
        future: Future[Reply] = loop.create_future()
        out_s = draw.uniform(*weather.latency_s)
        if weather.away:
            loop.outside(out_s, _fail, future, self._broken)
            return await future
        if weather is FAIR:
            loop.outside(out_s, self._arrive, future, serve, False, self._cuts)
            return await future
        if draw.random() < weather.lost_requests:
            self._lose(future)
            return await future
        if draw.random() < weather.delayed:
            out_s = draw.uniform(*weather.delay_s)
            self.late += 1
            loop.outside(out_s, self._at_last)
        loop.outside(out_s, self._arrive, future, serve, draw.random() < weather.lost_replies, self._cuts)
        if out_s > self._patience_s:
            loop.outside(self._patience_s, _fail, future, self._silent)
        return await future

    def _at_last(self) -> None:
        self.late -= 1

    def _arrive(self, future: Future[Reply], serve: Callable[[], Reply], reply_lost: bool, cuts: int) -> None:
        if self.weather.away or cuts != self._cuts:
            return _fail(future, self._broken)
        try:
            reply = serve()
        except Exception as error:
            reply_of_error = error
            return self._loop.outside(self._back_s(), _fail, future, lambda: reply_of_error)
        if isinstance(reply, Promise):
            reply.keep = partial(self._give_back, future, reply_lost)
            reply.break_off = partial(_fail, future, self._broken)
            return None
        self._give_back(future, reply_lost, reply)

    def _give_back(self, future: Future[Any], reply_lost: bool, reply: object) -> None:
        if reply_lost:
            return self._lose(future)
        self._loop.outside(self._back_s(), _answer, future, reply)

    def _lose(self, future: Future[Any]) -> None:
        """Half of the lost are lost with their connection, of the others nothing is ever heard."""
        if self._draw.random() < 0.5:
            self._loop.outside(self._draw.uniform(0, self._patience_s), _fail, future, self._broken)
        else:
            self._loop.outside(self._patience_s, _fail, future, self._silent)

    def _back_s(self) -> float:
        return self._draw.uniform(*self.weather.latency_s)


def _answer(future: Future[Reply], reply: Reply) -> None:
    if not future.done():
        future.set_result(reply)


def _fail(future: Future[Reply], error: Callable[[], Exception]) -> None:
    if not future.done():
        future.set_exception(error())
