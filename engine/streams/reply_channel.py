"""Waking clients that wait for an outcome: one pub/sub channel per edge, operations by name.

A wake-up is only a hint; whoever waits also looks at the record on a timer, so a lost message costs a moment, never the
answer. The waiter is registered before the command is added, or its wake-up could come too early.
A subscription can die half: a proxy, a NAT or a fail-over keeps the connection and delivers nothing. So the edge sends
itself an empty message now and then, and subscribes anew when it does not hear it. It tells once when it turns deaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import structlog
from redis.exceptions import NoPermissionError

from engine.errors import Unavailable
from engine.loop import forever
from engine.streams import keys
from engine.streams.permission import granting
from engine.streams.scripts import Scripts

log = structlog.get_logger()

_AWAY_S = 0.5
_CHECK_EVERY_S = 5.0  # below the minutes after which a NAT forgets a silent connection, which this keeps from being one
_HEARD_WITHIN_S = 1.0  # a healthy Redis takes a millisecond
_TRIES = 2  # the first message may overtake the subscription
_BEAT = b""  # names no operation


class ReplyChannel:
    """Run `run` for life; `waiting` from as many tasks as you like. `show` is told whether wake-ups are heard."""

    def __init__(self, scripts: Scripts, edge: str, show: Callable[[bool], None] = lambda hears: None) -> None:
        self._scripts, self.edge, self._show = scripts, edge, show
        self._waiters: dict[str, set[anyio.Event]] = {}
        self._heard = anyio.Event()
        self._silence: str | None = None  # why nothing is heard; told once

    @contextmanager
    def waiting(self, operation: str) -> Iterator[anyio.Event]:
        """An event that is set when the operation is settled."""
        event = anyio.Event()
        self._waiters.setdefault(operation, set()).add(event)
        try:
            yield event
        finally:
            waiters = self._waiters[operation]
            waiters.discard(event)
            if not waiters:
                del self._waiters[operation]

    async def run(self) -> None:
        await forever("wakeups", self.run_once)

    async def run_once(self) -> None:
        """One subscription, until it breaks or is deaf, or a Redis is left that is no longer the master."""
        pause_s = _AWAY_S
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._check, tasks.cancel_scope)
            try:
                with self._scripts.when_dropped(tasks.cancel_scope.cancel):
                    await self._listen()
            except Unavailable as error:
                if isinstance(error.__cause__, NoPermissionError):
                    pause_s = _CHECK_EVERY_S
                    self._deaf(f"NOPERM: Redis does not permit our user the channel; {granting()}")
                else:
                    self._deaf(error.detail)
            tasks.cancel_scope.cancel()
        await anyio.sleep(pause_s)

    async def _listen(self) -> None:
        async with self._scripts.reaching() as redis, redis.pubsub() as channel:
            await channel.subscribe(keys.reply(self.edge))
            async for message in channel.listen():
                if message["type"] == "message":
                    self._heard.set()
                    self._wake(message["data"])

    async def _check(self, subscription: anyio.CancelScope) -> None:
        """End a subscription that does not deliver. What keeps us from sending is not its fault."""
        while True:
            heard = [await self._hears_itself() for _ in range(_TRIES)]
            if heard == [False] * _TRIES:
                self._deaf("the subscription delivers no messages: subscribing anew")
                return subscription.cancel()
            if True in heard:
                self._hears()
            await anyio.sleep(_CHECK_EVERY_S)

    async def _hears_itself(self) -> bool | None:
        """Whether a message that we sent has arrived; None when we could not send it."""
        self._heard = heard = anyio.Event()
        try:
            (reply,) = await self._scripts.ask([("PUBLISH", keys.reply(self.edge), _BEAT)])
        except Unavailable:
            return None
        if isinstance(reply, Exception):
            return None
        with anyio.move_on_after(_HEARD_WITHIN_S):
            await heard.wait()
        return heard.is_set()

    def _deaf(self, why: str) -> None:
        self._show(False)
        if why != self._silence:
            self._silence = why
            log.warning("wakeups_not_heard", why=why, effect="who waits for an outcome hears of it up to 250 ms late")

    def _hears(self) -> None:
        self._show(True)
        if self._silence is not None:
            self._silence = None
            log.info("wakeups_heard_again")

    def _wake(self, message: bytes) -> None:
        for operation in message.decode().split():
            for event in self._waiters.get(operation, ()):
                event.set()
