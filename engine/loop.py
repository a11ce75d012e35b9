"""The boundary of a background loop: one round that fails costs that round, never the loop and never its process.

Libraries raise more than their documentation says (a Redis that hangs up in the handshake is a RuntimeError of the
event loop), and one exception would end a worker or an edge. Expected faults are handled where they are met, with their
own words and pauses; nobody expected the ones that come here, so they are logged whole. Cancellation passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import anyio
import structlog

log = structlog.get_logger()

_PAUSE_S = 0.5  # after a round that failed: it may fail again at once


@asynccontextmanager
async def surviving(loop: str, pause_s: float = _PAUSE_S) -> AsyncIterator[None]:
    """Around one round of the loop of this name: whatever it raises is logged, and followed by a pause."""
    try:
        yield
    except Exception as error:
        log.exception("loop_failed", loop=loop, error=type(error).__name__)
        await anyio.sleep(pause_s)


async def forever(loop: str, once: Callable[[], Awaitable[object]]) -> NoReturn:
    """Rounds for life; `once` makes its own pauses."""
    while True:
        async with surviving(loop):
            await once()
