"""The real ledger, written to by several partition consumers at once: what was written, and what was left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import psycopg
from msgspec.structs import replace
from psycopg_pool import AsyncConnectionPool

from engine.domain.changeset import ChangeSet
from engine.domain.creation import new_payment
from engine.domain.ids import operation_id, payment_id
from engine.domain.payment import Verb
from engine.ledger.writer import CommitVerdict, FencingToken, LedgerWriter
from support.decision_stand import NOON, PATIENCE, Desk, a_command, approved

PARTITION = 3


@dataclass(frozen=True, kw_only=True)
class Tenure:
    """What an owner has to show for its partition."""

    fence: FencingToken


@dataclass(frozen=True, kw_only=True)
class LedgerStand:
    """A running ledger over a database of the test's own."""

    ledger: LedgerWriter
    dsn: str

    async def acquire(self, owner: str = "worker") -> Tenure:
        """The partition, from whoever had it."""
        seen = (await self.ledger.fences())[PARTITION]
        wished = FencingToken(seen.epoch, f"{owner}:{seen.epoch + 1}")
        (fence,) = (await self.ledger.acquire({PARTITION: wished}, owner)).values()
        return Tenure(fence=fence)

    async def commit(self, step: ChangeSet, consumer: Tenure) -> CommitVerdict:
        return await self.ledger.commit(step, consumer.fence)

    async def commit_together(self, *writes: tuple[ChangeSet, Tenure]) -> list[CommitVerdict]:
        """In one batch: whoever asks in the same turn of the loop is in the same one."""
        return list(await asyncio.gather(*(self.commit(step, consumer) for step, consumer in writes)))

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement, parameters).fetchall()

    def rows(self) -> dict[str, list[str]]:
        """All that commits write, table by table."""
        tables = ("payments", "operations", "transitions", "outbox")
        return {table: [row for (row,) in self.sql(f"SELECT t::text FROM {table} t ORDER BY 1")] for table in tables}

    def transactions(self) -> list[str]:
        """Those that wrote the payments, each once."""
        return [row for (row,) in self.sql("SELECT DISTINCT xmin::text FROM payments")]


@asynccontextmanager
async def a_ledger(dsn: str) -> AsyncIterator[LedgerStand]:
    async with (
        AsyncConnectionPool(dsn, min_size=1, open=False, kwargs={"autocommit": True}) as pool,
        anyio.create_task_group() as tasks,
    ):
        ledger = LedgerWriter(pool, 100)
        tasks.start_soon(ledger.run)
        yield LedgerStand(ledger=ledger, dsn=dsn)
        tasks.cancel_scope.cancel()


def a_payment_of(key: str) -> Desk:
    """A payment of its own in the partition; its authorize is on its way to the bank."""
    payment = payment_id("stand", "m_1", key)
    command = replace(
        a_command(Verb.AUTHORIZE, key), payment=payment, operation=operation_id(payment, Verb.AUTHORIZE, key)
    )
    receipt, operation = new_payment(command, PARTITION, 1, NOON)
    return Desk(payment=receipt, operations=(operation,), patience=PATIENCE).go_on()


async def an_authorized_payment(stand: LedgerStand, consumer: Tenure, key: str = "first") -> Desk:
    """The same, with the bank's approval, in the ledger."""
    desk = a_payment_of(key).answer(approved)
    for step in desk.steps:
        assert await stand.commit(step, consumer) is CommitVerdict.COMMITTED
    return desk
