"""What all actors of a worker share: the ledger, the way to the banks, the rules, a clock. Built by ops/assembly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.domain.decision import Decider
from engine.failpoint import Failpoints
from engine.ledger.store_clock import StoreClock
from engine.ledger.writer import LedgerWriter
from engine.metrics import EngineMetrics
from engine.resilience.fair_semaphore import FairSemaphore
from engine.resilience.fitness import Fitness
from engine.streams.completion import Completion
from engine.worker.bank_caller import BankCaller


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """One per worker."""

    ledger: LedgerWriter
    completion: Completion
    bank_caller: BankCaller
    decider: Decider
    clock: StoreClock
    failpoints: Failpoints
    meters: EngineMetrics
    places: FairSemaphore  # attempts under way at banks, from intent to outcome
    partition_of: Callable[[str], int]
    fitness: Fitness = field(default_factory=Fitness)
