"""A transaction in Postgres on behalf of a client that waits: a few statements, in a bounded time, whole or not at all.

For what merchants do rarely (webhook endpoints, redeliveries, looking into logs); what a payment needs has ways of its
own (stream_reader.py, writer.py). Raises Unavailable when Postgres does not answer in time; what is raised inside
passes through, and undoes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import anyio
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.errors import Unavailable
from engine.ledger.database import Away, Mistakes, borrowed
from engine.ledger.statement import statement

_AT_ONCE_MAX = 3  # of the pool's connections; the others are for what accepting needs
_PATIENCE_S = 3.0  # two statements as slow as an edge's connection lets them be


class Transaction:
    """One that is under way."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, name: str, prepare: bool | None = None, /, **values: object) -> list[dict[str, Any]]:
        """The rows of the statement in sql/<name>.sql; `prepare` False: planned for these very values."""
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(statement(name), values, prepare=prepare)
        return await cursor.fetchall()

    async def row(self, name: str, **values: object) -> dict[str, Any] | None:
        """The first of them."""
        found = await self.rows(name, None, **values)
        return found[0] if found else None

    async def time(self) -> datetime:
        """When it began, by the ledger's clock."""
        at: datetime = (await self.rows("ledger_time"))[0]["at"]
        return at

    async def do(self, name: str, **values: object) -> None:
        """A statement that returns nothing."""
        await self._connection.execute(statement(name), values)


class Transactions:
    """Begins them, a few at a time."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool, self._places = pool, anyio.Semaphore(_AT_ONCE_MAX)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """Committed when the block ends, undone when it raises."""
        try:
            with anyio.fail_after(_PATIENCE_S):
                async with self._places, borrowed(self._pool, _PATIENCE_S) as connection, connection.transaction():
                    yield Transaction(connection)
        except Mistakes:
            raise
        except (TimeoutError, *Away) as error:
            raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error
