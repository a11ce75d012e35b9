"""The sweeper: what the schedule makes due in the ledger goes straight into its actor's mailbox. No stream entry.

Runs in the owner, for its own partitions: parked retries and operations in doubt whose `next_attempt_at` has come,
operators' acts, authorizations that are too old or soon will be. While a bank takes no calls, its retries are not even
read: they rest as they are until it does (guarded_connector.py), and the ledger is told that they wait for it.
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
from engine.resilience.retry_budget import Room
from engine.worker.bank_caller import BankCaller
from engine.worker.partition_consumer import PartitionConsumer

log = structlog.get_logger()

_DUE_MAX = 1000  # payments a sweep revives; the rest at the next one
_UNANSWERED_EVERY_S = 10.0  # lost outcomes are rare, and looking for them reads all that is under way
_HELD_EVERY_S = 10.0  # between two words to the auditor that retries wait for their bank
_LOST_AFTER = timedelta(
    seconds=5
)  # an outcome is committed within moments of its attempt's deadline, or Postgres is away


class Scheduler:
    """Looks every `sweep_ms`. The ledger's clock tells what is due, so that no worker's own can."""

    def __init__(
        self,
        ledger: LedgerWriter,
        bank_caller: BankCaller,
        consumers: Mapping[int, PartitionConsumer],
        policy: RetryPolicy,
        sweep_ms: int,
    ) -> None:
        self._ledger, self._bank_caller, self._consumers = ledger, bank_caller, consumers
        self._sweep = timedelta(milliseconds=sweep_ms)
        self._terms = DueTerms(
            expiry_notice=policy.expiry_notice,
            expiry_grace=policy.expiry_grace,
            lost_after=_LOST_AFTER,
            farthest=policy.farthest,
        )
        self._unanswered_at_s = self._held_at_s = 0.0

    async def run(self) -> None:
        await forever("scheduler", self._round)

    async def _round(self) -> None:
        await anyio.sleep(self._sweep.total_seconds())
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions."""
        reading = [partition for partition, consumer in self._consumers.items() if consumer.reading]
        if not reading:
            return
        try:
            room = self._room()
            due = await self._ledger.due(reading, self._terms, _DUE_MAX, room)
            if len(due) >= min(room.unsent, room.doubt) and anyio.current_time() >= self._held_at_s:
                self._held_at_s = anyio.current_time() + _HELD_EVERY_S
                await self._ledger.hold_retries(reading, 2 * timedelta(seconds=_HELD_EVERY_S) + self._sweep)
            if anyio.current_time() >= self._unanswered_at_s:
                self._unanswered_at_s = anyio.current_time() + _UNANSWERED_EVERY_S
                due += await self._ledger.unanswered(reading, self._terms, _DUE_MAX)
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
            return
        for partition, payment in due:
            consumer = self._consumers.get(partition)
            if consumer is not None and consumer.reading:
                consumer.resume(payment)

    def _room(self) -> Room:
        """How many retries to read: what the banks take, and what may stand before them and is in hand or rests."""
        room, busy = self._bank_caller.room(), sum(consumer.busy for consumer in self._consumers.values())
        return Room(
            unsent=min(room.unsent and room.unsent + busy, _DUE_MAX),
            doubt=min(room.doubt and room.doubt + busy, _DUE_MAX),
        )
