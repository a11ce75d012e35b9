"""The small door of a process without an API: /livez, /readyz and /metrics. No key needed; loopback by default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

State = Callable[[], Awaitable[tuple[bool, Mapping[str, object]]]]


def health_app(state: State, registry: CollectorRegistry) -> Starlette:
    """`state` tells whether the process does its work now, and what else there is to say."""

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        ready, more = await state()
        body = {"status": "ready" if ready else "not ready", **more}
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
