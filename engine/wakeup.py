"""Waking clients that wait for an outcome: one pub/sub channel per edge, operations by name.

A wake-up is only a hint; whoever waits also looks at the record on a timer, so a lost message costs a moment, never the
answer. The waiter is registered before the command is added, or its wake-up could come too early.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine import keys

log = structlog.get_logger()

_AWAY_S = 0.5


class Wakeups:
    """Run `run` for life; `waiting` from as many tasks as you like."""

    def __init__(self, redis: Redis, edge: str) -> None:
        self._redis, self.edge = redis, edge
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
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(keys.reply(self.edge))
                    async for message in channel.listen():
                        if message["type"] == "message":
                            self._wake(message["data"])
            except (RedisError, OSError) as error:
                log.warning("redis_away", error=type(error).__name__)
                await anyio.sleep(_AWAY_S)

    def _wake(self, message: bytes) -> None:
        for operation in message.decode().split():
            for event in self._waiters.get(operation, ()):
                event.set()
