"""Looks at the ledger that need no engine: the epochs of its partitions."""

from __future__ import annotations

from engine.ledger.session import connect
from engine.ledger.statement import statement

_PATIENCE_S = 5


def read_epochs(database: str) -> dict[int, int]:
    """Partition to epoch. Raises Broken when the database is none of ours, psycopg's errors when it is away."""
    with connect(database, connect_timeout=_PATIENCE_S) as connection:
        return {row[0]: row[1] for row in connection.execute(statement("fences")).fetchall()}
