"""The doorbell: hears NOTIFY on the dispatchers' channels, and rings once more whenever it may have missed something.

A ring is a hint. Whoever waits for it also looks by himself now and then, so a lost one costs a moment, never an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import structlog
from psycopg_pool import AsyncConnectionPool

from engine.ledger.database import Away, borrowed
from engine.ledger.statement import statement
from engine.loop import forever

log = structlog.get_logger()

_RETRY_S = 0.5
_CHECK_EVERY_S = 5.0
_ANSWER_S = 2.0


class Listener:
    """Run `run` for life; it holds one connection. `bells`: channel to what its message does, empty after a gap."""

    def __init__(self, pool: AsyncConnectionPool, bells: Mapping[str, Callable[[str], None]]) -> None:
        self._pool, self._bells = pool, bells

    async def run(self) -> None:
        await forever("doorbell", self.run_once)

    async def run_once(self) -> None:
        """For as long as one connection lasts, and answers."""
        try:
            await self._hear()
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
        await anyio.sleep(_RETRY_S)

    async def _hear(self) -> None:
        async with borrowed(self._pool) as connection:
            try:
                await connection.execute(statement("listen"))
                for ring in self._bells.values():
                    ring("")
                while True:
                    async for note in connection.notifies(timeout=_CHECK_EVERY_S):
                        self._bells[note.channel](note.payload)
                    # Nothing came for a while, or the connection is one that delivers nothing any more.
                    with anyio.fail_after(_ANSWER_S):
                        await connection.execute(statement("listen"))
            finally:
                await connection.close()  # it listens, so nobody else may have it
