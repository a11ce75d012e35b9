"""What the engine measures, for Prometheus: base units, bounded labels, no card data, no ids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.ledger.store_clock import Store, StoreClock
from engine.webhooks.delivery import Backlog, Claimed, DisabledReason, Holder, Outcome, Reply, State, Verdict

_BANK_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_ATTEMPT_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_LATENCY_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Meters:
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


class ClockMeters:
    """How the process's clock compares with those of its stores."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._skew = Gauge(
            "penstock_clock_skew_seconds",
            "How far this process's clock is ahead of a store's, as far as that is certain",
            ["store"],
            registry=registry,
        )

    def show(self, clock: StoreClock) -> None:
        for store in Store:
            skew_s = clock.skew_s(store)
            if skew_s is not None:
                self._skew.labels(store).set(skew_s)


class DispatchMeters:
    """What a dispatcher measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "penstock_webhook_attempts", "Attempts to deliver a webhook, by outcome", ["outcome"], registry=registry
        )
        self._attempts = {outcome: attempts.labels(outcome) for outcome in Outcome}
        self._attempt_seconds = Histogram(
            "penstock_webhook_attempt_seconds",
            "How long endpoints take to answer",
            buckets=_ATTEMPT_SECONDS,
            registry=registry,
        )
        ended = Counter("penstock_webhook_deliveries", "Deliveries that ended", ["state"], registry=registry)
        self._ended = {state: ended.labels(state) for state in (State.DELIVERED, State.DEAD)}
        self._latency_seconds = Histogram(
            "penstock_webhook_delivery_seconds",
            "From an event to its acknowledgement; redeliveries left out",
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self._events = Gauge(
            "penstock_webhook_events_waiting", "Events that are no deliveries yet, up to 100,000", registry=registry
        )
        self._backlog = Gauge(
            "penstock_webhook_deliveries_waiting", "Deliveries that are unfinished, up to 100,000", registry=registry
        )
        self._oldest = Gauge(
            "penstock_webhook_oldest_undelivered_seconds", "Age of the oldest of these", registry=registry
        )
        self._held = Gauge(
            "penstock_webhook_events_held_back_seconds",
            "How long an open transaction has kept committed events from being read; the dispatcher's log names it",
            registry=registry,
        )
        self._disabled = Gauge(
            "penstock_webhook_endpoints_disabled", "Disabled endpoints, by reason", ["reason"], registry=registry
        )

    def tried(self, claimed: Claimed, reply: Reply, verdict: Verdict, now: datetime) -> None:
        self._attempts[reply.outcome].inc()
        self._attempt_seconds.observe(reply.duration_ms / 1000)
        if verdict.state in self._ended:
            self._ended[verdict.state].inc()
        if verdict.state is State.DELIVERED and claimed.attempt == claimed.failures + 1:
            self._latency_seconds.observe((now - claimed.happened_at).total_seconds())

    def held(self, holders: Sequence[Holder]) -> None:
        self._held.set(max((holder.held_s or 0.0 for holder in holders), default=0.0))

    def waits(self, backlog: Backlog) -> None:
        self._events.set(backlog.events)
        self._backlog.set(backlog.deliveries)
        self._oldest.set(backlog.oldest_s)
        for reason in DisabledReason:
            self._disabled.labels(reason).set(backlog.disabled.get(reason, 0))
