"""Redis's stream as a value in memory: entries, consumer groups, pending entries list. Its own words and numbers.

Only what the engine's scripts ask of it, and exactly that: tests/test_simulated_redis_conforms.py holds it against
a real server. Nothing here trims (I12): an entry goes only by `delete`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Id = tuple[int, int]
Entry = tuple[Id, list[bytes]]
ZERO: Id = (0, 0)


def text_of(entry: Id) -> bytes:
    return b"%d-%d" % entry


def id_of(text: bytes | str) -> Id:
    milliseconds, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(milliseconds), int(sequence)


@dataclass(kw_only=True)
class Pending:
    """Delivered to a consumer and not acknowledged."""

    consumer: str
    at_ms: int
    deliveries: int


@dataclass(kw_only=True)
class Group:
    delivered: Id = ZERO
    pending: dict[Id, Pending] = field(default_factory=dict)  # ascending
    consumers: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Stream:
    entries: dict[Id, list[bytes]] = field(default_factory=dict)  # ascending
    last: Id = ZERO
    groups: dict[str, Group] = field(default_factory=dict)

    def add(self, fields: list[bytes], now_ms: int) -> Id:
        """XADD *"""
        self.last = (now_ms, 0) if now_ms > self.last[0] else (self.last[0], self.last[1] + 1)
        self.entries[self.last] = fields
        return self.last

    def delete(self, entry: Id) -> int:
        """XDEL"""
        return 0 if self.entries.pop(entry, None) is None else 1

    def ack(self, group: str, entry: Id) -> int:
        """XACK"""
        known = self.groups.get(group)
        return 0 if known is None or known.pending.pop(entry, None) is None else 1

    def read_group(self, name: str, consumer: str, count: int, now_ms: int) -> list[Entry]:
        """XREADGROUP ... >"""
        group = self.groups[name]
        if self.last <= group.delivered:
            return []
        fresh = [entry for entry in self.entries.items() if entry[0] > group.delivered][:count]
        if fresh:
            group.consumers.add(consumer)
        for entry, _ in fresh:
            group.delivered = entry
            group.pending[entry] = Pending(consumer=consumer, at_ms=now_ms, deliveries=1)
        if fresh and len(group.pending) > len(fresh) and next(reversed(group.pending)) != fresh[-1][0]:
            group.pending = dict(sorted(group.pending.items()))  # the group had been set back
        return fresh

    def claim(self, name: str, consumer: str, entries: list[Id], now_ms: int) -> list[Entry]:
        """XCLAIM with a minimum idle time of 0. What is gone from the stream leaves the list, too."""
        group = self.groups[name]
        group.consumers.add(consumer)
        claimed: list[Entry] = []
        for entry in entries:
            pending = group.pending.get(entry)
            if pending is None:
                continue
            if entry not in self.entries:
                del group.pending[entry]
                continue
            pending.consumer, pending.at_ms, pending.deliveries = consumer, now_ms, pending.deliveries + 1
            claimed.append((entry, self.entries[entry]))
        return claimed

    def claim_all(self, name: str, consumer: str, start: Id, count: int, now_ms: int) -> tuple[Id, list[Entry]]:
        """XAUTOCLAIM with a minimum idle time of 0: the next cursor (ZERO: that was all) and what was claimed."""
        beyond = [entry for entry in self.groups[name].pending if entry >= start]
        taken, left = beyond[:count], beyond[count:]
        return (left[0] if left else ZERO), self.claim(name, consumer, taken, now_ms)

    def waiting(self, name: str, count: int) -> list[tuple[Id, int]]:
        """XPENDING: ids of pending entries, and how often each was delivered."""
        return [(entry, known.deliveries) for entry, known in self.groups[name].pending.items()][:count]

    def adopt(self, name: str, consumer: str, start: Id | None, count: int, now_ms: int) -> tuple[Id | None, int]:
        """XCLAIM ... FORCE JUSTID of entries up to the last delivered that nobody has pending, as adopt-2: where to
        go on (None: that was all), and how many."""
        group = self.groups[name]
        group.delivered = min(group.delivered, self.last)
        rest = len(self.entries) - len(group.pending)
        unread = [entry for entry in self.entries if entry > group.delivered]
        if start is None and 0 <= rest < count and len(unread[: rest + 1]) == rest:
            return None, 0
        found = [entry for entry in self.entries if (start is None or entry > start) and entry <= group.delivered][
            :count
        ]
        nobodys = [entry for entry in found if entry not in group.pending]
        for entry in nobodys:
            group.consumers.add(consumer)
            group.pending[entry] = Pending(consumer=consumer, at_ms=now_ms, deliveries=0)
        group.pending = dict(sorted(group.pending.items()))
        return (found[-1] if len(found) == count else None), len(nobodys)

    def drop_idle_consumers(self, name: str, keep: str) -> None:
        """XGROUP DELCONSUMER of everyone else who holds nothing."""
        group = self.groups[name]
        busy = {known.consumer for known in group.pending.values()}
        group.consumers &= busy | {keep}
