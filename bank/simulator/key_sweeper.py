"""The sweeper of idempotency keys: every hour it deletes those older than 24 hours, so a key lives 24 to 25 hours.

After that the same key executes again. Nothing checks a key's age when it is read.
"""

import logging
from collections.abc import Callable

import psycopg
from anyio import sleep

from bank.simulator.instant import NS_PER_HOUR, to_column
from bank.simulator.lanes import ConnectionWorkers

SWEEP_EVERY_S = 3600.0
KEY_LIFE_NS = 24 * NS_PER_HOUR

logger = logging.getLogger(__name__)


class KeySweeper:
    """Forgets old keys."""

    def __init__(self, lanes: ConnectionWorkers, *, clock_ns: Callable[[], int]) -> None:
        self._lanes = lanes
        self._clock_ns = clock_ns

    async def run(self) -> None:
        """Sweep every hour, the first time after one; until cancelled."""
        while True:
            await sleep(SWEEP_EVERY_S)
            try:
                await self.run_once()
            except psycopg.Error as error:
                logger.error("keys_not_swept", extra={"error": str(error)})

    async def run_once(self) -> None:
        """Delete what is too old now; raises psycopg.Error."""
        await self._lanes.ask("forget_keys", to_column(self._clock_ns() - KEY_LIFE_NS))
