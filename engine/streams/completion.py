"""Settlement: once an answer is committed, take the work off Redis and wake who waits (I4). Coalesced per worker.

Also acks what is journaled but not answered, and buries what cannot be handled. Redis away: tried again until it is
back; everything here may be repeated, and what was lost with Redis is rebuilt from the ledger when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import structlog

from engine.batching import Batcher
from engine.errors import Unavailable
from engine.failpoint import Failpoints
from engine.streams import keys
from engine.streams.scripts import Call, Scripts

log = structlog.get_logger()

_BATCH_MAX = 500
_RETRY_S = 0.5  # Redis away: twice a second finds it soon enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """An operation with its answer: the record to store, the entries to acknowledge, the edges to wake."""

    partition: int
    payment: str
    operation: str
    merchant: str
    record: bytes
    entries: tuple[str, ...]
    reply_to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journaled:
    """Entries of a merchant whose operation is safe in the ledger and not answered yet."""

    partition: int
    merchant: str
    entries: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered:
    """An entry given up, with the fields of its dead letter. `kept` stands for the entry's own fields when they must
    not be kept as they are; `snapshot` is shown should the operation not be open; `merchant` is "" when the entry does
    not say whose it is."""

    partition: int
    entry: str
    payment: str | None
    operation: str | None
    merchant: str
    fields: tuple[str | bytes, ...]
    kept: tuple[str | bytes, ...] | None = None
    snapshot: bytes = b""


class Completion:
    """Run `run` for life, then call with what is done. Returns when Redis has it."""

    def __init__(self, scripts: Scripts, record_ttl_ms: int, failpoints: Failpoints) -> None:
        self._scripts, self._record_ttl_ms, self._failpoints = scripts, record_ttl_ms, failpoints
        self._done: Batcher[Completed | Journaled | DeadLettered, None] = Batcher(self._carry_out, _BATCH_MAX)

    async def run(self) -> None:
        await self._done.run()

    async def __call__(self, done: Completed | Journaled | DeadLettered) -> None:
        await self._done(done)

    async def _carry_out(self, batch: Sequence[Completed | Journaled | DeadLettered]) -> list[Exception | None]:
        self._failpoints("before-settle")
        calls = [self._call(done) for done in batch]
        awake: dict[str, list[str]] = {}
        for done in batch:
            if isinstance(done, Completed):
                for edge in done.reply_to:
                    awake.setdefault(edge, []).append(done.operation)
        messages = [(keys.reply(edge), " ".join(operations).encode()) for edge, operations in awake.items()]
        while True:
            try:
                replies = await self._scripts.call_many(calls, messages)
            except Unavailable as error:
                replies = [error]
            if not any(isinstance(reply, Unavailable) for reply in replies):
                break
            log.warning("redis_away", waiting=len(batch))
            await anyio.sleep(_RETRY_S)
        self._failpoints("after-settle")
        return [reply if isinstance(reply, Exception) else None for reply in replies]

    def _call(self, done: Completed | Journaled | DeadLettered) -> Call:
        stream, merchants = keys.commands(done.partition), keys.merchants(done.partition)
        match done:
            case Completed():
                return "settle", (
                    stream,
                    keys.open_operations(done.partition, done.payment),
                    keys.record(done.partition, done.operation),
                    merchants,
                    keys.GROUP,
                    done.operation,
                    done.record,
                    self._record_ttl_ms,
                    done.merchant,
                    *done.entries,
                )
            case Journaled():
                return "ack", (stream, merchants, keys.GROUP, done.merchant, *done.entries)
            case DeadLettered():
                return "bury", (
                    stream,
                    keys.dead(done.partition),
                    keys.open_operations(done.partition, done.payment or ""),
                    merchants,
                    keys.GROUP,
                    done.entry,
                    done.operation or "",
                    done.snapshot,
                    "1" if done.kept is None else "",
                    done.merchant,
                    *done.fields,
                    *(done.kept or ()),
                )
