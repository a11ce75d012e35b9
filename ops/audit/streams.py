"""The streams against the invariants: nothing trimmed (I12), nothing without an owner (I11), nothing given up (I10).

A stream holds what is pending and what is unread, and nothing else, because entries are deleted as they are
acknowledged; whatever else removes one leaves one of these sums wrong. Times are Redis' own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from engine.streams import keys
from engine.streams.scripts import sources
from engine.worker.reclaimer import ADOPT_S
from ops.audit.breach import Breach, breach

_COUNTED_MAX = 200  # unread entries that are counted: their bodies pass through the script
_IN_HAND_S = 900.0  # an owner that holds an entry for so long does not finish it
_WORDS_MAX = 200
_FOR_EVER = -1
_UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One partition at one instant, as inspect-2 tells it."""

    partition: int
    entries: int
    pending: int
    unread: int
    lag: int
    delivered: str
    deleted: str
    first: str
    lease: str
    lease_ms: int
    gone: tuple[str, ...]
    idle: tuple[tuple[str, str, int], ...]  # entry, consumer, ms

    @property
    def name(self) -> str:
        return keys.commands(self.partition)

    @property
    def owner(self) -> str:
        return self.lease.rpartition(":")[0]


def look(redis: Redis, partitions: int, *, grace_s: float, limit: int) -> Iterator[Breach]:
    """What stands against the streams of all partitions, in two round trips."""
    script, number = sources()["inspect"]
    pipeline = redis.pipeline(transaction=False)
    pipeline.time()
    for partition in range(partitions):
        names = (keys.commands(partition), keys.lease(partition))
        pipeline.eval(script, int(number), *names, keys.GROUP, int(grace_s * 1000), _COUNTED_MAX)
        pipeline.xrevrange(keys.dead(partition), count=limit)
    (seconds, _), *replies = pipeline.execute()
    for partition in range(partitions):
        stream = _stream(partition, replies[2 * partition])
        yield from _trimmed(stream)
        yield from _ownerless(stream, float(seconds), grace_s)
        if stream.lease and stream.lease_ms == _FOR_EVER:
            yield breach("leases_lapse", f"the lease of partition {partition} has no end; it is {stream.owner}'s")
        yield from _dead_letters(partition, replies[2 * partition + 1])


def look_whose(redis: Redis, installation: str) -> Iterator[Breach]:
    """Whether this Redis is the installation's. One that is nobody's belongs to the next process that starts."""
    there: Any = redis.get(keys.INSTALLATION)
    if there is not None and there.decode(errors="replace") != installation:
        yield breach(
            "redis_is_this_installations",
            f"{keys.INSTALLATION} is {there.decode(errors='replace')[:40]}, and the ledger is {installation}",
        )


def operations_in(redis: Redis, stream: str) -> set[str]:
    """The operations that the entries of a stream name. Reads all of it."""
    found: set[str] = set()
    begin = "-"
    while True:
        page: Any = redis.xrange(stream, min=begin, count=_COUNTED_MAX)
        found |= {fields[b"operation"].decode(errors="replace") for _, fields in page if b"operation" in fields}
        if len(page) < _COUNTED_MAX:
            return found
        begin = f"({page[-1][0].decode()}"


def length(redis: Redis, stream: str) -> int:
    """Its entries. Raises RedisError."""
    return int(redis.xlen(stream))


def _trimmed(stream: Stream) -> Iterator[Breach]:
    found = [f"entry {entry} is pending, and not in the stream any more" for entry in stream.gone]
    counted, unacknowledged = stream.unread < _COUNTED_MAX, stream.entries - stream.pending
    if not found and counted and unacknowledged > stream.unread:
        nobodys = unacknowledged - stream.unread
        found.append(
            f"{nobodys} of {stream.entries} entries are neither pending nor unread, so nobody has them; the owner "
            f"takes them in hand within {ADOPT_S:.0f} s, and where it does not, restart it"
        )
    elif not found and unacknowledged < stream.unread:
        found.append(f"{stream.entries} entries, of which {stream.pending} are pending and {stream.unread} unread")
    if _place(stream.deleted) > _place(stream.delivered):
        found.append(f"entry {stream.deleted} was deleted, and nobody had read beyond {stream.delivered}")
    if counted and stream.lag != _UNKNOWN and stream.lag > stream.unread:
        found.append(f"{stream.lag} entries were added and never read, {stream.unread} of them are there")
    for detail in found:
        yield breach("nothing_is_trimmed", f"{stream.name}: {detail}", at=_moment(stream.delivered))


def _ownerless(stream: Stream, now_s: float, grace_s: float) -> Iterator[Breach]:
    if stream.first and not stream.lease and now_s - _place(stream.first)[0] / 1000 > grace_s:
        detail = f"{stream.name}: {stream.entries} entries wait, since {_moment(stream.first)}, and nobody owns it"
        yield breach("waiting_entries_have_an_owner", detail, at=_moment(stream.first))
    for entry, consumer, idle_ms in stream.idle:
        if stream.lease and (consumer != stream.owner or idle_ms > _IN_HAND_S * 1000):
            detail = f"{stream.name}: {entry} is pending for {consumer} since {idle_ms / 1000:.0f} s"
            yield breach("waiting_entries_have_an_owner", f"{detail}; the owner is {stream.owner}", at=_moment(entry))


def _dead_letters(partition: int, letters: Any) -> Iterator[Breach]:
    for place, fields in letters:
        told = {name: value.decode(errors="replace") for name, value in fields.items()}
        yield breach(
            "no_dead_letters",
            f"{keys.dead(partition)} {place.decode()}: {told.get(b'reason', 'without a reason')[:_WORDS_MAX]}",
            payment=told.get(b"payment") or None,
            operation=told.get(b"operation") or None,
            at=_moment(place.decode()),
        )


def _stream(partition: int, reply: Any) -> Stream:
    if isinstance(reply, RedisError):
        raise reply
    entries, pending, unread, lag, delivered, deleted, first, lease, lease_ms, gone, idle = reply
    return Stream(
        partition=partition,
        entries=entries,
        pending=pending,
        unread=unread,
        lag=lag,
        delivered=delivered.decode(),
        deleted=deleted.decode(),
        first=first.decode(),
        lease=lease.decode(errors="replace"),
        lease_ms=lease_ms,
        gone=tuple(entry.decode() for entry in gone),
        idle=tuple((entry.decode(), consumer.decode(errors="replace"), idle_ms) for entry, consumer, idle_ms in idle),
    )


def _place(entry: str) -> tuple[int, int]:
    """An entry's id as it sorts: milliseconds, then the number among those of the millisecond."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


def _moment(entry: str) -> datetime | None:
    """When an entry was added, by its id; None for an id that no clock gave."""
    milliseconds, _ = _place(entry)
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if 0 < milliseconds < 253_402_300_800_000 else None
