"""The sweeper: what the schedule makes due in the ledger goes straight into its actor's mailbox. No stream entry.

Runs in the owner, for its own partitions: parked retries and operations in doubt whose `next_attempt_at` has come,
operators' acts, authorizations that are too old or soon will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import anyio
import structlog

from engine.domain.retry_policy import RetryPolicy
from engine.ledger.database import Away
from engine.ledger.writer import DueTerms, LedgerWriter
from engine.loop import forever
from engine.worker.partition_consumer import PartitionConsumer

log = structlog.get_logger()

_DUE_MAX = 1000  # payments a sweep revives; the rest at the next one
_UNANSWERED_EVERY_S = 10.0  # lost outcomes are rare, and looking for them reads all that is under way
_LOST_AFTER = timedelta(
    seconds=5
)  # an outcome is committed within moments of its attempt's deadline, or Postgres is away


class Scheduler:
    """Looks every `sweep_ms`. The ledger's clock tells what is due, so that no worker's own can."""

    def __init__(
        self, ledger: LedgerWriter, consumers: Mapping[int, PartitionConsumer], policy: RetryPolicy, sweep_ms: int
    ) -> None:
        self._ledger, self._tenures, self._sweep_s = ledger, consumers, sweep_ms / 1000
        self._terms = DueTerms(
            expiry_notice=policy.expiry_notice,
            expiry_grace=policy.expiry_grace,
            lost_after=_LOST_AFTER,
            farthest=policy.farthest,
        )
        self._unanswered_at_s = 0.0

    async def run(self) -> None:
        await forever("sweeper", self._round)

    async def _round(self) -> None:
        await anyio.sleep(self._sweep_s)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions."""
        reading = [partition for partition, consumer in self._tenures.items() if consumer.reading]
        if not reading:
            return
        try:
            due = await self._ledger.due(reading, self._terms, _DUE_MAX)
            if anyio.current_time() >= self._unanswered_at_s:
                self._unanswered_at_s = anyio.current_time() + _UNANSWERED_EVERY_S
                due += await self._ledger.unanswered(reading, self._terms, _DUE_MAX)
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
            return
        for partition, payment in due:
            consumer = self._tenures.get(partition)
            if consumer is not None and consumer.reading:
                consumer.resume(payment)
