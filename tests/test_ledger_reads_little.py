"""What a commit and a sweep read does not grow with what has ended, though an index remembers it until a vacuum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from random import Random

import anyio
import psycopg
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from engine.domain.bank_answer import Approved
from engine.domain.changeset import ChangeSet
from engine.domain.creation import new_payment
from engine.domain.decision import Decider
from engine.domain.ids import operation_id, partition_of, payment_id
from engine.domain.payment import Verb
from engine.ledger.writer import CommitVerdict, DueTerms, FencingToken, LedgerWriter
from support.decision_stand import JOURNAL, PATIENCE, a_command
from support.gateway import eventually

PARTITIONS = 16
PAYMENTS = 100  # in a batch
BATCHES = 4
SWEEPS = 15  # a statement is prepared after five, and planned for any arguments after five more
COUNTED = """
    SELECT t.n_tup_upd, i.idx_scan, i.idx_tup_read FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
    WHERE i.indexrelname = 'operations_unsettled'
"""
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
DECIDER = Decider(PATIENCE, JOURNAL, Random(7))


def test_what_has_ended_is_not_read_again(database: str) -> None:
    asyncio.run(a_day(database))

    with psycopg.connect(database, autocommit=True) as connection:
        # A backend's counts are whole once it has ended.
        eventually(lambda: connection.execute(OTHERS).fetchone() == (0,), "the ledger's connection is gone")
        counted = connection.execute(COUNTED).fetchone()
    assert counted is not None
    updated, scans, entries = counted
    assert (updated, scans >= SWEEPS, entries) == (PAYMENTS * BATCHES, True, 0)


TERMS = DueTerms(
    expiry_notice=timedelta(days=1),
    expiry_grace=timedelta(0),
    lost_after=timedelta(seconds=5),
    farthest=timedelta(minutes=10),
)


async def a_day(database: str) -> None:
    """Payments are authorized, batch by batch, and swept for what is due: all of them expire soon, none waits."""
    pool = AsyncConnectionPool(database, min_size=1, max_size=1, open=False, kwargs={"autocommit": True})
    async with pool:
        ledger = LedgerWriter(pool, PAYMENTS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ledger.run)
            await ledger.acquire(dict.fromkeys(range(PARTITIONS), FencingToken(0, "token")), "worker")
            for batch in range(BATCHES):
                intents = [intent(f"{batch}-{number}") for number in range(PAYMENTS)]
                await committed(ledger, intents)
                await committed(ledger, map(outcome, intents))
            for _ in range(SWEEPS):
                due = await ledger.due(range(PARTITIONS), TERMS, 1000)
            tasks.cancel_scope.cancel()
    assert len(due) == PAYMENTS * BATCHES


async def committed(ledger: LedgerWriter, steps: Iterable[ChangeSet]) -> None:
    verdicts = await asyncio.gather(*(ledger.commit(step, FencingToken(1, "token")) for step in steps))
    assert set(verdicts) == {CommitVerdict.COMMITTED}


def intent(key: str) -> ChangeSet:
    """A new payment about to be authorized."""
    payment, now = payment_id("stand", "m_1", key), datetime.now(UTC)
    command = replace(
        a_command(Verb.AUTHORIZE, key), payment=payment, operation=operation_id(payment, Verb.AUTHORIZE, key)
    )
    return DECIDER.admit(*new_payment(command, partition_of(payment, PARTITIONS), 1, now), now)


def outcome(step: ChangeSet) -> ChangeSet:
    """It is authorized, for an hour."""
    now = datetime.now(UTC)
    answer = Approved(reference=f"auth_{step.payment.id}", at=now, expires_at=now + timedelta(hours=1))
    authorized = DECIDER.conclude(step.payment, step.operations[0], [], answer, now)
    assert isinstance(authorized, ChangeSet)
    return authorized
