"""The Lua scripts, loaded by name from lua/ and called by hash; a Redis that forgot them is taught again.

The name carries the number of keys: `settle-4.lua` takes four. Nothing here knows what a script does.
It is also the boundary to Redis: whatever the client, the event loop or Redis raises becomes Unavailable here, and
Refused where it is certain that nothing ran. When a Redis says that it is no longer the master, its connections are
dropped, so that the next call looks up the address anew and finds the new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import Any

import structlog
from hiredis import pack_command
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from engine.errors import Broken, StoreRefused, Unavailable

log = structlog.get_logger()

PATIENCE_S = 5.0  # for all replies of one pipeline; a healthy Redis takes milliseconds
_DROP_EVERY_S = 1.0  # a Redis that goes on refusing is not connected to anew for each call

_UNAVAILABLE, _OVERLOADED = "store_unavailable", "overloaded"
_MAX_CLIENTS = "max number of clients reached"
_NOT_PERMITTED = ("ACL failure in script", "The user executing the script can't")  # in Valkey's words, and in Redis'
# A Redis that answers like this ran nothing. In our own words: its own may name addresses and users.
# fmt: off
_REFUSALS = {
    # it answers      and that says
    "OOM":          "Redis is out of memory",
    "READONLY":     "Redis is a read-only replica",
    "MASTERDOWN":   "Redis is a replica without its master",
    "NOREPLICAS":   "Redis has too few replicas in reach to take writes",
    "MISCONF":      "Redis cannot write to its disk and takes no writes",
    "LOADING":      "Redis is loading its data",
    "BUSY":         "Redis is busy with a script",
    "MOVED":        "this Redis is a node of a cluster, and not the one for this partition",
    "ASK":          "this Redis is a node of a cluster, and the partition is being moved",
    "TRYAGAIN":     "this Redis is a node of a cluster, and the partition is being moved",
    "CROSSSLOT":    "this Redis is a node of a cluster, and not of its kind",
    "CLUSTERDOWN":  "the Redis cluster is down",
    "NOPERM":       "Redis does not permit this to our user",
    "NOAUTH":       "Redis wants credentials",
    "WRONGPASS":    "Redis refuses our credentials",
    "DENIED":       "Redis is in protected mode",
    _MAX_CLIENTS:   "Redis has too many clients",
}
# fmt: on
_ELSEWHERE = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN"})  # another one may be the master by now
# The client takes the first word off where it has a class for it.
_CLASSES: tuple[tuple[type[RedisError], str], ...] = (
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.AskError, "ASK"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.ClusterCrossSlotError, "CROSSSLOT"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.AuthenticationError, "NOAUTH"),
)

Argument = str | bytes | int
Call = tuple[str, Sequence[Argument]]


def sources() -> dict[str, tuple[str, str]]:
    """Each script's text and number of keys, by name."""
    found = sorted(files("engine.streams").joinpath("lua").iterdir(), key=lambda entry: entry.name)
    named = [(file.name.removesuffix(".lua").rpartition("-"), file.read_text()) for file in found]
    return {name: (text, keys) for (name, _, keys), text in named}


