"""An outage of a store, as an edge sees it: noticed by one caller, told to all others at once, ended by one probe.

Without it everybody would wait out a time-out of his own to learn what the one before already knows, and new work would
be accepted at the pace of those time-outs while Postgres is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import structlog

from engine.errors import StoreRefused, Unavailable
from engine.loop import forever

log = structlog.get_logger()

_ASK_AGAIN_S = 0.2  # between two probes: nobody waits for the end of an outage much longer


class StoreOutage:
    """Run `run` for life. `probe` raises Unavailable for as long as the store is away."""

    def __init__(self, store: str, probe: Callable[[], Awaitable[None]]) -> None:
        self._store, self._probe = store, probe
        self._began = anyio.Event()

    def check(self) -> None:
        """Raises Refused while the store is away: it is not even asked."""
        if self._began.is_set():
            raise StoreRefused("store_unavailable", f"{self._store} is away")

    def begin(self) -> None:
        """The store did not answer."""
        if not self._began.is_set():
            log.warning("store_away", store=self._store)
            self._began.set()

    async def run(self) -> None:
        await forever("outage", self.run_once)

    async def run_once(self) -> None:
        """One outage, from its beginning to its end."""
        await self._began.wait()
        await self._end()
        self._began = anyio.Event()
        log.info("store_back", store=self._store)

    async def _end(self) -> None:
        while True:
            try:
                return await self._probe()
            except Unavailable:
                await anyio.sleep(_ASK_AGAIN_S)
