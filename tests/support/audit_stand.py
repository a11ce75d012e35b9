"""A ledger with real traffic in it, copied for each test that breaks it; and an auditor to look at the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ops.audit.auditor import Auditor
from ops.audit.breach import Report
from ops.stack.embedded import EmbeddedPostgres
from ops.store_url import Locations
from support.bank_harness import fresh_cards
from support.gateway import Gateway

GRACE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A copy of the trafficked ledger, for one test to break."""

    dsn: str
    redis: str

    def write(self, *statements: str) -> None:
        """As somebody does with psql; constraints that stand in the way are dropped first."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def one(self, statement: str) -> str:
        """The first column of the first row."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(statement.encode()).fetchone()
        assert row is not None, statement
        return str(row[0])

    def audited(self, *, grace_s: float = GRACE_S) -> Report:
        """A whole look."""
        return self._look(lambda auditor: auditor.look_at_all(), grace_s)

    def glanced_at(self) -> Report:
        """The first bounded look of the process."""
        return self._look(lambda auditor: auditor.run_once(), GRACE_S)

    def _look(self, how: Callable[[Auditor], Report], grace_s: float) -> Report:
        with closing(Auditor(Locations(ledger=self.dsn, redis=self.redis), grace_s=grace_s, limit=20)) as auditor:
            return how(auditor)


def named(report: Report) -> set[str]:
    """The invariants with something against them."""
    return {found.invariant.name for found in report.found if found.breaches}


@contextmanager
def a_database(postgres: EmbeddedPostgres, name: str, template: str) -> Iterator[None]:
    """Made from another, gone afterwards."""
    ours, source = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(ours, source))
        yield
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(ours))


def every_kind(gateway: Gateway) -> None:
    """Payments that end in every way a client can bring about."""

    def paid(*verbs: str, **changes: object) -> None:
        payment = gateway.pay(next(fresh_cards), wait=10, **changes).json()["id"]
        for verb in verbs:
            gateway.post(f"/v1/payments/{payment}/{verb}", wait=10)

    paid()
    paid("capture", "refund", "void")
    paid("void")
    paid(capture=True)
    gateway.pay("5555555555554444", wait=10)
