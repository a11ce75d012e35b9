"""The Lua scripts on a real Redis, called one at a time from plain tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.asyncio import Redis

from engine.streams import keys
from engine.streams.scripts import Argument, Scripts

PARTITION = 3
STREAM = keys.commands(PARTITION)
PAYMENT = "pay_" + "0" * 26
OPEN = keys.open_operations(PARTITION, PAYMENT)
MERCHANTS = keys.merchants(PARTITION)
LEASE = keys.lease(PARTITION)
MINE, THEIRS = "mine", "theirs"
UNSETTLED = '{"v":1,"fingerprint":{},"status":null,"body":null}'
SETTLED = '{"v":1,"fingerprint":{},"status":201,"body":"{}"}'


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """`plain` looks at Redis as redis-cli would."""

    url: str
    plain: redis.Redis

    def call(self, name: str, *arguments: Argument) -> Any:
        """The script's reply, or the error it stands for, raised."""

        async def once() -> Any:
            async with Redis.from_url(self.url, protocol=2) as client:
                return await Scripts(client).call(name, *arguments)

        return asyncio.run(once())

    def accept(
        self,
        operation: str,
        *,
        backlog: int = 100,
        mailbox: int = 100,
        merchant: str = "m",
        share: int = 100,
        record: str = UNSETTLED,
    ) -> list[Any]:
        where = (keys.record(PARTITION, operation), OPEN, STREAM, MERCHANTS, keys.dead(PARTITION))
        what = (operation, record, "snapshot", backlog, mailbox, merchant, share, "operation", operation)
        return list(self.call("accept", *where, *what))

    def revive(self, operation: str, seen: bytes, *, merchant: str = "m", record: str = UNSETTLED) -> list[Any]:
        where = (keys.record(PARTITION, operation), OPEN, STREAM, MERCHANTS)
        return list(self.call("revive", *where, operation, seen, record, "anew", merchant, "operation", operation))

    def adopt(self, token: str = MINE, consumer: str = "w1", entries: int = 100) -> int:
        """As an owner does: to the end."""
        adopted, cursor = 0, "-"
        while cursor:
            word, following, number = self.call("adopt", LEASE, STREAM, token, keys.GROUP, consumer, cursor, entries)
            assert word == b"adopted"
            adopted, cursor = adopted + number, following.decode()
        return adopted

    def record_of(self, operation: str) -> bytes:
        return self.plain.get(keys.record(PARTITION, operation)) or b""  # type: ignore[return-value]

    def settle(self, operation: str, *entries: str, merchant: str = "m", ttl_ms: int = 60_000) -> int:
        where = (STREAM, OPEN, keys.record(PARTITION, operation), MERCHANTS)
        return int(self.call("settle", *where, keys.GROUP, operation, SETTLED, ttl_ms, merchant, *entries))

    def ack(self, *entries: str, merchant: str = "m") -> int:
        return int(self.call("ack", STREAM, MERCHANTS, keys.GROUP, merchant, *entries))

    def bury(self, entry: str, *fields: str, merchant: str = "m") -> None:
        where = (STREAM, keys.dead(PARTITION), OPEN, MERCHANTS)
        self.call("bury", *where, keys.GROUP, entry, "", "", "", merchant, *fields)

    def entries_of(self, merchant: str) -> int:
        return int(self.plain.hget(MERCHANTS, merchant) or 0)  # type: ignore[arg-type]

    def take_lease(self, token: str = MINE, ms: int = 60_000) -> str:
        return str(self.call("take-lease", LEASE, token, ms).decode())

    def read(
        self, token: str = MINE, consumer: str = "w1", entries: int = 100, delivered: str | bytes | None = None
    ) -> list[Any]:
        """As a reader that knows what was delivered, unless it is told what to believe."""
        reply = list(self.call("read", LEASE, STREAM, token, keys.GROUP, consumer, entries, delivered or ""))
        if reply[0] == b"gap" and delivered is None:
            return self.read(token, consumer, entries, reply[1])
        return reply

    def claim(self, token: str = MINE, consumer: str = "w2") -> list[Any]:
        return list(self.call("claim", LEASE, STREAM, token, keys.GROUP, consumer, "0-0", 100))

    def pending(self) -> int:
        return int(self.plain.xpending(STREAM, keys.GROUP)["pending"])


@contextmanager
def scripts_on(redis_url: str) -> Iterator[Scripted]:
    with redis.Redis.from_url(redis_url) as plain:
        yield Scripted(url=redis_url, plain=plain)


def ids(reply: list[Any]) -> list[str]:
    """The entry ids in a reply of `read` or `claim`."""
    return [entry[0].decode() for entry in reply[-1]]
