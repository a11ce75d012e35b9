"""The worker's small door: /livez, /readyz and /metrics. No key needed; binds to loopback unless told otherwise."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.lease import LeaseKeeper


def health_app(keeper: LeaseKeeper, registry: CollectorRegistry) -> Starlette:
    """Ready once the first round of leases is through, and for as long as this worker takes part."""

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        ready = keeper.settled.is_set()
        body = {"status": "ready" if ready else "not ready", "partitions": sorted(keeper.tenures)}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )
