"""What the engine measures, for Prometheus: base units, bounded labels, no card data, no ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BANK_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class EngineMetrics:
    """One per process; give it the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.settled = Counter(
            "penstock_operations_settled",
            "Operations answered, by verb and status",
            ["verb", "status"],
            registry=registry,
        )
        self.parked = Counter(
            "penstock_operations_parked", "Operations parked, in doubt or unsent", ["verb", "status"], registry=registry
        )
        self.bank_seconds = Histogram(
            "penstock_bank_call_seconds",
            "Attempts at the bank",
            ["verb", "answer"],
            buckets=_BANK_SECONDS,
            registry=registry,
        )
        self.commit_writes = Histogram(
            "penstock_commit_batch_payments", "Payments in one group commit", buckets=_BATCH, registry=registry
        )
        self.held_back = Counter(
            "penstock_bank_calls_held_back",
            "Attempts not sent: the circuit breaker was open, or the retry budget spent",
            ["connector", "reason"],
            registry=registry,
        )
        self.undrained = Gauge(
            "penstock_bank_undrained_attempts",
            "Unanswered attempts for which the bank has not shown yet that its queue with them is drained",
            ["connector"],
            registry=registry,
        )
        self.circuit = Gauge(
            "penstock_circuit_breaker",
            "1 for the state a connector's circuit breaker is in",
            ["connector", "state"],
            registry=registry,
        )
        self.partitions = Gauge("penstock_partitions_owned", "Partitions this worker owns", registry=registry)
        self.in_hand = Gauge("penstock_entries_in_hand", "Entries read and not yet acknowledged", registry=registry)
        self.dead = Counter("penstock_dead_letters", "Entries moved to dead letters", ["cause"], registry=registry)
        self.breaches = Counter(
            "penstock_breaches", "What cannot be, met by a worker: see its log", ["name"], registry=registry
        )
        self.accepted = Counter(
            "penstock_accepts", "Requests by what accepting them gave", ["result"], registry=registry
        )


class WakeupMeters:
    """Of an edge: whether its clients are woken, or find their outcomes by looking."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._heard = Gauge(
            "penstock_wakeups_heard",
            "1 while wake-ups of workers arrive; else clients wait longer",
            registry=registry,
        )

    def show(self, heard: bool) -> None:
        self._heard.set(heard)
