"""A Redis in memory, and its client as far as the engine uses redis-py's: pipelines of scripts, XREAD, pub/sub.

The engine's own Front, CommandStreams and Wakeups run on it unchanged; its Scripts without their Lua. Every script call
is written down like an append-only file, so that a fail-over which lost the last second is a replay of what came
before. Faults on the way are the Link's; here are the server's: all data gone, the last second gone, memory full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.resources import files
from typing import Any, Self

from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from engine.errors import Unavailable
from engine.streams.scripts import Call, Scripts, translated
from simulation.simulated_loop import BEGINNING, SimulatedLoop
from simulation.simulated_network import Link, Promise
from simulation.simulated_scripts import HANDS, SCRIPTS, Argument, Database
from simulation.simulated_streams import id_of, text_of

_EPOCH_MS = int(BEGINNING.timestamp() * 1000)
_THRIFTY = frozenset(  # scripts that are allowed at full memory
    file.name.rpartition("-")[0]
    for file in files("engine.streams").joinpath("lua").iterdir()
    if file.read_text().startswith("#!lua flags=allow-oom")
)
_KEYS = {  # script to its number of keys
    name: int(number.removesuffix(".lua"))
    for name, _, number in (file.name.rpartition("-") for file in files("engine.streams").joinpath("lua").iterdir())
}
Command = tuple[Any, ...]
Witness = Callable[[str, Sequence[str], Sequence[Argument], Any], None]


class RedisServer:
    """`witness` is told of every script call that was carried out, with its reply."""

    def __init__(self, loop: SimulatedLoop, link: Link, witness: Witness) -> None:
        self._loop, self.link, self._witness = loop, link, witness
        self._database = Database()
        self.full = False  # no memory left
        self.clock_ahead_ms = 0  # its clock, of the true time
        self._log: list[tuple[float, int, str, Sequence[str], Sequence[Argument]]] = []  # when, by whose clock, what
        self._bells: list[_Bell] = []
        self._channels: dict[str, list[Subscription]] = {}

    @property
    def database(self) -> Database:
        """What is in it now."""
        self._database.now_ms = self._now_ms()
        return self._database

    def flush(self) -> None:
        """FLUSHALL: the data is gone, the connections and scripts stay."""
        self._database = Database()
        self._log.clear()

    def fail_over(self, lost_s: float) -> None:
        """A replica takes over that has not seen the last moments. Connections break."""
        self.link.cut()
        until_s = self._loop.time() - lost_s
        self._log = [call for call in self._log if call[0] <= until_s]
        self._database = Database()
        for _, now_ms, name, keys, arguments in self._log:
            self._database.now_ms = now_ms
            (SCRIPTS.get(name) or HANDS[name])(self._database, keys, arguments)
        self.hang_up()

    def lay_hand_on(self, stream: str, group: str, how: str) -> None:
        """Somebody with redis-cli does something to a stream that nobody should."""
        database = self.database
        if stream in database.streams:
            HANDS[how](database, (stream,), (group,))
            self._log.append((database.now_ms, how, (stream,), (group,)))

    def hang_up(self) -> None:
        """Whoever waits for news finds the connection broken."""
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.promise.break_off()
        subscriptions = [known for channel in self._channels.values() for known in channel]
        self._channels.clear()
        for subscription in subscriptions:
            subscription.break_off()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """One pipeline; a reply or an exception per command."""
        self._database.now_ms = self._now_ms()
        return [self._run(*command) for command in commands]

    def _run(self, command: str, *arguments: Any) -> Any:
        match command:
            case "SCRIPT":
                return self._evaluate(*arguments)
            case "PUBLISH":
                return self._publish(*arguments)
            case "GET":
                return self._database.get(arguments[0])
            case "HGETALL":
                return dict(self._database.hashes.get(arguments[0], {}))
        raise AssertionError(f"the simulated Redis knows no {command}")

    def _evaluate(self, name: str, words: Sequence[Any]) -> Any:
        keys, arguments = words[: _KEYS[name]], words[_KEYS[name] :]
        if self.full and name not in _THRIFTY:
            return OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        try:
            reply = SCRIPTS[name](self._database, keys, arguments)
        except ResponseError as error:
            return error
        self._log.append((self._loop.time(), self._database.now_ms, name, keys, arguments))
        self._witness(name, keys, arguments, reply)
        if name in ("accept", "revive", "requeue") and reply[0] in (b"accepted", b"revived", b"requeued"):
            self._ring()
        return reply

    def _publish(self, channel: str, message: bytes) -> int:
        listeners = self._channels.get(channel, [])
        for listener in listeners:
            self._loop.outside(0.001, listener.deliver, message)
        return len(listeners)

    def time_ms(self) -> int:
        return self.database.now_ms

    def subscribe(self, channel: str, subscription: Subscription) -> None:
        self._channels.setdefault(channel, []).append(subscription)

    def watch(self, seen: Mapping[str, str], block_ms: int) -> list[Any] | Promise[list[Any]]:
        """XREAD BLOCK: the streams with an entry beyond the one seen, at once or as soon as there is one."""
        bell = _Bell(seen)
        rung = bell.rung(self.database)
        if rung:
            return rung
        self._bells.append(bell)
        self._loop.outside(block_ms / 1000, self._give_up, bell)
        return bell.promise

    def _ring(self) -> None:
        for bell in list(self._bells):
            rung = bell.rung(self.database)
            if rung:
                self._bells.remove(bell)
                bell.promise.keep(rung)

    def _give_up(self, bell: _Bell) -> None:
        if bell in self._bells:
            self._bells.remove(bell)
            bell.promise.keep([])

    def _now_ms(self) -> int:
        return _EPOCH_MS + self.clock_ahead_ms + int(self._loop.time() * 1000)


class _Bell:
    """Somebody who waits for news of some streams."""

    def __init__(self, seen: Mapping[str, str]) -> None:
        self._seen = {key: id_of(last) for key, last in seen.items()}
        self.promise: Promise[list[Any]] = Promise()

    def rung(self, database: Database) -> list[Any]:
        fresh: list[Any] = []
        for key, seen in self._seen.items():
            stream = database.streams.get(key)
            if stream is not None and stream.last > seen:
                entry = next((known for known in stream.entries.items() if known[0] > seen), None)
                if entry is not None:
                    fresh.append([key.encode(), [(text_of(entry[0]), entry[1])]])
        return fresh


class Subscription:
    """redis-py's PubSub on one channel."""

    def __init__(self, server: RedisServer, loop: SimulatedLoop) -> None:
        self._server, self._loop = server, loop
        self._arrived: deque[bytes | None] = deque()
        self._waiting: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._arrived.clear()

    async def subscribe(self, channel: str) -> None:
        await self._server.link.exchange(partial(self._server.subscribe, channel, self))

    def listen(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._arrived:
            self._waiting = self._loop.create_future()
            await self._waiting
        message = self._arrived.popleft()
        if message is None:
            raise RedisGone("the connection broke")
        return {"type": "message", "data": message}

    def deliver(self, message: bytes | None) -> None:
        self._arrived.append(message)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def break_off(self) -> None:
        self._loop.outside(0.001, self.deliver, None)


class RedisClient:
    """redis.asyncio.Redis, as far as the engine uses it: a broken connection is tried once more at once."""

    def __init__(self, server: RedisServer, loop: SimulatedLoop) -> None:
        self._server, self._loop = server, loop

    async def xread(self, streams: Mapping[str, str], count: int, block: int) -> list[Any]:
        assert count == 1
        return await self._twice(partial(self._server.watch, streams, block))

    async def time(self) -> tuple[int, int]:
        now_ms: int = await self._twice(self._server.time_ms)
        return now_ms // 1000, now_ms % 1000 * 1000

    def pubsub(self) -> Subscription:
        return Subscription(self._server, self._loop)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = await self._twice(partial(self._server.run, commands))
        return replies

    async def _twice(self, serve: Callable[[], Any]) -> Any:
        try:
            return await self._server.link.exchange(serve)
        except RedisGone:
            return await self._server.link.exchange(serve)


class SimulatedScripts(Scripts):
    """The engine's way to its scripts, without Lua and sockets."""

    def __init__(self, client: RedisClient) -> None:
        self._client = self._redis = client  # type: ignore[assignment]  # as far as the engine uses it

    async def ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        try:
            return [translated(reply) for reply in await self._client.send([tuple(command) for command in commands])]
        except RedisError as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error

    @asynccontextmanager
    async def reaching(self) -> AsyncIterator[Any]:
        try:
            yield self._client
        except RedisError as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error

    @contextmanager
    def when_dropped(self, drop: Callable[[], None]) -> Iterator[None]:
        yield  # its connections are not told apart

    async def call_many(self, calls: Sequence[Call], publish: Sequence[tuple[str, bytes]] = ()) -> list[Any]:
        commands = [("SCRIPT", *call) for call in calls] + [("PUBLISH", *message) for message in publish]
        try:
            replies = await self._client.send(commands)
        except RedisError as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error
        return [translated(reply) for reply in replies[: len(calls)]]
