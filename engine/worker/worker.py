"""The worker: keeper, ledger, settlement, actors, sweeper and reader, nested in the order in which they must stop.

Intake stops first, actors finish what they hold, what they finished reaches ledger and Redis, and only then do the
leases go (I2). A soft stop drains; a kill leaves entries pending for the next owner, which is the same as any crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from engine.ledger.writer import LedgerWriter
from engine.loop import forever
from engine.metrics import EngineMetrics
from engine.streams.command_stream import CommandStreams
from engine.streams.completion import Completion
from engine.streams.dead_letter_queue import DeadLetterQueue
from engine.streams.scripts import Scripts
from engine.worker.context import WorkerContext
from engine.worker.lease_keeper import LeaseKeeper, LeaseTerms
from engine.worker.orphans import OrphanRecovery
from engine.worker.partition_consumer import PartitionConsumer, PartitionOwnership
from engine.worker.reclaimer import Reclaimer
from engine.worker.scheduler import Scheduler
from engine.worker.stream_reader import ReadLimits, StreamReader

_METER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What bounds a worker: see ops/assembly/settings.py for reasons."""

    lease: LeaseTerms
    read: ReadLimits
    sweep_ms: int


class Worker:
    """Run `run` until `stop` is called."""

    def __init__(
        self,
        limits: WorkerLimits,
        context: WorkerContext,
        streams: CommandStreams,
        scripts: Scripts,
        look: Callable[[Scripts], Awaitable[None]] | None = None,
    ) -> None:
        """`look`: see LeaseKeeper."""
        self._ledger: LedgerWriter = context.ledger
        self._completion: Completion = context.completion
        self._meters: EngineMetrics = context.meters

        isolation_lock = asyncio.Lock()

        def make_tenure(ownership: PartitionOwnership) -> PartitionConsumer:
            return PartitionConsumer(ownership, context, streams, isolation_lock)

        self.keeper = LeaseKeeper(
            limits.lease, scripts, context.ledger, make_tenure, context.failpoints, context.fitness, look
        )
        self._reclaimer = Reclaimer(streams, self.keeper.consumers)
        self._reader = StreamReader(streams, self._reclaimer, self.keeper.consumers, limits.read)
        self._sweeper = Scheduler(
            context.ledger, context.bank_caller, self.keeper.consumers, context.decider.policy, limits.sweep_ms
        )
        self._orphans = OrphanRecovery(
            DeadLetterQueue(scripts, limits.lease.partitions), context.ledger, self.keeper.consumers
        )
        self._stop = anyio.Event()
        self.stopped = anyio.Event()  # everything is drained and written

    def stop(self) -> None:
        """Drain and end."""
        self._stop.set()

    async def run(self) -> None:
        async with anyio.create_task_group() as stores:  # outermost: what actors finish must still be written
            stores.start_soon(self._ledger.run)
            stores.start_soon(self._completion.run)
            # This group ends when the partition consumers are drained and the leases released.
            async with anyio.create_task_group() as owner:
                owner.start_soon(self.keeper.run)
                async with anyio.create_task_group() as acceptor:
                    acceptor.start_soon(self._reader.run)
                    acceptor.start_soon(self._sweeper.run)
                    acceptor.start_soon(self._reclaimer.run)
                    acceptor.start_soon(self._orphans.run)
                    acceptor.start_soon(forever, "measure", self._measure)
                    await self._stop.wait()
                    acceptor.cancel_scope.cancel()
                self.keeper.stop()
            stores.cancel_scope.cancel()
        self.stopped.set()

    async def _measure(self) -> None:
        consumers = self.keeper.consumers.values()
        self._meters.partitions.set(len(consumers))
        self._meters.in_hand.set(sum(consumer.in_hand for consumer in consumers))
        await anyio.sleep(_METER_S)
