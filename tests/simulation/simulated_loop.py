"""The event loop of the simulation: time is a number, and a process is a tag on its callbacks.

asyncio's own loop with another `_run_once`: when nothing is ready, the clock jumps to the next timer. No thread, no
socket, no sleep. Every callback carries (in its context) the `Host` it belongs to, so a host can be stopped and
continued like a process (its callbacks are held back) or killed (they never run again: no `finally`, no goodbye).
Callbacks of tasks that are ready together run in an order drawn from the seed, as far as asyncio promises none; what
Python itself leaves to memory addresses (the order of sets) is replaced by serial numbers.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

import anyio._backends._asyncio as anyio_asyncio

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
"""Virtual time 0."""

Result = TypeVar("Result")
_HOST: ContextVar[Host] = ContextVar("host")
_OUTSIDE = Context()  # of what happens on no host: the network, the stores, the bank
_serials = count()


class Stuck(Exception):
    """Nothing is ready and no timer is set: nothing will ever happen again."""


class Host:
    """One process. Its tasks are those started by `loop.start` and all that these start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.fuse = 0  # callbacks until `burnt` is called, before the last of them; 0: never
        self.burnt: Callable[[], None] = lambda: None
        self.clock_ahead_s = 0.0  # its wall clock, of the true time
        self._held: list[Callback] = []

    def runs(self, handle: Callback) -> bool:
        """Whether this callback may run now. If not it is kept: for a paused host to go on, of a dead one to unwind."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.burnt()
        if self.alive and not self.paused:
            return True
        self._held.append(handle)
        return False

    def resume(self, loop: SimulatedLoop) -> None:
        """What was due meanwhile is due now, in the order in which it came."""
        self.paused = False
        loop.ready.extend(self._held)
        self._held.clear()


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._serial = next(_serials)
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._serial


class _CancelScope(anyio_asyncio.CancelScope):
    """The same for anyio's scopes, which are cancelled set by set."""

    __slots__ = ("_serial",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._serial = next(_serials)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._serial


class Callback:
    """asyncio's Handle and TimerHandle, without what only a real loop needs."""

    __slots__ = ("_when", "arguments", "cancelled_", "context", "function")

    def __init__(self, function: Callable[..., object], arguments: Any, context: Context, when: float) -> None:
        self.function, self.arguments, self.context, self._when = function, arguments, context, when
        self.cancelled_ = False

    def cancel(self) -> None:
        self.cancelled_ = True

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self._when

    @property
    def is_step(self) -> bool:
        """Whether this is a task's next step: in which order the steps of different tasks run is nobody's promise."""
        return isinstance(getattr(self.function, "__self__", None), asyncio.Task)


class SimulatedLoop(asyncio.BaseEventLoop):
    """`shuffled`: whether tasks that are ready together run in any order, or as asyncio happens to do it."""

    def __init__(self, draw: Random, *, shuffled: bool) -> None:
        global _serials
        super().__init__()
        _serials = count()
        self._draw, self._shuffled, self._now = draw, shuffled, 0.0
        self.ready: list[Callback] = []
        self.timers: list[tuple[float, int, Callback]] = []
        self._timers_set = 0
        self.steps = 0
        self.faults: list[str] = []  # exceptions that nobody caught
        self.set_task_factory(lambda loop, coroutine, **options: _Task(coroutine, loop=loop, **options))

    def time(self) -> float:
        return self._now

    def clock(self) -> datetime:
        """The engine's clock."""
        return BEGINNING + timedelta(seconds=self._now)

    def start(self, host: Host, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task in a process."""
        context = Context()
        context.run(_HOST.set, host)
        return self.create_task(coroutine, context=context)

    def outside(self, delay_s: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Something that happens on no host, so that no pause or death of one prevents it."""
        self.call_at(self._now + delay_s, callback, *arguments, context=_OUTSIDE)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = Callback(callback, args, copy_context() if context is None else context, self._now)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        timer = Callback(callback, args, copy_context() if context is None else context, when)
        self._timers_set += 1
        heapq.heappush(self.timers, (when, self._timers_set, timer))
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        timers, ready = self.timers, self.ready
        while timers and timers[0][2].cancelled_:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise Stuck
            if timers[0][0] > self._now:
                self._now = timers[0][0]
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        self.ready = []
        if self._shuffled and len(ready) > 1:
            self._shuffle(ready)
        self.steps += len(ready)
        for handle in ready:
            if not handle.cancelled_:
                context = handle.context
                host = context.get(_HOST)
                if host is None or host.runs(handle):
                    context.run(handle.function, *handle.arguments)

    def _shuffle(self, batch: list[Callback]) -> None:
        """Steps of tasks change places among themselves; all else stays where it is."""
        places = [place for place, handle in enumerate(batch) if handle.is_step]
        if len(places) > 1:
            steps = [batch[place] for place in places]
            self._draw.shuffle(steps)
            for place, handle in zip(places, steps, strict=True):
                batch[place] = handle


def current_host() -> str:
    """Who is at work."""
    host = _HOST.get(None)
    return "nobody" if host is None else host.name


@contextmanager
def determined(draw: Random) -> Iterator[None]:
    """Inside, what the engine draws by itself comes from the seed, and no set is ordered by addresses."""
    with (
        patch.object(anyio_asyncio, "CancelScope", _CancelScope),
        patch.object(secrets, "token_hex", lambda length: draw.randbytes(length).hex()),
        patch.object(os, "urandom", draw.randbytes),
    ):
        yield
