"""The command streams as their owner reads them: fenced reads, fenced claims, and a doorbell that only says where.

Keeps I2 and I3: entries are taken by scripts that check the lease in the same breath. The doorbell is a plain blocking
XREAD, so an idle worker costs nothing; what it shows is not handled, only where to look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.streams import keys
from engine.streams.scripts import Scripts

_CLAIM_ENTRIES = 500  # per call; a take-over of thousands must not hold Redis for long


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """An entry as it was read. `first` is false when somebody may have had it before."""

    id: str
    fields: Mapping[bytes, bytes]
    first: bool


class LeaseLost(Exception):
    """The lease is not ours: read nothing, own nothing."""


class Gap(Exception):
    """The group delivered up to `delivered`, and not all of it reached us."""

    def __init__(self, delivered: str) -> None:
        super().__init__(delivered)
        self.delivered = delivered


class CommandStreams:
    """Reads and claims for one consumer (a worker)."""

    def __init__(self, scripts: Scripts, consumer: str) -> None:
        self._scripts, self._consumer = scripts, consumer

    async def read(self, wanted: Sequence[tuple[int, str, str, int]]) -> list[list[StreamEntry] | Exception]:
        """New entries of several partitions, each given as (partition, lease token, last delivered, entries max).

        A partition's result is LeaseLost when its lease is not ours, and Gap when the group delivered entries that we
        do not know of. Raises Unavailable when Redis is away.
        """
        replies = await self._scripts.call_many(
            [
                (
                    "read",
                    (
                        keys.lease(partition),
                        keys.commands(partition),
                        token,
                        keys.GROUP,
                        self._consumer,
                        entries_max,
                        delivered,
                    ),
                )
                for partition, token, delivered, entries_max in wanted
            ]
        )
        return [_read(reply) for reply in replies]

    async def claim(self, partition: int, token: str) -> list[StreamEntry]:
        """Everything former owners left pending, or nobody had, oldest first. Raises LeaseLost, Unavailable."""
        await self.adopt(partition, token)
        claimed: list[StreamEntry] = []
        cursor: str | bytes = "0-0"
        while True:
            reply = await self._scripts.call(
                "claim",
                keys.lease(partition),
                keys.commands(partition),
                token,
                keys.GROUP,
                self._consumer,
                cursor,
                _CLAIM_ENTRIES,
            )
            if reply[0] == b"lost":
                raise LeaseLost
            claimed += _entries(reply[2], first=False)
            cursor = reply[1]
            if cursor == b"0-0":
                return claimed

    async def adopt(self, partition: int, token: str) -> int:
        """Make pending for us what the group counts as delivered and nobody has pending: somebody moved the group on,
        or deleted a consumer. How many there were. Raises LeaseLost, Unavailable."""
        adopted, cursor = 0, "-"
        while cursor:
            reply = await self._scripts.call(
                "adopt",
                keys.lease(partition),
                keys.commands(partition),
                token,
                keys.GROUP,
                self._consumer,
                cursor,
                _CLAIM_ENTRIES,
            )
            if reply[0] == b"lost":
                raise LeaseLost
            adopted += reply[2]
            cursor = reply[1].decode()
        return adopted

    async def pending(self, partition: int, token: str, entries_max: int) -> list[tuple[str, int]]:
        """Ids of pending entries, oldest first, and how often each was delivered. Raises LeaseLost, Unavailable."""
        reply = await self._scripts.call(
            "pending", keys.lease(partition), keys.commands(partition), token, keys.GROUP, entries_max
        )
        if reply[0] == b"lost":
            raise LeaseLost
        return [(entry.decode(), deliveries) for entry, deliveries in reply[1]]

    async def reclaim(self, partition: int, token: str, ids: Sequence[str]) -> list[StreamEntry]:
        """The named pending entries, now ours. Raises LeaseLost, Unavailable."""
        reply = await self._scripts.call(
            "reclaim", keys.lease(partition), keys.commands(partition), token, keys.GROUP, self._consumer, *ids
        )
        if reply[0] == b"lost":
            raise LeaseLost
        return _entries(reply[1], first=False)

    async def wait_for_entries(self, seen: Mapping[int, str], block_ms: int) -> list[int]:
        """Wait until a partition has entries beyond the id seen there; which. Empty after `block_ms`. Raises
        Unavailable."""
        streams = {keys.commands(partition): last for partition, last in seen.items()}
        async with self._scripts.reaching() as redis:
            reply: Any = await redis.xread(streams, count=1, block=block_ms)  # type: ignore[arg-type]
        if not reply:
            return []
        names = {keys.commands(partition).encode(): partition for partition in seen}
        streams_rung = reply.keys() if isinstance(reply, dict) else (stream for stream, _ in reply)
        return [names[stream] for stream in streams_rung]


def _read(reply: Any) -> list[StreamEntry] | Exception:
    if isinstance(reply, Exception):
        return reply
    if reply[0] == b"lost":
        return LeaseLost()
    if reply[0] == b"gap":
        return Gap(reply[1].decode())
    return _entries(reply[1], first=True)


def _entries(raw: Sequence[Any], *, first: bool) -> list[StreamEntry]:
    return [
        StreamEntry(id=entry[0].decode(), fields=dict(zip(entry[1][::2], entry[1][1::2], strict=True)), first=first)
        for entry in raw
        if entry is not None and entry[1] is not None
    ]
