"""The reclaimer: finds entries that are pending for this worker and that no actor has in hand, and delivers them.

They come from reads whose reply was lost with its connection. Runs in the owner, for its own partitions; what is in
hand is known by entry id, so nothing is ever handled twice at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from engine.errors import Broken, Unavailable
from engine.stream import CommandStreams, LeaseLost
from engine.tenure import Tenure

log = structlog.get_logger()

_EVERY_S = 2.0
_IDLE_MS = 2000  # far above the time from a read's reply to its delivery, far below a client's patience
_ENTRIES_MAX = 5000  # per partition and round; above what a tenure may hold, so that strays are always seen


class Reclaimer:
    """One per worker."""

    def __init__(self, streams: CommandStreams, tenures: Mapping[int, Tenure]) -> None:
        self._streams, self._tenures = streams, tenures

    async def run(self) -> None:
        while True:
            await anyio.sleep(_EVERY_S)
            await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions; one that cannot be looked at does not hide the others."""
        for tenure in list(self._tenures.values()):
            if not tenure.reading:
                continue
            try:
                await self._look(tenure, _IDLE_MS)
            except (Unavailable, Broken) as error:
                log.warning("redis_away", partition=tenure.partition, error=str(error))

    async def mend(self, tenure: Tenure, delivered: str) -> None:
        """The group is ahead of the reader: what is missing comes before anything new (I3)."""
        if await self._look(tenure, 0) and tenure.reading:
            tenure.delivered = delivered

    async def _look(self, tenure: Tenure, idle_ms: int) -> bool:
        """Deliver what is pending and not in hand. Whether that was all of it."""
        token = tenure.ownership.token
        try:
            pending = await self._streams.pending(tenure.partition, token, idle_ms, _ENTRIES_MAX)
            stray = [entry for entry, _ in pending if entry not in tenure.held]
            entries = await self._streams.reclaim(tenure.partition, token, stray) if stray else []
        except LeaseLost:
            tenure.doubt_lease()
            return False
        if entries and tenure.reading:
            log.warning("reclaimed", partition=tenure.partition, entries=len(entries))
            tenure.take_in([entry for entry in entries if entry.id not in tenure.held])
        return len(pending) < _ENTRIES_MAX
