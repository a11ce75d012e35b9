"""The reader: waits at the doorbell and hands new entries of owned partitions to their partition consumers.

Reads no more than a partition consumer can hold, so memory is bounded (I10: what is not read waits in the stream, never
shed). Every second it looks at all partitions whatever rings, so a lost doorbell costs a second and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import structlog

from engine.batching import LINGER_S
from engine.errors import Broken, Unavailable
from engine.loop import forever
from engine.streams.command_stream import CommandStreams, Gap, LeaseLost
from engine.worker.partition_consumer import PartitionConsumer
from engine.worker.reclaimer import Reclaimer

log = structlog.get_logger()

_BLOCK_MS = 500
_ROUND_S = 1.0  # all partitions are looked at this often, whatever rings
_AWAY_S = 0.5
_FULL_S = 0.005  # all partitions at their limit: look again when some commits have passed
_IDLE_S = 0.05  # nothing owned yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Entries per read, and entries a partition consumer may hold."""

    batch_entries: int
    in_hand_max: int


class StreamReader:
    """One per worker, for all its partitions."""

    def __init__(
        self,
        streams: CommandStreams,
        reclaimer: Reclaimer,
        consumers: Mapping[int, PartitionConsumer],
        limits: ReadLimits,
    ) -> None:
        self._streams, self._reclaimer, self._consumers, self._limits = streams, reclaimer, consumers, limits
        self._round_at = 0.0
        self._busy = False  # the last read brought something: look again in a moment, without the doorbell

    async def run(self) -> None:
        await forever("reader", self._round)

    async def _round(self) -> None:
        try:
            await self.run_once()
        except (Unavailable, Broken) as error:
            log.warning("redis_away", partitions=len(self._consumers), error=str(error))
            await anyio.sleep(_AWAY_S)

    async def run_once(self) -> None:
        """Wait for news, then read it."""
        willing = [consumer for consumer in self._consumers.values() if consumer.reading]
        roomy = {consumer.partition: consumer for consumer in willing if consumer.in_hand < self._limits.in_hand_max}
        if not roomy:
            return await anyio.sleep(_FULL_S if willing else _IDLE_S)
        rung: list[int] = []
        if self._busy:
            await anyio.sleep(LINGER_S)
        elif anyio.current_time() < self._round_at:
            seen = {partition: consumer.delivered or "0-0" for partition, consumer in roomy.items()}
            rung = await self._streams.wait_for_entries(seen, _BLOCK_MS)
        if not rung:
            rung, self._round_at = list(roomy), anyio.current_time() + _ROUND_S
        self._busy = await self._read([roomy[partition] for partition in rung])

    async def _read(self, consumers: list[PartitionConsumer]) -> bool:
        """Whether there was anything."""
        limits = self._limits
        replies = await self._streams.read(
            [
                (
                    consumer.partition,
                    consumer.ownership.token,
                    consumer.delivered,
                    max(min(limits.batch_entries, limits.in_hand_max - consumer.in_hand), 1),
                )
                for consumer in consumers
            ]
        )
        failed: Exception | None = None
        for consumer, reply in zip(consumers, replies, strict=True):
            if isinstance(reply, LeaseLost):
                consumer.doubt_lease()
            elif isinstance(reply, Gap):
                await self._reclaimer.mend(consumer, reply.delivered)
            elif isinstance(
                reply, Broken
            ):  # no stream: the keeper lets it try again at its next beat, the others go on
                consumer.doubt_lease()
                log.error("breach", name="unreadable_stream", partition=consumer.partition, error=str(reply))
            elif isinstance(reply, Exception):
                failed = reply  # of this partition; what the others read must be taken in
            elif consumer.reading:
                # The group may have been set back by hand: what is in hand comes once more.
                consumer.dispatch([entry for entry in reply if entry.id not in consumer.held])
                if reply:
                    consumer.delivered = reply[-1].id
        if failed is not None:
            raise failed
        return any(isinstance(reply, list) and reply for reply in replies)
