"""The Lua scripts, loaded by name from lua/ and called by hash; a Redis that forgot them is taught again.

The name carries the number of keys: `settle-3.lua` takes three. Nothing here knows what a script does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from engine.errors import Broken, Unavailable

# What a Redis that cannot work just now begins its answer with, where the client has no class of its own for it.
_REFUSALS = ("OOM", "LOADING", "BUSY", "MISCONF", "READONLY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS")

Argument = str | bytes | int
Call = tuple[str, Sequence[Argument]]


class Scripts:
    """Calls scripts on one Redis. Raises Unavailable when Redis is away or out of memory."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._source: dict[str, str] = {}
        self._head: dict[str, tuple[str, str]] = {}
        for file in sorted(files("engine").joinpath("lua").iterdir(), key=lambda entry: entry.name):
            name, _, keys = file.name.removesuffix(".lua").rpartition("-")
            source = file.read_text()
            self._source[name] = source
            self._head[name] = (hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), keys)

    async def call(self, name: str, *arguments: Argument) -> Any:
        """One script's reply."""
        reply = (await self.call_many([(name, arguments)]))[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def call_many(self, calls: Sequence[Call], publish: Sequence[tuple[str, bytes]] = ()) -> list[Any]:
        """One pipeline, one reply or exception per call; afterwards messages are published in the same pipeline."""
        replies = await self._send(calls, publish)
        forgotten = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:
            await self._teach({calls[index][0] for index in forgotten})
            again = await self._send([calls[index] for index in forgotten], ())
            for index, reply in zip(forgotten, again, strict=True):
                replies[index] = reply
        return [_translated(reply) for reply in replies]

    async def _teach(self, names: set[str]) -> None:
        try:
            for name in names:
                await self._redis.script_load(self._source[name])
        except (RedisError, OSError) as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error

    async def _send(self, calls: Sequence[Call], publish: Sequence[tuple[str, bytes]]) -> list[Any]:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name, arguments in calls:
                    pipeline.execute_command("EVALSHA", *self._head[name], *arguments)
                for channel, message in publish:
                    pipeline.publish(channel, message)
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error
        return replies[: len(calls)]


def _translated(reply: Any) -> Any:
    """Only an error that names our own script is our mistake; whatever else Redis says, it may stop saying."""
    if not isinstance(reply, Exception):
        return reply
    text = str(reply)
    if type(reply) is ResponseError and not text.startswith(_REFUSALS):
        return Broken(f"a script failed: {text[:200]}")
    return Unavailable("store_unavailable", f"Redis: {type(reply).__name__}")
