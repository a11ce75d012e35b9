"""Health: whether this process lives, and whether it can do its work right now.

/livez depends on nothing but the event loop: a store that is away is no reason to kill an edge. Ready is an edge that
can accept. That needs a Redis that takes all that accepting writes, to fit the installation (its clock too), keys to
know merchants by, room for one more call and for one more entry, and not to be told to stop. With Postgres or all
workers away an edge goes on accepting (I10), so it stays with its load balancer and is degraded.
/readyz asks every probe at once, each within a bound, and names what failed; `?verbose` lists all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from edge.server import response
from edge.server.request import Request
from edge.server.response import Response

NEEDED = ("stopping", "redis", "fitness", "keys", "room", "backlog")  # what nothing can be accepted without
PROBE_WITHIN_S = 2.0  # below the patience of the usual orchestrator's readiness check

Probe = Callable[[], Awaitable[str | None]]
"""None when all is well, else what is wrong in a few words."""
Exposition = Callable[[], Awaitable[bytes]]
"""Metrics in Prometheus' text format."""


class Health:
    """The endpoints that need no key and tell how the process is."""

    def __init__(
        self, *, probes: Mapping[str, Probe], registry: CollectorRegistry, metrics: Exposition | None = None
    ) -> None:
        """`metrics`: of all processes that share the port, when this is not the only one."""
        self._probes, self._registry, self._metrics = probes, registry, metrics

    async def livez(self, call: Request) -> Response:
        """GET /livez"""
        return response.of_document({"status": "alive"})

    async def readyz(self, call: Request) -> Response:
        """GET /readyz, with ?verbose for every check by name"""
        found = await asyncio.gather(*(_ask(probe) for probe in self._probes.values()))
        checks = dict(zip(self._probes, found, strict=True))
        failing = {name: wrong for name, wrong in checks.items() if wrong is not None}
        ready = failing.keys().isdisjoint(NEEDED)
        status = "not ready" if not ready else "degraded" if failing else "ready"
        document: dict[str, object] = {"status": status, "failing": failing}
        if b"verbose" in call.scope["query_string"]:
            document["checks"] = {name: wrong or "ok" for name, wrong in checks.items()}
        if not ready:
            return response.of_document(document, status=503, headers=(*response.JSON, (b"retry-after", b"1")))
        return response.of_document(document)

    async def metrics(self, call: Request) -> Response:
        """GET /metrics"""
        headers = ((b"content-type", CONTENT_TYPE_LATEST.encode()), (b"cache-control", b"no-store"))
        body = generate_latest(self._registry) if self._metrics is None else await self._metrics()
        return Response(status=200, body=body, headers=headers)


async def _ask(probe: Probe) -> str | None:
    try:
        async with asyncio.timeout(PROBE_WITHIN_S):
            return await probe()
    except TimeoutError:
        return f"no answer within {PROBE_WITHIN_S:.0f} s"
