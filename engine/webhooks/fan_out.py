"""The fan-out: carries new events into deliveries, and sleeps when there are none, without missing one.

While events come, it looks by itself, some hundred times a second, and whoever writes events pays nothing. When none
have come for a while it says so (`asleep`), and from then on writers ring. A writer that began before that was said may
still commit in silence; so it goes on looking until none of the writers that were under way then is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import structlog

from engine.ledger.database import Away
from engine.loop import surviving
from engine.webhooks.outbox import Outbox

log = structlog.get_logger()

_EVENTS_MAX = 500  # a round: some ten milliseconds of Postgres
_SOON_S = 0.01  # between looks while events come: what a webhook's latency can spare
_OTHERS_S = 0.1  # between looks while another dispatcher finds them: soon enough to take over from it
_LINGER_MS = 200  # without events, until writers are asked to ring
_SAFETY_S = 1.0  # a ring may be lost with its connection
_AWAY_S = 0.5


class FanOut:
    """Run `run` for life. `told` is called with the endpoints that got something."""

    def __init__(self, outbox: Outbox, told: Callable[[Sequence[str]], None]) -> None:
        self._outbox, self._told = outbox, told
        self._bell = anyio.Event()
        self._ours = False  # the last events that were found, we found
        self._mark: int | None = None  # writers that hold a mark up to this one may not know that we sleep
        self._stopping = False

    def ring(self, message: str = "") -> None:
        """There may be new events."""
        self._bell.set()

    def stop(self) -> None:
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        while not self._stopping:
            self._bell, pause_s = anyio.Event(), 0.0
            async with surviving("fan_out"):
                try:
                    pause_s = await self.run_once()
                except Away as error:
                    log.warning("postgres_away", error=type(error).__name__)
                    pause_s = _AWAY_S
            with anyio.move_on_after(pause_s):
                await self._bell.wait()

    async def run_once(self) -> float:
        """One round; how long to wait for the bell before the next. Raises Away."""
        found = await self._outbox.fan_out(_EVENTS_MAX)
        if found.handled:
            self._ours, self._mark = True, None
            self._told(found.endpoints)
            return 0.0 if found.handled == _EVENTS_MAX else _SOON_S
        if not found.asleep:
            self._mark = None
            if found.idle_ms < _LINGER_MS:
                return _SOON_S if self._ours else _OTHERS_S
            await self._outbox.fall_asleep()
            return 0.0
        self._ours = False
        if self._mark is None:
            self._mark = found.high
        return _SAFETY_S if found.low is None or found.low > self._mark else _SOON_S
