"""The object graph of a worker."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from engine.domain.decision import Decider
from engine.domain.ids import partition_of
from engine.domain.journal import Journal
from engine.domain.retry_policy import RetryPolicy
from engine.failpoint import Failpoints
from engine.ledger.store_clock import ClockMetrics
from engine.ledger.writer import LedgerWriter
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.fair_semaphore import FairSemaphore
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy
from engine.streams.command_stream import CommandStreams
from engine.streams.completion import Completion
from engine.streams.scripts import Scripts
from engine.worker.bank_caller import BankCaller
from engine.worker.context import WorkerContext
from engine.worker.lease_keeper import LeaseTerms
from engine.worker.stream_reader import ReadLimits
from engine.worker.worker import Worker, WorkerLimits
from ops.assembly.clocks import compared, store_clock
from ops.assembly.health import health_app
from ops.assembly.logs import configure_logs
from ops.assembly.process import check_production, connected, opened_vault, tame_collector
from ops.assembly.readiness import ledger_fault
from ops.assembly.serving import Server, allow_many_files, bind, until_signalled
from ops.assembly.settings import Settings
from ops.assembly.stores import WORKER, open_stores

log = structlog.get_logger()


def run_worker(settings: Settings) -> None:
    """Work until a signal says stop, then drain."""
    check_production(settings)
    configure_logs(settings.log_level, settings.log_format)
    allow_many_files()
    tame_collector()
    anyio.run(_serve_worker, settings, backend_options={"use_uvloop": True})


async def _serve_worker(settings: Settings) -> None:
    clock = store_clock(settings)
    listener = bind(settings.edge_host, settings.worker_port, "PENSTOCK_WORKER_PORT")
    registry = CollectorRegistry()
    failpoints, meters = Failpoints(settings.failpoints), EngineMetrics(registry)
    async with (
        open_stores(settings, WORKER) as stores,
        opened_vault("worker", settings, stores.pool, stores.installation, stores.fitness) as vault,
        connected(settings, clock.steady) as connector,
    ):
        watch = await compared(settings, clock, stores.fitness, ClockMetrics(registry), stores.pool, stores.redis)
        scripts = Scripts(stores.redis)
        name = settings.worker_name
        gate = GuardedConnector(
            connector, tolerance_of(settings), allowance_of(settings), patience_of(settings), meters
        )
        policy = policy_of(settings)
        context = WorkerContext(
            ledger=LedgerWriter(stores.pool, settings.commit_batch_max, failpoints),
            completion=Completion(scripts, settings.record_ttl_s * 1000, failpoints),
            bank_caller=BankCaller({connector.name: gate}, vault, policy, clock.steady, failpoints, meters),
            decider=Decider(policy, Journal(settings.fingerprint_key_bytes), random.Random()),
            clock=clock,
            failpoints=failpoints,
            meters=meters,
            places=FairSemaphore(settings.bank_connections),
            partition_of=partial(partition_of, partitions=stores.partitions),
            fitness=stores.fitness,
        )
        lease = LeaseTerms(
            worker=name, partitions=stores.partitions, lease_ms=settings.lease_ms, drain_ms=settings.drain_ms
        )
        read = ReadLimits(batch_entries=settings.read_batch, in_hand_max=settings.in_hand_max)
        limits = WorkerLimits(lease=lease, read=read, sweep_ms=settings.sweep_ms)
        worker = Worker(limits, context, CommandStreams(scripts, name), scripts, stores.installation_check.look)

        async def worker_ready() -> tuple[bool, dict[str, object]]:
            """Once the first round of leases is through, while it fits, and while it takes part and can write."""
            keeper, fitness, fault = worker.keeper, stores.fitness, await ledger_fault(stores.pool)
            ready = keeper.settled.is_set() and keeper.beats and fitness.fits and not fitness.unable and fault is None
            failing = {} if keeper.beats else {"redis": "no heartbeat was written within the last lease time"}
            failing |= {} if fault is None else {"postgres": fault}
            more = {**({"failing": failing} if failing else {}), **fitness.told()}
            return ready, {"partitions": sorted(keeper.consumers), **more}

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            tasks.start_soon(watch.run)
            server = Server(uvicorn.Config(health_app(worker_ready, registry), log_config=None, access_log=False))
            log.info("worker_started", worker=name, port=listener.getsockname()[1])
            await until_signalled(server, listener)
            worker.stop()
            await worker.stopped.wait()
            tasks.cancel_scope.cancel()


def policy_of(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        send_window=timedelta(milliseconds=settings.send_window_ms),
        attempt_timeout=timedelta(milliseconds=settings.attempt_timeout_ms),
        attempts_in_hand=settings.attempts_in_hand,
        attempts_max=settings.attempts_max,
        retry_base=timedelta(milliseconds=settings.retry_base_ms),
        retry_cap=timedelta(milliseconds=settings.retry_cap_ms),
        park_base=timedelta(milliseconds=settings.park_base_ms),
        park_cap=timedelta(milliseconds=settings.park_cap_ms),
        bank_key_life=timedelta(hours=settings.bank_key_hours),
        expiry_notice=timedelta(seconds=settings.expiry_notice_s),
        expiry_grace=timedelta(seconds=settings.expiry_grace_s),
    )


def patience_of(settings: Settings) -> HoldBackPolicy:
    attempt_s = settings.attempt_timeout_ms / 1000
    return HoldBackPolicy(attempt_s=attempt_s, worst_latency_s=settings.bank_worst_latency_ms / 1000 or attempt_s)


def tolerance_of(settings: Settings) -> BreakerPolicy:
    return BreakerPolicy(
        silences_max=settings.breaker_silences,
        rest_s=settings.breaker_rest_ms / 1000,
        rest_cap_s=settings.breaker_rest_cap_ms / 1000,
        probes=settings.breaker_probes,
    )


def allowance_of(settings: Settings) -> RetryBudgetPolicy:
    return RetryBudgetPolicy(share=settings.retry_share_percent / 100, floor_per_s=settings.retry_floor_per_s)
