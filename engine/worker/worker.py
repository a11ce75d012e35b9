"""The worker: keeper, ledger, settlement, actors, sweeper and reader, nested in the order in which they must stop.

Intake stops first, actors finish what they hold, what they finished reaches ledger and Redis, and only then do the
leases go (I2). A soft stop drains; a kill leaves entries pending for the next owner, which is the same as any crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from engine.ledger.writer import Ledger
from engine.loop import forever
from engine.metrics import Meters
from engine.streams.command_stream import CommandStreams
from engine.streams.completion import Settlement
from engine.streams.dead_letter_queue import Graveyard
from engine.streams.scripts import Scripts
from engine.worker.context import Tools
from engine.worker.lease_keeper import LeaseKeeper, LeaseTerms
from engine.worker.orphans import Orphans
from engine.worker.partition_consumer import Ownership, Tenure
from engine.worker.reclaimer import Reclaimer
from engine.worker.scheduler import Sweeper
from engine.worker.stream_reader import Reader, ReadLimits

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
        tools: Tools,
        streams: CommandStreams,
        scripts: Scripts,
        look: Callable[[Scripts], Awaitable[None]] | None = None,
    ) -> None:
        """`look`: see LeaseKeeper."""
        self._ledger: Ledger = tools.ledger
        self._settlement: Settlement = tools.settlement
        self._meters: Meters = tools.meters

        alone = asyncio.Lock()

        def make_tenure(ownership: Ownership) -> Tenure:
            return Tenure(ownership, tools, streams, alone)

        self.keeper = LeaseKeeper(
            limits.lease, scripts, tools.ledger, make_tenure, tools.failpoints, tools.fitness, look
        )
        self._reclaimer = Reclaimer(streams, self.keeper.tenures)
        self._reader = Reader(streams, self._reclaimer, self.keeper.tenures, limits.read)
        self._sweeper = Sweeper(tools.ledger, self.keeper.tenures, tools.decider.policy, limits.sweep_ms)
        self._orphans = Orphans(Graveyard(scripts, limits.lease.partitions), tools.ledger, self.keeper.tenures)
        self._stop = anyio.Event()
        self.stopped = anyio.Event()  # everything is drained and written

    def stop(self) -> None:
        """Drain and end."""
        self._stop.set()

    async def run(self) -> None:
        async with anyio.create_task_group() as stores:  # outermost: what actors finish must still be written
            stores.start_soon(self._ledger.run)
            stores.start_soon(self._settlement.run)
            async with anyio.create_task_group() as owner:  # ends when the tenures are drained and the leases released
                owner.start_soon(self.keeper.run)
                async with anyio.create_task_group() as intake:
                    intake.start_soon(self._reader.run)
                    intake.start_soon(self._sweeper.run)
                    intake.start_soon(self._reclaimer.run)
                    intake.start_soon(self._orphans.run)
                    intake.start_soon(forever, "measure", self._measure)
                    await self._stop.wait()
                    intake.cancel_scope.cancel()
                self.keeper.stop()
            stores.cancel_scope.cancel()
        self.stopped.set()

    async def _measure(self) -> None:
        tenures = self.keeper.tenures.values()
        self._meters.partitions.set(len(tenures))
        self._meters.in_hand.set(sum(tenure.in_hand for tenure in tenures))
        await anyio.sleep(_METER_S)
