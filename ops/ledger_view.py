"""Looks at the ledger that need no engine: the epochs of its partitions."""

from __future__ import annotations

import psycopg

from engine.errors import Broken
from engine.statement import statement

_PATIENCE_S = 5


def read_epochs(database: str) -> dict[int, int]:
    """Partition to epoch. Raises Broken when the database is none of ours, psycopg's errors when it is away."""
    try:
        with psycopg.connect(database, connect_timeout=_PATIENCE_S) as connection:
            return {row[0]: row[1] for row in connection.execute(statement("fences")).fetchall()}
    except psycopg.errors.UndefinedTable:
        raise Broken("the database has no Penstock tables yet: run `penstock migrate` first") from None
