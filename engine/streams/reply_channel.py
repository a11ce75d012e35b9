"""Waking clients that wait for an outcome: one pub/sub channel per edge, operations by name.

A wake-up is only a hint; whoever waits also looks at the record on a timer, so a lost message costs a moment, never the
answer. The waiter is registered before the command is added, or its wake-up could come too early.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import structlog

from engine.errors import Unavailable
from engine.loop import forever
from engine.streams import keys
from engine.streams.scripts import Scripts

log = structlog.get_logger()

_AWAY_S = 0.5


class ReplyChannel:
    """Run `run` for life; `waiting` from as many tasks as you like."""

    def __init__(self, scripts: Scripts, edge: str) -> None:
        self._scripts, self.edge = scripts, edge
        self._waiters: dict[str, set[anyio.Event]] = {}

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
        """One subscription, until it breaks, or a Redis is left that is no longer the master."""
        try:
            with anyio.CancelScope() as listening, self._scripts.when_dropped(listening.cancel):
                await self._listen()
        except Unavailable as error:
            log.warning("redis_away", error=error.detail)
        await anyio.sleep(_AWAY_S)

    async def _listen(self) -> None:
        async with self._scripts.reaching() as redis, redis.pubsub() as channel:
            await channel.subscribe(keys.reply(self.edge))
            async for message in channel.listen():
                if message["type"] == "message":
                    self._wake(message["data"])

    def _wake(self, message: bytes) -> None:
        for operation in message.decode().split():
            for event in self._waiters.get(operation, ()):
                event.set()
