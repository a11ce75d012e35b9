"""What stands in the books when a campaign is over: the ledger's operations, the bank's rows, the streams' remains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row
from redis import Redis

from engine.domain.command import accepted_ms
from engine.streams import keys
from ops.audit.backlog import read_backlog
from ops.audit.reconcile import Account, BankTransaction, LedgerEffect, accounts_of, effects_of, transactions_of
from ops.chaos import double_holds as twice
from ops.chaos.environment import Environment
from ops.chaos.schedule import PARTITIONS
from ops.statement import statement

DEAD_LETTERS_MAX = 100  # told of each partition; one is one too many


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An operation as the ledger has it. `amount` and `state` are its payment's, `digest` SHA-256 of its answer."""

    id: str
    key: str
    payment: str
    verb: str
    status: str
    attempts: int
    parent: str | None
    settled: bool
    answer: int | None
    digest: str | None
    accept_order: int
    amount: int
    state: str

    @property
    def accepted_s(self) -> float:
        """Unix time of the acceptance that was carried out."""
        return accepted_ms(self.accept_order) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Read once, when nothing moves any more."""

    operations: Sequence[Done]
    effects: Sequence[LedgerEffect]
    transactions: Sequence[BankTransaction]
    accounts: Sequence[Account]
    openings: Mapping[str, int]
    twice: Sequence[twice.DoubleHolds]
    gaps: Sequence[str]
    undrained: Sequence[str]
    dead_letters: Sequence[str]
    released: frozenset[str] = frozenset()  # holds that an audited act gave back, by uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Operations of clients in the ledger, by where they stand."""

    ended: int
    in_flight: int
    in_doubt: int
    review: int


def read_books(rig: Environment, openings: Mapping[str, int]) -> Books:
    """Raises psycopg's and Redis' errors: everything must be healed by now."""
    with psycopg.connect(rig.database) as ledger:
        with ledger.cursor(row_factory=class_row(Done)) as cursor:
            operations = cursor.execute(statement("campaign_operations")).fetchall()
        effects = effects_of(ledger)
        released = ledger.execute(statement("audit/released_holds")).fetchall()
        gaps = [
            f"{payment}: sequence {sequence}, {rows} journal rows up to {last}, {events} events"
            for payment, sequence, rows, last, events in ledger.execute(statement("campaign_gaps")).fetchall()
        ]
    with psycopg.connect(rig.bank_database) as bank:
        transactions, accounts = transactions_of(bank), accounts_of(bank)
    return Books(
        operations=operations,
        effects=effects,
        transactions=transactions,
        accounts=accounts,
        openings=openings,
        twice=twice.look(rig.database, rig.bank_database, rig.bank_log),
        gaps=gaps,
        undrained=[
            f"{row.stream}: {row.backlog} entries, {row.pending} pending"
            for row in read_backlog(rig.redis_url, PARTITIONS)
            if row.backlog or row.pending
        ],
        dead_letters=_dead_letters(rig.redis_url),
        released=frozenset(hold.partition("_")[2] for (hold,) in released),
    )


def read_progress(ledger_dsn: str) -> Progress:
    with psycopg.connect(ledger_dsn, connect_timeout=2) as ledger:
        row = ledger.execute(statement("campaign_progress")).fetchone()
    ended, in_flight, in_doubt, review = row or (0, 0, 0, 0)
    return Progress(ended=ended, in_flight=in_flight, in_doubt=in_doubt, review=review)


def still_open(rig: Environment) -> int:
    """Operations and entries that are waited for; none of those that wait for a person."""
    with psycopg.connect(rig.database, connect_timeout=2) as ledger:
        row = ledger.execute(statement("campaign_open")).fetchone()
    return (int(row[0]) if row else 0) + sum(row.backlog for row in read_backlog(rig.redis_url, PARTITIONS))


def _dead_letters(redis_url: str) -> list[str]:
    found = []
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        for stream in map(keys.dead, range(PARTITIONS)):
            entries: Any = redis.xrange(stream, count=DEAD_LETTERS_MAX)
            found += [f"{stream} {entry}: {fields}" for entry, fields in entries]
    return found
