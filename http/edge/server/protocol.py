"""How uvicorn serves the edge: its fast parts, connections of our own, no access log."""

from __future__ import annotations

import resource
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from edge.server.connection import Connection
from edge.server.connection_keeper import Keeper

DRAIN_S = 35  # a client that waits (Prefer: wait=30) gets its answer before the process goes
BACKLOG = 2048
CONNECTIONS_MAX = (
    10_000  # open ones; far above the calls that are handled at once, and 320 MiB of heads at the very worst
)
OTHER_FILES = 256  # of the files a process may open: stores, logs, and what it listens on


def configuration(
    app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8000, connections_max: int = CONNECTIONS_MAX
) -> uvicorn.Config:
    """A uvicorn configuration for `create_app`'s application; pass it to uvicorn.Server, or take it apart.

    A process keeps no more connections than it may open files: accepting one more would fail where nobody is told.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        connections_max = min(connections_max, max(files - OTHER_FILES, files // 2))
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=partial(Connection, Keeper(connections_max)),  # type: ignore[arg-type]  # called, and never looked into
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,  # an answer has the time of the answer (response.py), not that of the request
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
