"""Looks at the ledger that need no engine: its partitions' epochs, its payments, and what is unsettled in it.

What was accepted and not journaled yet is not here: the streams have it (`penstock partitions`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from engine.domain.rendering import payment_document
from engine.errors import Broken
from engine.ledger.reader import receipt_of
from engine.ledger.rows import read
from engine.ledger.session import connect
from engine.ledger.statement import statement as engine_statement
from ops.statement import statement

_PATIENCE_S = 5
_LIST_WITHIN_MS = 15_000  # a filter that few of many payments pass takes its time, but not for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsettledKind:
    """Operations of a connector and a verb. `in_doubt_oldest_s`: since the first of those was sent; 0 where none is."""

    connector: str
    verb: str
    unsettled: int
    in_doubt: int
    in_doubt_oldest_s: float
    review: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """What waits for the bank's word, and what for a person."""

    kinds: tuple[UnsettledKind, ...]

    @property
    def in_doubt(self) -> int:
        return sum(each.in_doubt for each in self.kinds)

    @property
    def in_doubt_oldest_s(self) -> float:
        return max((each.in_doubt_oldest_s for each in self.kinds), default=0.0)

    @property
    def review(self) -> int:
        return sum(each.review for each in self.kinds)

    def document(self) -> dict[str, object]:
        return {
            "in_doubt": self.in_doubt,
            "in_doubt_oldest_s": round(self.in_doubt_oldest_s, 3),
            "review": self.review,
        }

    def in_words(self) -> str:
        """A line for people, with the command that shows them."""
        age = f" (the oldest for {_lasting(self.in_doubt_oldest_s)})" if self.in_doubt else ""
        show = [f"penstock payment list --{name}" for name in self._named()]
        return f"in doubt: {self.in_doubt:,}{age}, in review: {self.review:,}{': ' if show else ''}{', '.join(show)}"

    def _named(self) -> Iterable[str]:
        return (name for name, count in (("in-doubt", self.in_doubt), ("review", self.review)) if count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which payments: those that fit all that is given. `waiting` is "in_doubt" or "review"; `after` is where a page
    ended."""

    merchant: str | None = None
    order: str | None = None
    customer: str | None = None
    state: str | None = None
    waiting: str | None = None
    after: str | None = None


def read_epochs(database: str) -> dict[int, int]:
    """Partition to epoch. Raises Broken when the database is none of ours, psycopg's errors when it is away."""
    with connect(database, connect_timeout=_PATIENCE_S) as connection:
        return {row[0]: row[1] for row in connection.execute(engine_statement("fences")).fetchall()}


def read_unsettled(connection: psycopg.Connection[Any]) -> Unsettled:
    """Raises psycopg's errors."""
    rows = connection.execute(statement("unsettled_by_kind")).fetchall()
    return Unsettled(
        kinds=tuple(
            UnsettledKind(
                connector=row[0],
                verb=row[1],
                unsettled=row[2],
                in_doubt=row[3],
                in_doubt_oldest_s=row[4],
                review=row[5],
            )
            for row in rows
        )
    )


def read_unsettled_of(database: str) -> Unsettled:
    """The same of a database. Raises as `read_epochs`."""
    with connect(database, connect_timeout=_PATIENCE_S) as connection:
        return read_unsettled(connection)


def list_payments(database: str, wanted: Wanted, limit: int) -> dict[str, Any]:
    """A page, newest first, as the API renders lists: payment objects, each with its merchant. Raises Broken for a
    merchant or a place that is not there, and as `read_epochs`."""
    settings = {"statement_timeout": str(_LIST_WITHIN_MS)}
    with connect(database, settings=settings, connect_timeout=_PATIENCE_S) as connection:
        before_at = None if wanted.after is None else _place(connection, wanted.after)
        if wanted.merchant is not None:
            _check_merchant(connection, wanted.merchant)
        asked = {
            "merchant": wanted.merchant,
            "order": wanted.order,
            "customer": wanted.customer,
            "state": wanted.state,
            "waiting": wanted.waiting,
            "before_at": before_at,
            "before_id": wanted.after,
            "limit": limit + 1,
        }
        name = "payments_listed" if wanted.waiting is None else "payments_waiting"
        rows = connection.cursor(row_factory=dict_row).execute(statement(name), asked).fetchall()
    data = []
    for row in rows[:limit]:
        receipt = read(receipt_of, row)
        if isinstance(receipt, Broken):
            raise receipt
        data.append({**payment_document(receipt.payment, receipt.shown), "merchant": row["merchant"]})
    has_more = len(rows) > limit
    return {
        "object": "list",
        "data": data,
        "has_more": has_more,
        "next_cursor": rows[limit - 1]["id"] if has_more else None,
    }


def _place(connection: psycopg.Connection[Any], payment: str) -> object:
    row = connection.execute(statement("payment_created"), {"id": payment}).fetchone()
    if row is None:
        raise Broken(f"there is no payment {payment} to go on after")
    return row[0]


def _check_merchant(connection: psycopg.Connection[Any], merchant: str) -> None:
    if connection.execute(engine_statement("merchant_status"), {"id": merchant}).fetchone() is None:
        raise Broken(f"there is no merchant {merchant}: `penstock merchant list` shows them")


def _lasting(seconds: float) -> str:
    """A duration in its largest whole unit: 3 h, 12 min, 5 s."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
