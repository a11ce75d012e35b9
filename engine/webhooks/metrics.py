"""The metrics of a dispatcher, for Prometheus: base units, bounded labels, no ids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.contracts.webhooks import AttemptOutcome, DeliveryState, DisabledReason
from engine.webhooks.delivery import ClaimedDelivery, DeliveryVerdict, EndpointReply, HoldingSession, WebhookBacklog

_ATTEMPT_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_LATENCY_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0)


class DispatchMetrics:
    """What a dispatcher measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "penstock_webhook_attempts", "Attempts to deliver a webhook, by outcome", ["outcome"], registry=registry
        )
        self._attempts = {outcome: attempts.labels(outcome) for outcome in AttemptOutcome}
        self._attempt_seconds = Histogram(
            "penstock_webhook_attempt_seconds",
            "How long endpoints take to answer",
            buckets=_ATTEMPT_SECONDS,
            registry=registry,
        )
        ended = Counter("penstock_webhook_deliveries", "Deliveries that ended", ["state"], registry=registry)
        self._ended = {state: ended.labels(state) for state in (DeliveryState.DELIVERED, DeliveryState.DEAD)}
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

    def tried(self, claimed: ClaimedDelivery, reply: EndpointReply, verdict: DeliveryVerdict, now: datetime) -> None:
        self._attempts[reply.outcome].inc()
        self._attempt_seconds.observe(reply.duration_ms / 1000)
        if verdict.state in self._ended:
            self._ended[verdict.state].inc()
        happened_at = claimed.happened_at
        if (
            verdict.state is DeliveryState.DELIVERED
            and claimed.attempt == claimed.failures + 1
            and happened_at is not None
        ):
            self._latency_seconds.observe((now - happened_at).total_seconds())

    def held(self, holders: Sequence[HoldingSession]) -> None:
        self._held.set(max((holder.held_s or 0.0 for holder in holders), default=0.0))

    def waits(self, backlog: WebhookBacklog) -> None:
        self._events.set(backlog.events)
        self._backlog.set(backlog.deliveries)
        self._oldest.set(backlog.oldest_s)
        for reason in DisabledReason:
            self._disabled.labels(reason).set(backlog.disabled.get(reason, 0))
