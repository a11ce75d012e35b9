"""The reclaimer: finds entries that are pending for this worker and that no actor has in hand, and delivers them.

They come from reads whose reply was lost with its connection, and from hands at the group: what nobody has pending at
all is made pending first (adopt-2). Runs in the owner, for its own partitions; what is in hand is known by entry id, so
nothing is ever handled twice at once. Which entries are strays is told by two looks in a row and not by how long they
are pending: that is the store's clock, and it may step back.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from engine.errors import Broken, Unavailable
from engine.loop import forever
from engine.streams.command_stream import CommandStreams, LeaseLost
from engine.worker.partition_consumer import PartitionConsumer

log = structlog.get_logger()

_EVERY_S = 2.0  # far above the time from a read's reply to its delivery, far below a client's patience
ADOPT_S = 10.0  # between two looks for what nobody has: one small script for each partition where all is in order
_ENTRIES_MAX = 5000  # per partition and round; above what a partition consumer may hold, so that strays are always seen


class Reclaimer:
    """One per worker."""

    def __init__(self, streams: CommandStreams, consumers: Mapping[int, PartitionConsumer]) -> None:
        self._streams, self._consumers = streams, consumers
        self._strays: dict[PartitionConsumer, frozenset[str]] = {}  # at the last look
        self._adopt_at = 0.0

    async def run(self) -> None:
        await forever("reclaimer", self._round)

    async def _round(self) -> None:
        await anyio.sleep(_EVERY_S)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions; one that cannot be looked at does not hide the others."""
        reading = [consumer for consumer in self._consumers.values() if consumer.reading]
        self._strays = {consumer: strays for consumer, strays in self._strays.items() if consumer in reading}
        adopts = anyio.current_time() >= self._adopt_at
        if adopts:
            self._adopt_at = anyio.current_time() + ADOPT_S
        for consumer in reading:
            try:
                await self._look(consumer, adopts=adopts, seen_before=self._strays.get(consumer, frozenset()))
            except (Unavailable, Broken) as error:
                log.warning("redis_away", partition=consumer.partition, error=str(error))

    async def mend(self, consumer: PartitionConsumer, delivered: str) -> None:
        """The group is ahead of the reader: what is missing comes before anything new (I3)."""
        if await self._look(consumer, adopts=True) and consumer.reading:
            consumer.delivered = delivered

    async def _look(
        self, consumer: PartitionConsumer, *, adopts: bool, seen_before: frozenset[str] | None = None
    ) -> bool:
        """Deliver what is pending and not in hand, of `seen_before` alone if that is given. Whether that was all."""
        token = consumer.ownership.token
        try:
            adopted = await self._streams.adopt(consumer.partition, token) if adopts else 0
            pending = await self._streams.pending(consumer.partition, token, _ENTRIES_MAX)
            strays = [entry for entry, _ in pending if entry not in consumer.held]
            if adopted:
                log.error("adopted", partition=consumer.partition, entries=adopted)
                seen_before = None  # they, and what waited behind them, in the order of the stream
            wanted = strays if seen_before is None else [entry for entry in strays if entry in seen_before]
            entries = await self._streams.reclaim(consumer.partition, token, wanted) if wanted else []
        except LeaseLost:
            consumer.doubt_lease()
            return False
        self._strays[consumer] = frozenset(strays)
        if entries and consumer.reading:
            log.warning("reclaimed", partition=consumer.partition, entries=len(entries))
            consumer.dispatch([entry for entry in entries if entry.id not in consumer.held])
        return len(pending) < _ENTRIES_MAX
