"""Redis as an edge uses it: accepting, reading records and open operations. Coalesced, with no opinion of its own.

Raises Unavailable when Redis does not answer, and from then on at once until it is back (outage.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine import keys
from engine.coalescer import Coalescer
from engine.errors import Unavailable
from engine.outage import Outage
from engine.scripts import Argument, Call, Scripts, translated
from engine.wire import Record, Snapshot, decode_record, decode_snapshot, encode_record

_BATCH_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptLimits:
    """Entries per partition and, of these, per merchant, for new payments and (10 % more) for what belongs to payments;
    operations per payment."""

    backlog: int
    backlog_headroom: int
    merchant: int
    merchant_headroom: int
    open_operations: int


class Front:
    """Run `run` for life."""

    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis, self._scripts = redis, scripts
        self._calls: Coalescer[Call, Any] = Coalescer(self._carry_out, _BATCH_MAX)
        self._reads: Coalescer[tuple[str, str], Any] = Coalescer(self._read, _BATCH_MAX)
        self._outage = Outage("Redis", self._probe)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._calls.run)
            tasks.start_soon(self._reads.run)
            tasks.start_soon(self._outage.run)

    async def accept(
        self,
        partition: int,
        payment: str,
        operation: str,
        *,
        record: bytes,
        snapshot: bytes,
        entry: Sequence[bytes | str],
        backlog: int,
        merchant: str,
        merchant_backlog: int,
        open_operations: int,
    ) -> tuple[str, Any]:
        """What accept-4 says: ("accepted", id), ("known", record), or ("full", "share" or "busy", how much)."""
        arguments = (
            keys.record(partition, operation),
            keys.open_operations(partition, payment),
            keys.commands(partition),
            keys.merchants(partition),
            operation,
            record,
            snapshot,
            backlog,
            open_operations,
            merchant,
            merchant_backlog,
            *entry,
        )
        word, value = await self._calls(("accept", arguments))
        return word.decode(), value

    async def repair(self, partition: int, payment: str, operation: str, record: Record, record_ttl_ms: int) -> None:
        """Store an answer that the ledger has and Redis lost."""
        arguments = (
            keys.commands(partition),
            keys.open_operations(partition, payment),
            keys.record(partition, operation),
            keys.merchants(partition),
            keys.GROUP,
            operation,
            encode_record(record),
            record_ttl_ms,
            "",  # no entry is acknowledged here, so nobody has fewer
        )
        await self._calls(("settle", arguments))

    async def record(self, partition: int, operation: str) -> Record | None:
        raw = await self._reads(("GET", keys.record(partition, operation)))
        return None if raw is None else decode_record(raw)

    async def open_operations(self, partition: int, payment: str) -> list[Snapshot]:
        """Accepted, unsettled operations of a payment, oldest first."""
        raw = await self._reads(("HGETALL", keys.open_operations(partition, payment)))
        found = [decode_snapshot(operation.decode(), data) for operation, data in _pairs(raw)]
        return sorted(found, key=lambda snapshot: snapshot.accepted_at)

    async def find(self, partitions: Sequence[int], merchant: str, *words: Argument) -> list[Any]:
        """What find-3 says of each of these partitions. Not coalesced with accepting, which must not wait for it."""
        calls = [
            ("find", (keys.commands(each), keys.dead(each), keys.merchants(each), merchant, *words))
            for each in partitions
        ]
        replies = await self._carry_out(calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        await self._reads(("GET", "penstock:ping"))

    async def _carry_out(self, calls: Sequence[Call]) -> list[Any]:
        self._outage.check()
        try:
            return await self._scripts.call_many(calls)
        except Unavailable:
            self._outage.begin()
            raise

    async def _read(self, reads: Sequence[tuple[str, str]]) -> list[Any]:
        self._outage.check()
        try:
            return await self._ask(reads)
        except Unavailable:
            self._outage.begin()
            raise

    async def _probe(self) -> None:
        """Raises Unavailable while Redis is away."""
        for reply in await self._ask([("GET", "penstock:ping")]):
            if isinstance(reply, Exception):
                raise reply

    async def _ask(self, reads: Sequence[tuple[str, str]]) -> list[Any]:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command, key in reads:
                    pipeline.execute_command(command, key)
                return [translated(reply) for reply in await pipeline.execute(raise_on_error=False)]
        except (RedisError, OSError) as error:
            raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error


def _pairs(raw: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(raw, dict):
        return list(raw.items())
    return list(zip(raw[::2], raw[1::2], strict=True))
