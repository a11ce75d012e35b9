"""Meters of the door: requests by method, route and status, and how long they took.

Labels are bounded: the route's template, never the path, and only methods that HTTP knows.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge.server.admission import Admission

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30)


class RouteMetrics:
    """The edge's metrics in a registry."""

    def __init__(self, registry: CollectorRegistry, admission: Admission) -> None:
        in_flight = Gauge(
            "penstock_http_in_flight",
            "Calls under way: writes, reads, and clients waiting.",
            ["lane"],
            registry=registry,
        )
        for name, lane in admission.lanes.items():
            in_flight.labels(name).set_function(partial(attrgetter("taken"), lane))
        self._requests = Counter(
            "penstock_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "penstock_http_request_seconds",
            "From the end of the request's head to the end of the answer, waiting for the outcome included.",
            ("route",),
            registry=registry,
            buckets=_BUCKETS_S,
        )

    def of(self, route: str) -> RouteTally:
        """The meters of one route."""
        return RouteTally(route, self._requests, self._seconds.labels(route))


class RouteTally:
    """One route's meters; looking a label set up costs more than counting, so each is looked up once."""

    def __init__(self, route: str, requests: Counter, seconds: Histogram) -> None:
        self.route = route
        self._requests, self._seconds = requests, seconds
        self._counters: dict[tuple[str, int], Counter] = {}

    def add(self, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        counter = self._counters.get((method, status))
        if counter is None:
            known = method if method in _METHODS else "other"
            counter = self._requests.labels(known, self.route, str(status))
            if known == method:
                self._counters[method, status] = counter
        counter.inc()
        self._seconds.observe(seconds)
