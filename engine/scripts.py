"""The Lua scripts, loaded by name from lua/ and called by hash; a Redis that forgot them is taught again.

The name carries the number of keys: `settle-4.lua` takes four. Nothing here knows what a script does.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.errors import Broken, Unavailable

# What a Redis that cannot work just now begins its answer with, where the client has no class of its own for it.
_REFUSALS = ("LOADING", "BUSY", "MISCONF", "READONLY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS")

PATIENCE_S = 5.0  # for all replies of one pipeline; a healthy Redis takes milliseconds

Argument = str | bytes | int
Call = tuple[str, Sequence[Argument]]


def sources() -> dict[str, tuple[str, str]]:
    """Each script's text and number of keys, by name."""
    found = sorted(files("engine").joinpath("lua").iterdir(), key=lambda entry: entry.name)
    named = [(file.name.removesuffix(".lua").rpartition("-"), file.read_text()) for file in found]
    return {name: (text, keys) for (name, _, keys), text in named}


class Scripts:
    """Calls scripts on one Redis. Raises Unavailable when Redis is away or out of memory."""

    def __init__(self, redis: Redis, patience_s: float = PATIENCE_S) -> None:
        self._redis, self._patience_s = redis, patience_s
        self._source: dict[str, str] = {}
        self._head: dict[str, tuple[str, str]] = {}
        for name, (source, keys) in sources().items():
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
        return [translated(reply) for reply in replies]

    async def _teach(self, names: set[str]) -> None:
        try:
            for name in names:
                await self._redis.script_load(self._source[name])
        except (RedisError, OSError) as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error

    async def _send(self, calls: Sequence[Call], publish: Sequence[tuple[str, bytes]]) -> list[Any]:
        packed = b"".join(
            [_packed("EVALSHA", *self._head[name], *arguments) for name, arguments in calls]
            + [_packed("PUBLISH", channel, message) for channel, message in publish]
        )
        try:
            try:
                replies = await self._exchange(packed, len(calls) + len(publish))
            except RedisConnectionError:  # a pooled connection gone stale; each script may be repeated
                replies = await self._exchange(packed, len(calls) + len(publish))
        except (RedisError, OSError) as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error
        return replies[: len(calls)]

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        """One write, `count` replies, one bound on patience. The client's own pipeline times each reply by itself and
        packs in Python, at ten times the cost."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        try:
            await connection.send_packed_command([packed])
            async with asyncio.timeout(self._patience_s):
                for _ in range(count):
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
        except TimeoutError:
            raise RedisTimeoutError("no reply in time") from None
        finally:
            if len(replies) < count:  # whatever is still to come would be taken for another call's reply
                await connection.disconnect(nowait=True)
            await pool.release(connection)
        return replies


def _packed(*words: Argument) -> bytes:
    """One command in Redis' protocol."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one
    return packed


def translated(reply: Any) -> Any:
    """Only an error that names our own script is our mistake; whatever else Redis says, it may stop saying."""
    if not isinstance(reply, Exception):
        return reply
    if isinstance(reply, OutOfMemoryError):
        return Unavailable("overloaded", "Redis is out of memory. Nothing was accepted.")
    text = str(reply)
    if type(reply) is ResponseError and not text.startswith(_REFUSALS):
        return Broken(f"a script failed: {text[:200]}")
    return Unavailable("store_unavailable", f"Redis: {type(reply).__name__}")
