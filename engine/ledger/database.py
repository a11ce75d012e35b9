"""Postgres as we borrow it: which of its errors are ours, and connections that do not outlive a changed table.

Only a broken constraint or an impossible value is our mistake. All else (gone, read-only, failing over, too busy, a
migration under way) is the world's: it may stop, so the work waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

Mistakes = (psycopg.IntegrityError, psycopg.DataError)
Away = (psycopg.Error, PoolTimeout, PoolClosed, OSError)
"""Everything psycopg raises; test for Mistakes first."""

# Classes of SQLSTATE that say nothing about what was to be written: the connection, a deadlock, resources, an operator,
# a lock that was not to be had, another state of the server, a schema or permission that is not there, a plan.
_OF_THE_SERVER = ("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX")
_GONE = ("08", "57P")  # classes of SQLSTATE: the connection broke; the server stops, starts or crashed


def is_gone(error: Exception) -> bool:
    """Whether this says that Postgres itself cannot be reached, and not that one statement failed or took too long."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return error.sqlstate.startswith(_GONE)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | PoolClosed | OSError)


def is_of_the_rows(error: Exception) -> bool:
    """Whether a write failed for what was in it, and would again: a value that cannot be bound, encoded or stored. What
    the server may yet do, or somebody may put right on it, is no fault of the rows."""
    if isinstance(error, PoolTimeout | PoolClosed | OSError):
        return False
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # psycopg's own: the connection broke, or a value has no form that Postgres knows
            return not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return not error.sqlstate.startswith(_OF_THE_SERVER)
    return True


@asynccontextmanager
async def borrowed(pool: AsyncConnectionPool, timeout_s: float | None = None) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of the pool. One whose prepared statements no longer fit their tables is not given back."""
    async with pool.connection(timeout=timeout_s) as connection:
        try:
            yield connection
        except (psycopg.NotSupportedError, psycopg.InternalError, psycopg.ProgrammingError):
            await connection.close()
            raise
