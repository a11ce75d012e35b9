"""The auditor as a process: a bounded look every few seconds, told as metrics and, when something changes, in the log.

Ready while the last look succeeded and is not too old. It holds no key and changes nothing, so any number may run.
"""

from __future__ import annotations

import time

import anyio
import anyio.to_thread
import psycopg
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.exceptions import RedisError

from engine.errors import PenstockError
from engine.loop import forever
from ops.audit.auditor import Auditor
from ops.audit.breach import Breach, Report
from ops.audit.invariant import INVARIANTS, RedisScan
from ops.audit.ledger_view import Unsettled

log = structlog.get_logger()

_STALE_AFTER_LOOKS = 3


class AuditMetrics:
    """What the looks found. A gauge for each invariant that a bounded look can tell of, from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.breaches = Gauge(
            "penstock_audit_breaches",
            "What stands against an invariant now, up to the limit of a look; weight apart is no breach of ours",
            ["number", "invariant", "weight"],
            registry=registry,
        )
        self.looks = Counter(
            "penstock_audit_looks",
            "Looks, by result; partial: more had changed than one takes",
            ["result"],
            registry=registry,
        )
        self.payments = Counter("penstock_audit_payments", "Payments looked at", registry=registry)
        self.took = Gauge("penstock_audit_look_seconds", "How long the last look took", registry=registry)
        self.looked_at = Gauge(
            "penstock_audit_last_look_timestamp_seconds", "When the last look succeeded", registry=registry
        )
        kind = ["connector", "verb"]
        self.unsettled = Gauge(
            "penstock_operations_unsettled", "Operations without a final answer", kind, registry=registry
        )
        self.in_doubt = Gauge(
            "penstock_operations_in_doubt", "Operations for which the bank's answer is unknown", kind, registry=registry
        )
        self.oldest = Gauge(
            "penstock_in_doubt_oldest_seconds",
            "Since the first of the operations in doubt was sent; the bank forgets keys after 24 h",
            ["connector"],
            registry=registry,
        )
        self.review = Gauge("penstock_operations_in_review", "Operations that wait for a person", registry=registry)
        self._kinds: set[tuple[str, str]] = set()  # that were seen: one that is gone is at zero, and not without a word
        for invariant in INVARIANTS:
            if invariant.scan in (RedisScan.CHANGED, RedisScan.OPEN, RedisScan.REDIS):
                self.breaches.labels(invariant.number, invariant.name, invariant.weight).set(0)

    def tell(self, report: Report) -> None:
        for found in report.found:
            invariant = found.invariant
            self.breaches.labels(invariant.number, invariant.name, invariant.weight).set(len(found.breaches))
        self.looks.labels("complete" if report.whole else "partial").inc()
        self.payments.inc(report.payments or 0)
        self.took.set(report.took_s)
        self.looked_at.set(report.at.timestamp())
        self._tell_unsettled(report.unsettled)

    def _tell_unsettled(self, unsettled: Unsettled) -> None:
        now = {(each.connector, each.verb): each for each in unsettled.kinds}
        self._kinds |= now.keys()
        oldest = dict.fromkeys((connector for connector, _ in self._kinds), 0.0)
        for kind in self._kinds:
            each = now.get(kind)
            self.unsettled.labels(*kind).set(each.unsettled if each else 0)
            self.in_doubt.labels(*kind).set(each.in_doubt if each else 0)
            oldest[kind[0]] = max(oldest[kind[0]], each.in_doubt_oldest_s if each else 0.0)
        for connector, seconds in oldest.items():
            self.oldest.labels(connector).set(seconds)
        self.review.set(unsettled.review)


class Watch:
    """Run `run` for life."""

    def __init__(self, auditor: Auditor, registry: CollectorRegistry, every_s: float) -> None:
        self._auditor, self._meters, self._every_s = auditor, AuditMetrics(registry), every_s
        self._known: dict[tuple[object, ...], Breach] = {}
        self._looked_at: float | None = None

    @property
    def ready(self) -> bool:
        return self._looked_at is not None and time.monotonic() - self._looked_at < _STALE_AFTER_LOOKS * self._every_s

    async def run(self) -> None:
        await forever("audit", self._round)

    async def _round(self) -> None:
        await anyio.to_thread.run_sync(self.run_once)
        await anyio.sleep(self._every_s)

    def run_once(self) -> None:
        """One look. Stores that are away are the workers' to complain about: here it is a look that failed."""
        try:
            report = self._auditor.run_once()
        except (psycopg.Error, RedisError, OSError, PenstockError) as error:
            self._meters.looks.labels("failed").inc()
            log.warning("audit_failed", error=f"{type(error).__name__}: {error}"[:300])
            return
        self._looked_at = time.monotonic()
        self._meters.tell(report)
        # Not by their words, which may tell how long it lasts.
        now: dict[tuple[object, ...], Breach] = {
            (each.invariant.name, each.payment, each.operation, each.at): each
            for found in report.found
            for each in found.breaches
        }
        for key in now.keys() - self._known.keys():
            log.error("breach", **_facts(now[key]))
        for key in self._known.keys() - now.keys():
            log.info("breach_is_gone", **_facts(self._known[key]))
        self._known = now


def _facts(each: Breach) -> dict[str, object]:
    return {
        "number": each.invariant.number,
        "invariant": each.invariant.name,
        "weight": each.invariant.weight,
        "payment": each.payment,
        "operation": each.operation,
        "detail": each.detail,
    }