class Scripts:
    """Calls scripts on one Redis. Raises Unavailable when it is away, and Refused when nothing ran for certain."""

    def __init__(self, redis: Redis, patience_s: float = PATIENCE_S) -> None:
        self._redis, self._patience_s = redis, patience_s
        self._generation = 0  # of connections: those of an older one are not used again
        self._dropped_at = -math.inf
        self._in_life: set[Callable[[], None]] = set()
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
        messages = [_packed("PUBLISH", channel, message) for channel, message in publish]
        replies, lost = await self._sent([self._call(call) for call in calls] + messages)
        forgotten = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:
            again = await self._taught([calls[index] for index in forgotten], lost)
            for index, reply in zip(forgotten, again, strict=True):
                replies[index] = reply
        return [translated(reply) for reply in replies[: len(calls)]]

    async def ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Plain commands that change nothing, in one pipeline; one reply or exception for each."""
        replies, _ = await self._sent([_packed(*command) for command in commands])
        return [translated(reply) for reply in replies]

    @asynccontextmanager
    async def reaching(self) -> AsyncIterator[Redis]:
        """The client itself, for what waits in Redis. Whatever it raises becomes Unavailable."""
        generation = self._generation
        try:
            yield self._redis
        except Exception as error:
            if not isinstance(error, RedisError | OSError):
                await self._disconnect()  # the client gave a broken connection back to its pool
            raise _unavailable(error) from error
        finally:
            if generation != self._generation:
                await self._disconnect()

    @contextmanager
    def when_dropped(self, drop: Callable[[], None]) -> Iterator[None]:
        """Inside, `drop` is called whenever connections are dropped: for one that is in use for life."""
        self._in_life.add(drop)
        try:
            yield
        finally:
            self._in_life.discard(drop)

    async def _taught(self, calls: Sequence[Call], lost: bool) -> Sequence[Any]:
        """Their replies, now that Redis knows their scripts, or why it does not."""
        try:
            async with self.reaching() as redis:
                for name in {name for name, _ in calls}:
                    await redis.script_load(self._source[name])
            replies, _ = await self._sent([self._call(call) for call in calls], lost)
        except Unavailable as error:
            return [error] * len(calls)
        return replies

    async def _sent(self, packed: Sequence[bytes], lost: bool = False) -> tuple[list[Any], bool]:
        """A reply for each, and whether a try was lost on its way: it may have run, so no refusal is certain then."""
        again = True
        while True:
            try:
                replies = await self._exchange(b"".join(packed), len(packed))
                break
            except StoreRefused as error:
                raise (_unavailable(error) if lost else error) from error.__cause__
            except Exception as error:
                if not again or isinstance(error, TimeoutError | exceptions.TimeoutError):
                    await self._drop()  # those that are idle may be as dead
                    raise _unavailable(error) from error
                lost, again = True, False  # a pooled connection gone stale; each script may be repeated
        refusals = {refusal_of(reply) for reply in replies if isinstance(reply, Exception)}
        if not _ELSEWHERE.isdisjoint(refusals):
            await self._drop()
        if lost:
            replies = [_unavailable(reply) if refusal_of(reply) else reply for reply in replies]
        return replies, lost

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        """One write, `count` replies, one bound on patience. The client's own pipeline times each reply by itself and
        packs in Python, at ten times the cost. Raises Refused when nothing was written."""
        connection, generation = await self._borrowed(), self._generation
        replies: list[Any] = []
        try:
            await connection.send_packed_command([packed])
            async with asyncio.timeout(self._patience_s):
                while len(replies) < count:
                    replies.append(await _reply(connection))
        finally:
            try:
                # Whatever is still to come would be taken for another call's reply.
                if len(replies) < count or generation != self._generation:
                    await connection.disconnect(nowait=True)
            finally:
                await self._redis.connection_pool.release(connection)
        return replies

    async def _borrowed(self) -> AbstractConnection:
        try:
            connection: AbstractConnection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        except Exception as error:
            if not isinstance(error, RedisError | OSError):
                await self._disconnect()
            reason = _REFUSALS.get(refusal_of(error) or "", "Redis cannot be reached")
            raise StoreRefused(_UNAVAILABLE, f"{reason}.") from error
        return connection

    async def _drop(self) -> None:
        """The Redis behind our connections may not be the one to talk to any more."""
        now = asyncio.get_running_loop().time()
        if now - self._dropped_at < _DROP_EVERY_S:
            return
        self._dropped_at = now
        self._generation += 1
        log.warning("redis_connections_dropped")
        for drop in list(self._in_life):
            drop()
        await self._disconnect()

    async def _disconnect(self) -> None:
        """All idle connections."""
        try:
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        except Exception as error:  # of a connection that is no more; the others are let go by and by
            log.warning("redis_disconnect_failed", error=type(error).__name__)

    def _call(self, call: Call) -> bytes:
        name, arguments = call
        return _packed("EVALSHA", *self._head[name], *arguments)


async def _reply(connection: AbstractConnection) -> Any:
    """The next reply; errors are replies, too. Raises what is none."""
    try:
        return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
    except RedisError as error:
        if isinstance(error, ResponseError) or refusal_of(error) is not None:
            return error
        raise


def _packed(*words: Argument) -> bytes:
    """One command in Redis' protocol."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # its stub knows tuples of one
    return packed


def refusal_of(error: object) -> str | None:
    """The word by which Redis says that it ran nothing, if this is such an answer."""
    found = next((word for kind, word in _CLASSES if isinstance(error, kind)), None)
    if found is None and isinstance(error, RedisError):
        text = str(error)
        found = _MAX_CLIENTS if _MAX_CLIENTS in text else text.partition(" ")[0]
    return found if found in _REFUSALS else None


def translated(reply: Any) -> Any:
    """Only an error that names our own script is our mistake; whatever else Redis says, it may stop saying. A command
    that is not permitted inside a script is not ours, but what the script did before it is done."""
    if not isinstance(reply, Exception) or isinstance(reply, Unavailable):
        return reply
    refusal = refusal_of(reply)
    if refusal is not None:
        return StoreRefused(_OVERLOADED if refusal == "OOM" else _UNAVAILABLE, f"{_REFUSALS[refusal]}.")
    if type(reply) is ResponseError and not any(words in str(reply) for words in _NOT_PERMITTED):
        return Broken(f"a script failed: {str(reply)[:200]}")
    return _unavailable(reply)


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(_UNAVAILABLE, f"Redis: {type(error).__name__}")
