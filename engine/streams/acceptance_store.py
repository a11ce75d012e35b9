"""Redis as an edge uses it: accepting, reading records and open operations. Coalesced, with no opinion of its own.

Raises Unavailable when Redis does not answer, and from then on at once until it is back (store_outage.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from engine.batching import Batcher
from engine.domain.command import IdempotencyRecord, OpenOperation
from engine.errors import Unavailable
from engine.resilience.store_outage import StoreOutage
from engine.streams import keys
from engine.streams.encoding import decode_record, decode_snapshot, encode_record
from engine.streams.scripts import Argument, Call, Scripts

_BATCH_MAX = 200
_PROBE_MS = 10_000  # until what a probe has written is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptLimits:
    """Entries per partition and, of these, per merchant, for new payments and (10 % more) for what belongs to payments;
    operations per payment."""

    backlog: int
    backlog_headroom: int
    merchant: int
    merchant_headroom: int
    open_operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """Entries in a partition's stream, and whether a worker holds its lease."""

    entries: int
    owned: bool


class AcceptanceStore:
    """Run `run` for life."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._calls: Batcher[Call, Any] = Batcher(self._carry_out, _BATCH_MAX)
        self._reads: Batcher[tuple[str, str], Any] = Batcher(self._read, _BATCH_MAX)
        self._outage = StoreOutage("Redis", self._probe)

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
    ) -> tuple[str, Any, bool]:
        """What accept-5 says: ("accepted", id), ("known", record), ("full", "share" or "busy", how much); and whether
        Redis holds what is to be done, as an entry or a dead letter."""
        arguments = (
            keys.record(partition, operation),
            keys.open_operations(partition, payment),
            keys.commands(partition),
            keys.merchants(partition),
            keys.dead(partition),
            operation,
            record,
            snapshot,
            backlog,
            open_operations,
            merchant,
            merchant_backlog,
            *entry,
        )
        word, value, *held = await self._calls(("accept", arguments))
        return word.decode(), value, held != [0]

    async def revive(
        self,
        partition: int,
        payment: str,
        operation: str,
        *,
        seen: bytes,
        record: bytes,
        snapshot: bytes,
        entry: Sequence[bytes | str],
        merchant: str,
    ) -> bool:
        """Give an accepted operation whose entry is lost a new one, unless its record is no longer as it was seen."""
        arguments = (
            keys.record(partition, operation),
            keys.open_operations(partition, payment),
            keys.commands(partition),
            keys.merchants(partition),
            operation,
            seen,
            record,
            snapshot,
            merchant,
            *entry,
        )
        reply = await self._calls(("revive", arguments))
        return bool(reply[0] == b"revived")

    async def repair(
        self, partition: int, payment: str, operation: str, record: IdempotencyRecord, record_ttl_ms: int
    ) -> None:
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

    async def record(self, partition: int, operation: str) -> IdempotencyRecord | None:
        raw = await self._reads(("GET", keys.record(partition, operation)))
        return None if raw is None else decode_record(raw)

    async def open_operations(self, partition: int, payment: str) -> list[OpenOperation]:
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

    async def partitions(self, partitions: int) -> list[PartitionState]:
        """Of all partitions, in order. Raises Unavailable."""
        self._outage.check()
        names = [name for each in range(partitions) for name in (keys.commands(each), keys.lease(each))]
        asked = zip(("XLEN", "EXISTS") * partitions, names, strict=True)
        replies = await self._scripts.ask(list(asked))
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [
            PartitionState(entries=entries, owned=bool(owned))
            for entries, owned in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def ping(self) -> None:
        """Raises Unavailable when Redis does not answer, takes no writes, or permits not all that accepting takes."""
        self._outage.check()
        await self._scripts.call("probe", keys.PROBE, _PROBE_MS)

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
            return await self._scripts.ask(reads)
        except Unavailable:
            self._outage.begin()
            raise

    async def _probe(self) -> None:
        """Raises Unavailable while Redis is away. One that answers, and be it with a refusal, is not: callers learn
        from it at once, and more than from us."""
        await self._scripts.call_many([("probe", (keys.PROBE, _PROBE_MS))])


def _pairs(raw: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(raw, dict):
        return list(raw.items())
    return list(zip(raw[::2], raw[1::2], strict=True))
