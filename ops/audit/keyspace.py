"""What Redis says of single operations, against the ledger: accepted and still open (I4, I11), answered (I6).

Walks the keys by SCAN, all of them or some at a time from where it stopped. Redis is read before the ledger: what the
ledger knows it never forgets, so whatever Redis showed a moment earlier must be in it. What it does not know may still
wait in a stream, where it is looked for, and then in the ledger once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis import Redis

from engine.domain.command import IdempotencyRecord, accept_order, accepted_at
from engine.errors import Broken
from engine.streams import keys
from engine.streams.encoding import decode_record, decode_snapshot
from ops.audit.breach import Breach, breach
from ops.audit.streams import length, operations_in

_SCAN_COUNT = 500
_SEARCHED_MAX = 2_000  # entries of a stream that a look at some keys searches; in a long queue it tells nothing
_KEY = re.compile(rb"penstock:\{p(\d{1,4})\}:(open|idem):(\S+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What the ledger knows of an operation."""

    settled_at: datetime | None
    status: int | None
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """One operation that Redis holds open; the payment is None where a record alone tells of it."""

    operation: str
    payment: str | None
    partition: int
    accepted_at: datetime


Answers = Callable[[Sequence[str]], Mapping[str, StoredAnswer]]


class Keyspace:
    """Remembers how far it got. `answers` asks the ledger, at the moment of the call."""

    def __init__(self, redis: Redis, answers: Answers, *, grace_s: float) -> None:
        self._redis, self._answers, self._grace = redis, answers, timedelta(seconds=grace_s)
        self._cursor = 0
        self._opened: set[str] = set()  # operations that were seen open since the walk began
        self._unsettled: dict[str, _Open] = {}  # and those that a record calls unsettled

    def look(self, now: datetime, keys_max: int | None) -> Iterator[Breach]:
        """At all keys, or at about `keys_max` more, beginning again at the end."""
        if keys_max is None:
            self._cursor = 0
        seen = 0
        while True:
            if self._cursor == 0:
                self._opened, self._unsettled = set(), {}
            reply: Any = self._redis.scan(self._cursor, match="penstock:{p*", count=_SCAN_COUNT)
            self._cursor = int(reply[0])
            yield from self._examine([match for name in reply[1] if (match := _KEY.match(name))], now, keys_max is None)
            seen += _SCAN_COUNT
            if self._cursor == 0:
                yield from self._unshown(now, keys_max is None)
            if self._cursor == 0 or (keys_max is not None and seen >= keys_max):
                return

    def _examine(self, names: Sequence[re.Match[bytes]], now: datetime, whole: bool) -> Iterator[Breach]:
        if not names:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(name[0].decode()) if name[2] == b"open" else pipeline.get(name[0].decode())
        opened: list[_Open] = []
        records: dict[str, IdempotencyRecord] = {}
        for name, reply in zip(names, pipeline.execute(raise_on_error=False), strict=True):
            try:
                if name[2] == b"open":
                    opened += _opened(name, reply)
                elif reply is not None:  # else it has expired meanwhile
                    records[name[3].decode()] = record = decode_record(reply)
                    if (unsettled := _unsettled(name, record)) is not None:
                        self._unsettled[unsettled.operation] = unsettled
            except (Broken, ValueError, AttributeError, TypeError):
                told = "accepted_is_not_lost" if name[2] == b"open" else "replays_are_the_ledgers"
                yield breach(told, f"{name[0].decode(errors='replace')} is nothing that anybody can read")
        waiting = [each for each in opened if each.accepted_at < now - self._grace]
        self._opened.update(each.operation for each in opened)
        records = {operation: record for operation, record in records.items() if record.settled}
        known = self._answers([*records, *(each.operation for each in waiting)])
        yield from _differing(records, known)
        for each in waiting:
            answer = known.get(each.operation)
            if answer is not None and answer.settled_at is not None and answer.settled_at < now - self._grace:
                yield breach(
                    "open_is_unsettled",
                    f"open in Redis, settled {answer.settled_at}",
                    payment=each.payment,
                    operation=each.operation,
                    at=answer.settled_at,
                )
        yield from self._lost([each for each in waiting if each.operation not in known], whole)

    def _unshown(self, now: datetime, whole: bool) -> Iterator[Breach]:
        """Records of accepted work that nothing shows as open, by now: their entries may be gone as well."""
        alone = [each for name, each in self._unsettled.items() if name not in self._opened]
        old = [each for each in alone if each.accepted_at < now - self._grace]
        known = self._answers([each.operation for each in old])
        yield from self._lost([each for each in old if each.operation not in known], whole)

    def _lost(self, suspects: Sequence[_Open], whole: bool) -> Iterator[Breach]:
        """Those that no stream holds either, and that the ledger has not learnt of meanwhile."""
        for partition in sorted({each.partition for each in suspects}):
            commands = keys.commands(partition)
            if not whole and length(self._redis, commands) > _SEARCHED_MAX:
                continue
            present = operations_in(self._redis, commands) | operations_in(self._redis, keys.dead(partition))
            absent = [each for each in suspects if each.partition == partition and each.operation not in present]
            known = self._answers([each.operation for each in absent])
            for each in absent:
                if each.operation not in known and self._is_still_open(each):
                    yield breach(
                        "accepted_is_not_lost",
                        f"accepted {each.accepted_at}; it is in no stream of partition {partition}, nor in the ledger",
                        payment=each.payment,
                        operation=each.operation,
                        at=each.accepted_at,
                    )

    def _is_still_open(self, each: _Open) -> bool:
        if each.payment is not None:
            return bool(self._redis.hexists(keys.open_operations(each.partition, each.payment), each.operation))
        raw: Any = self._redis.get(keys.record(each.partition, each.operation))
        return raw is not None and not decode_record(raw).settled


def _unsettled(name: re.Match[bytes], record: IdempotencyRecord) -> _Open | None:
    """What a record says of accepted work, with the moment that is in its entry's id. Raises ValueError for no id."""
    if record.settled or record.entry is None:
        return None
    at = accepted_at(accept_order(record.entry))
    if at is None:  # an id that no clock gave
        return None
    return _Open(operation=name[3].decode(), payment=None, partition=int(name[1]), accepted_at=at)


def _opened(name: re.Match[bytes], reply: Any) -> Iterator[_Open]:
    """The open operations of one payment. Raises Broken, AttributeError or TypeError when they are nothing of ours."""
    for operation, data in reply.items():
        snapshot = decode_snapshot(operation.decode(), data)
        if snapshot.accepted_at.tzinfo is None:
            raise Broken("a time without its zone")
        yield _Open(
            operation=snapshot.operation,
            payment=name[3].decode(),
            partition=int(name[1]),
            accepted_at=snapshot.accepted_at,
        )


def _differing(records: Mapping[str, IdempotencyRecord], known: Mapping[str, StoredAnswer]) -> Iterator[Breach]:
    for operation, record in records.items():
        answer = known.get(operation)
        if answer is None or answer.settled_at is None:
            detail = f"Redis replays {record.status}, and the ledger has not settled it"
        elif (record.status, record.body) != (answer.status, answer.body):
            detail = f"Redis replays {record.status}, the ledger {answer.status}, and not the same bytes"
        else:
            continue
        yield breach(
            "replays_are_the_ledgers", detail, operation=operation, at=None if answer is None else answer.settled_at
        )
