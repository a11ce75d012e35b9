"""One snapshot of the ledger, and what stands in it against the invariants. REPEATABLE READ: traffic goes on beside it.

Either all payments are looked at, or some: then each statement finds them by index, however large the ledger is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.rows import dict_row

from engine.domain.lifecycle import TRANSITIONS, Effect
from ops.audit.breach import Breach
from ops.audit.invariant import Invariant
from ops.statement import statement

# The lifecycle's rows that are journaled, as the statement compares them.
_TABLE = [f"{state} {event} {to}" for (state, event), (to, effects) in TRANSITIONS.items() if Effect.JOURNAL in effects]


class LedgerSnapshot:
    """Of one moment. `payments`: those to look at, None for all."""

    def __init__(
        self, connection: psycopg.Connection, payments: Sequence[str] | None, *, grace_s: float, limit: int
    ) -> None:
        self.connection = connection
        self._given = {
            "payments": None if payments is None else list(payments),
            "table": _TABLE,
            "grace_s": grace_s,
            "limit": limit,
        }

    def breaches(self, invariant: Invariant) -> list[Breach]:
        """Newest first, bounded."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(statement(f"audit/{invariant.name}"), self._given).fetchall()
        return [Breach(invariant=invariant, **row) for row in rows]


@contextmanager
def one_moment(connection: psycopg.Connection, *, by_index: bool) -> Iterator[None]:
    """A transaction that sees one moment and writes nothing. `by_index`: never read a large table from end to end."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    with connection.transaction():
        if by_index:
            connection.execute(statement("audit/by_index"))
        yield
