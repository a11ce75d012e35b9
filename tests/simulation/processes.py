"""Workers and edges of the simulation: the engine's own objects, put together as ops/assembly does it, on one host.

A process is killed by never running any of its callbacks again: what it held in memory is gone, what it sent is sent.
It is paused by holding its callbacks back. Only when a history is over are the remains of the dead unwound.
"""

from __future__ import annotations

from asyncio import Future, Task
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, Protocol, TypeVar

import anyio
from prometheus_client import CollectorRegistry

from engine.domain.decision import Decider
from engine.domain.ids import partition_of
from engine.domain.journal import Journal
from engine.failpoint import Failpoints
from engine.gateway.acceptance import Acceptor, AcceptorContext
from engine.gateway.queries import PaymentQueries
from engine.ledger.reader import LedgerReader
from engine.ledger.store_clock import ClockWatch, Store, StoreClock
from engine.ledger.writer import LedgerWriter
from engine.metrics import EngineMetrics
from engine.resilience.fair_semaphore import FairSemaphore
from engine.resilience.fitness import Fitness
from engine.resilience.guarded_connector import GuardedConnector
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter
from engine.streams.acceptance_store import AcceptanceStore, AcceptLimits
from engine.streams.command_stream import CommandStreams
from engine.streams.completion import Completion
from engine.streams.reply_channel import ReplyChannel
from engine.worker.bank_caller import BankCaller
from engine.worker.context import WorkerContext
from engine.worker.lease_keeper import LeaseTerms
from engine.worker.stream_reader import ReadLimits
from engine.worker.worker import Worker, WorkerLimits
from ops.assembly.clocks import ledger_time, redis_time
from simulation.plan import Plan
from simulation.simulated_bank import SimulatedBank, SimulatedConnector
from simulation.simulated_loop import Host, SimulatedLoop
from simulation.simulated_postgres import PostgresPool, PostgresServer
from simulation.simulated_redis import RedisClient, RedisServer, SimulatedScripts

JOURNAL = Journal(b"j" * 32)
_VAULT, _FINGERPRINTER = Vault([b"v" * 32]), Fingerprinter(b"f" * 32)
_METERS = EngineMetrics(CollectorRegistry())  # counted together, looked at by nobody
_NO_FAILPOINTS = Failpoints()
_PATIENCE_S = 0.5  # for a place in a pool
SKEW_MAX_S = 2.0

Result = TypeVar("Result")


class Town(Protocol):
    """What the processes share: the loop, the stores, the bank."""

    loop: SimulatedLoop
    draw: Random
    plan: Plan
    redis: RedisServer
    postgres: PostgresServer
    bank: SimulatedBank

    def crashed(self, process: str, error: BaseException) -> None: ...


