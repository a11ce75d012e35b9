"""The auditor: one look at ledger, Redis and bank, whole for `penstock audit`, bounded for the process of its own.

A bounded look costs the same on any ledger: it takes the payments that changed since the last ones, some more in turn,
so that in time every payment is looked at again, and those that stood out before, until they do not any more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from engine.contracts.connector import Clock
from engine.errors import Broken
from engine.ledger.refusal import postgres_refusal
from engine.ledger.session import connect
from engine.ledger.statement import statement as engine_statement
from engine.streams.refusal import redis_refusal
from ops.audit import books, clocks, streams
from ops.audit.breach import Report, sorted_out
from ops.audit.invariant import INVARIANTS, RedisScan
from ops.audit.keyspace import Keyspace, StoredAnswer
from ops.audit.ledger_view import read_unsettled
from ops.audit.snapshot import LedgerSnapshot, one_moment
from ops.statement import statement
from ops.store_url import Locations

_EVENTS_MAX = 3_000  # of a bounded look; more in one interval are left to a whole audit, and the report says so
_IN_TURN = 200
_KEYS_MAX = 2_000
_POISON_CANDIDATES_MAX = 1_000
_PATIENCE_S = 5.0
_SCANS = {
    False: frozenset({RedisScan.CHANGED, RedisScan.OPEN}),
    True: frozenset({RedisScan.CHANGED, RedisScan.OPEN, RedisScan.WHOLE}),
}  # of the ledger, by whether the look is whole


class Auditor:
    """Raises Unavailable when a store may yet come, Broken when it refuses us or is no installation, and psycopg's
    errors; the next look begins anew."""

    def __init__(self, places: Locations, *, grace_s: float, limit: int, clock: Clock | None = None) -> None:
        self._places, self._grace_s, self._limit = places, grace_s, limit
        self._clock = clock or (lambda: datetime.now(UTC))
        self._redis = Redis.from_url(
            places.redis,
            socket_timeout=_PATIENCE_S,
            socket_connect_timeout=_PATIENCE_S,
            protocol=2,
            retry=Retry(NoBackoff(), 1),  # for a connection gone stale
        )
        self._ledger: psycopg.Connection | None = None
        self._installation = ""
        self._keyspace = Keyspace(self._redis, self._answers, grace_s=grace_s)
        # Two looks back: a transaction that was under way at the last one may have written a smaller id since.
        self._newest: deque[int] = deque([0, 0], maxlen=2)
        self._turn = ""
        self._suspects: tuple[str, ...] = ()

    def look_at_all(self) -> Report:
        """Everything there is, the bank's books too where they are given. Takes its time on a large ledger."""
        return self._look(whole=True)

    def run_once(self) -> Report:
        """A bounded look."""
        return self._look(whole=False)

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        self._redis.close()

    def _look(self, *, whole: bool) -> Report:
        try:
            return self._look_at(whole=whole)
        except RedisError as error:
            raise redis_refusal(error, self._places.redis).error from error
        except psycopg.OperationalError as error:
            raise postgres_refusal(error, self._places.ledger).error from error

    def _look_at(self, *, whole: bool) -> Report:
        began, at = time.monotonic(), self._clock()
        try:
            ledger = self._connected()
            found = list(streams.look(self._redis, self._partitions(), grace_s=self._grace_s, limit=self._limit))
            found += clocks.look(ledger, self._redis, self._partitions(), self._clock)
            found += streams.look_whose(self._redis, self._installation)
            found += self._keyspace.look(at, None if whole else _KEYS_MAX)
            moment = time.monotonic()
            with one_moment(ledger, by_index=not whole):
                payments, complete = (None, True) if whole else self._due(ledger)
                snapshot = LedgerSnapshot(ledger, payments, grace_s=self._grace_s, limit=self._limit)
                for invariant in INVARIANTS:
                    if invariant.scan in _SCANS[whole]:
                        found += snapshot.breaches(invariant)
                unsettled = read_unsettled(ledger)
                if whole and self._places.bank is not None:
                    ours = books.read_ledger(ledger)
            if whole and self._places.bank is not None:
                since_s = time.monotonic() - moment
                found += books.look(ours, self._places.bank, self._are_known, grace_s=self._grace_s + since_s)
        except BaseException:
            with suppress(psycopg.Error):
                self.close()
            raise
        self._suspects = tuple({each.payment for each in found if each.payment is not None})[:_POISON_CANDIDATES_MAX]
        scans = (
            _SCANS[whole] | {RedisScan.REDIS} | ({RedisScan.BANK} if whole and self._places.bank is not None else set())
        )
        return Report(
            at=at,
            took_s=time.monotonic() - began,
            payments=None if payments is None else len(payments),
            whole=complete,
            unsettled=unsettled,
            found=sorted_out(found, [each for each in INVARIANTS if each.scan in scans], self._limit),
        )

    def _due(self, ledger: psycopg.Connection) -> tuple[list[str], bool]:
        """The payments of a bounded look, and whether all that changed is among them."""
        after = self._newest[0]
        events = ledger.execute(statement("audit/changed_payments"), {"after": after, "limit": _EVENTS_MAX}).fetchall()
        self._newest.append(max([event[0] for event in events], default=self._newest[-1]))
        turn = ledger.execute(statement("audit/payments_after"), {"after": self._turn, "limit": _IN_TURN}).fetchall()
        self._turn = turn[-1][0] if len(turn) == _IN_TURN else ""
        due = {payment for _, payment in events} | {payment for (payment,) in turn} | set(self._suspects)
        return sorted(due), len(events) < _EVENTS_MAX

    def _connected(self) -> psycopg.Connection:
        if self._ledger is None or self._ledger.closed:
            self._ledger = connect(
                self._places.ledger,
                autocommit=True,
                connect_timeout=int(_PATIENCE_S),
                application_name="penstock auditor",
                prepare_threshold=None,  # plans are made for the payments at hand
            )
        return self._ledger

    def _partitions(self) -> int:
        """Raises Broken when the database is no installation."""
        try:
            row = self._connected().execute(engine_statement("installation")).fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        if row is None:
            raise Broken("the database is no installation of Penstock: run `penstock migrate` first")
        self._installation = str(row[0])
        return int(row[1])

    def _answers(self, operations: Sequence[str]) -> Mapping[str, StoredAnswer]:
        if not operations:
            return {}
        rows = self._connected().execute(statement("audit/answers"), {"ids": list(operations)}).fetchall()
        return {row[0]: StoredAnswer(settled_at=row[1], status=row[2], body=row[3]) for row in rows}

    def _are_known(self, operations: Iterable[str]) -> set[str]:
        asked = list(operations)
        releases = self._connected().execute(statement("audit/release_keys"), {"keys": asked}).fetchall()
        return set(self._answers(asked)) | {key for (key,) in releases}
