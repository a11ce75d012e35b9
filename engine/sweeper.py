"""The sweeper: what the schedule makes due in the ledger goes straight into its actor's mailbox. No stream entry.

Runs in the owner, for its own partitions: parked retries and operations in doubt whose `next_attempt_at` has come,
operators' acts, authorizations that are too old or soon will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import anyio
import structlog

from engine.ledger import Ledger
from engine.loop import forever
from engine.ports import Clock
from engine.postgres import Away
from engine.tenure import Tenure

log = structlog.get_logger()

_DUE_MAX = 1000  # payments a sweep revives; the rest at the next one


class Sweeper:
    """Looks every `sweep_ms`."""

    def __init__(
        self,
        ledger: Ledger,
        tenures: Mapping[int, Tenure],
        clock: Clock,
        sweep_ms: int,
        *,
        expiry_notice: timedelta,
        expiry_grace: timedelta,
    ) -> None:
        self._ledger, self._tenures, self._clock, self._sweep_s = ledger, tenures, clock, sweep_ms / 1000
        self._expiry_notice, self._expiry_grace = expiry_notice, expiry_grace

    async def run(self) -> None:
        await forever("sweeper", self._round)

    async def _round(self) -> None:
        await anyio.sleep(self._sweep_s)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions."""
        reading = [partition for partition, tenure in self._tenures.items() if tenure.reading]
        if not reading:
            return
        try:
            now = self._clock()
            due = await self._ledger.due(reading, now, now + self._expiry_notice, now - self._expiry_grace, _DUE_MAX)
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
            return
        for partition, payment in due:
            tenure = self._tenures.get(partition)
            if tenure is not None and tenure.reading:
                tenure.resume(payment)