class Process:
    """Something that runs on a host until it ends by itself or is killed."""

    def __init__(self, town: Town, name: str) -> None:
        self.town, self.host = town, Host(name)
        self.scope: anyio.CancelScope | None = None
        self.task: Task[None] = town.loop.start(self.host, self._live())
        self.task.add_done_callback(self._ended)

    def wall(self) -> datetime:
        """Its own clock, which may be wrong."""
        return self.town.loop.clock() + timedelta(seconds=self.host.clock_ahead_s)

    async def clocks(self, redis: Any, pool: Any) -> tuple[StoreClock, ClockWatch, Fitness]:
        """As ops/assembly has them, compared once."""
        loop = self.town.loop
        clock = StoreClock(self.wall, loop.time, SKEW_MAX_S)
        stores = {Store.LEDGER: partial(ledger_time, pool), Store.REDIS: partial(redis_time, redis)}
        fitness = Fitness()
        watch = ClockWatch(clock, stores, loop.time, self.town.plan.lease_ms / 5000, fitness)
        await watch.run_once()
        return clock, watch, fitness

    @property
    def up(self) -> bool:
        return self.host.alive and not self.task.done()

    def kill(self) -> None:
        self.host.alive = False

    def pause(self) -> None:
        self.host.paused = True

    def resume(self) -> None:
        self.host.resume(self.town.loop)

    def revive(self) -> None:
        """The history is over: what was held back may run, so that all can be ended like any task."""
        self.host.alive, self.host.fuse = True, 0
        self.host.resume(self.town.loop)

    def end(self) -> None:
        """Cancel what is left, so that nothing of this history outlives it."""
        if self.scope is not None and not self.task.done():
            self.scope.cancel()

    async def _live(self) -> None:
        with anyio.CancelScope() as self.scope:
            await self._run()

    async def _run(self) -> None:
        raise AssertionError("a process does something")

    def _ended(self, task: Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.town.crashed(self.host.name, error)


class WorkerProcess(Process):
    """penstock worker"""

    worker: Worker | None = None
    _stopping = False

    async def _run(self) -> None:
        town, plan, name = self.town, self.town.plan, self.host.name
        redis: Any = RedisClient(town.redis, town.loop)
        pool: Any = PostgresPool(town.postgres, name, _PATIENCE_S)
        scripts = SimulatedScripts(redis)
        clock, watch, fitness = await self.clocks(redis, pool)
        connector = SimulatedConnector(town.bank, town.loop, clock.steady)
        gate = GuardedConnector(connector, plan.tolerance, plan.allowance, plan.patience, _METERS)
        context = WorkerContext(
            ledger=LedgerWriter(pool, commit_batch_max=100),
            completion=Completion(scripts, plan.record_ttl_ms, _NO_FAILPOINTS),
            bank_caller=BankCaller({connector.name: gate}, _VAULT, plan.policy, clock.steady, _NO_FAILPOINTS, _METERS),
            decider=Decider(plan.policy, JOURNAL, Random(town.draw.random())),
            clock=clock,
            failpoints=_NO_FAILPOINTS,
            meters=_METERS,
            places=FairSemaphore(plan.places),
            fitness=fitness,
            partition_of=partial(partition_of, partitions=plan.partitions),
        )
        limits = WorkerLimits(
            lease=LeaseTerms(worker=name, partitions=plan.partitions, lease_ms=plan.lease_ms, drain_ms=3000),
            read=ReadLimits(batch_entries=plan.read_batch, in_hand_max=100),
            sweep_ms=plan.sweep_ms,
        )
        self.worker = Worker(limits, context, CommandStreams(scripts, name), scripts)
        if self._stopping:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            await self.worker.run()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """SIGTERM: it drains and ends; at once if it has not begun."""
        self._stopping = True
        if self.worker is not None:
            self.worker.stop()


class EdgeGone(Exception):
    """The connection to the edge ended without an answer: the request may have been accepted."""


class EdgeProcess(Process):
    """penstock edge, behind its HTTP: clients call the acceptor and the queries."""

    acceptor: Acceptor
    queries: PaymentQueries

    def __init__(self, town: Town, name: str) -> None:
        self._open: dict[Future[Any], Task[None]] = {}
        self._ready = False
        super().__init__(town, name)

    async def _run(self) -> None:
        town, plan = self.town, self.town.plan
        redis: Any = RedisClient(town.redis, town.loop)
        pool: Any = PostgresPool(town.postgres, self.host.name, _PATIENCE_S)
        scripts = SimulatedScripts(redis)
        clock, watch, fitness = await self.clocks(redis, pool)
        acceptance_store, ledger_reader = AcceptanceStore(scripts), LedgerReader(pool)
        reply_channel = ReplyChannel(scripts, self.host.name)
        self.queries = PaymentQueries(acceptance_store, ledger_reader, plan.partitions, clock.now, plan.record_ttl_ms)
        self.acceptor = Acceptor(
            AcceptorContext(
                installation="simulated",
                partitions=plan.partitions,
                connector=SimulatedConnector.name,
                acceptance_store=acceptance_store,
                ledger_reader=ledger_reader,
                queries=self.queries,
                reply_channel=reply_channel,
                vault=_VAULT,
                fingerprinter=_FINGERPRINTER,
                limits=AcceptLimits(
                    backlog=plan.backlog,
                    backlog_headroom=plan.backlog + 2,
                    merchant=plan.backlog,
                    merchant_headroom=plan.backlog + 1,
                    open_operations=plan.open_operations,
                ),
                record_ttl_ms=plan.record_ttl_ms,
                clock=clock.now,
                failpoints=_NO_FAILPOINTS,
                meters=_METERS,
                fitness=fitness,
            )
        )
        async with anyio.create_task_group() as tasks:
            for run in (acceptance_store.run, ledger_reader.run, reply_channel.run, watch.run):
                tasks.start_soon(run)
            self._ready = True

    async def call(self, act: Callable[[EdgeProcess], Awaitable[Result]]) -> Result:
        """What a client gets. Raises EdgeGone, and what the engine raises."""
        if not self._ready or not self.up:
            raise EdgeGone
        future: Future[Result] = self.town.loop.create_future()
        task = self._open[future] = self.town.loop.start(self.host, self._serve(act, future))
        task.add_done_callback(lambda _: self._open.pop(future, None))
        return await future

    def kill(self) -> None:
        super().kill()
        for future in self._open:
            if not future.done():
                future.set_exception(EdgeGone())

    def end(self) -> None:
        for task in list(self._open.values()):
            task.cancel()
        super().end()

    async def _serve(self, act: Callable[[EdgeProcess], Awaitable[Result]], future: Future[Result]) -> None:
        try:
            result = await act(self)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
