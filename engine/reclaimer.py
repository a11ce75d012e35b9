"""The reclaimer: finds entries that are pending for this worker and that no actor has in hand, and delivers them.

They come from reads whose reply was lost with its connection. Runs in the owner, for its own partitions; what is in
hand is known by entry id, so nothing is ever handled twice at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from engine.errors import Unavailable
from engine.stream import CommandStreams, LeaseLost
from engine.tenure import Tenure

log = structlog.get_logger()

_EVERY_S = 2.0
_IDLE_MS = 2000  # far above the time from a read's reply to its delivery, far below a client's patience
_ENTRIES_MAX = 1000  # per partition and round


class Reclaimer:
    """One per worker."""

    def __init__(self, streams: CommandStreams, tenures: Mapping[int, Tenure]) -> None:
        self._streams, self._tenures = streams, tenures

    async def run(self) -> None:
        while True:
            await anyio.sleep(_EVERY_S)
            try:
                await self.run_once()
            except Unavailable:
                log.warning("redis_away", partitions=len(self._tenures))

    async def run_once(self) -> None:
        """One look at all owned partitions."""
        for tenure in list(self._tenures.values()):
            if tenure.reading:
                await self._look(tenure)

    async def _look(self, tenure: Tenure) -> None:
        token = tenure.ownership.token
        try:
            pending = await self._streams.pending(tenure.partition, token, _IDLE_MS, _ENTRIES_MAX)
            stray = [entry for entry in pending if entry not in tenure.held]
            if not stray or not tenure.reading:
                return
            entries = await self._streams.reclaim(tenure.partition, token, stray)
        except LeaseLost:
            return tenure.doubt_lease()
        log.warning("reclaimed", partition=tenure.partition, entries=len(entries))
        if tenure.reading:
            tenure.take_in([entry for entry in entries if entry.id not in tenure.held])
