"""The back office: the engine's side for operators, opened on the stores themselves for the length of one command.

Works without an edge, and while Redis is away as far as the ledger alone can answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from engine.errors import Broken, Unavailable
from engine.gateway.operator_actions import OperatorActions
from engine.gateway.queries import PaymentQueries
from engine.gateway.timeline import PaymentTimeline
from engine.ledger.audit_log import AuditLog
from engine.ledger.reader import LedgerReader
from engine.ledger.session import NO_TABLES, connect, conninfo, prepare
from engine.ledger.statement import statement
from engine.streams import keys
from engine.streams.acceptance_store import AcceptanceStore
from engine.streams.dead_letter_queue import DeadLetterQueue
from engine.streams.scripts import Scripts
from ops.assembly.store_checks import reaching
from ops.stack.data_dir import DataDir
from ops.store_url import given_url

_PATIENCE_S = 5.0
_CONNECTION = {"autocommit": True, "connect_timeout": 5}
_STATEMENT_MS = 5000
_RECORD_TTL_MS = 900_000  # of records that are repaired by looking; the edges' default


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOffice:
    """What commands work with."""

    operator_actions: OperatorActions
    timeline: PaymentTimeline
    queries: PaymentQueries
    ledger_reader: LedgerReader
    acceptance_store: AcceptanceStore
    partitions: int


def addresses(data_dir: Path) -> tuple[str, str]:
    """The URLs of Postgres and Redis: the variables', else those of the stack that runs in the folder."""
    database, redis = given_url("PENSTOCK_DATABASE_URL"), given_url("PENSTOCK_REDIS_URL")
    if not (database and redis):
        running = DataDir(data_dir).state()
        database, redis = database or running["database"], redis or running["redis"]
    return database, redis


@asynccontextmanager
async def back_office(data_dir: Path) -> AsyncIterator[BackOffice]:
    """Raises Broken with what to do when there is nothing to open."""
    database, redis_url = addresses(data_dir)
    installation, partitions = await anyio.to_thread.run_sync(_installation, database)
    await anyio.to_thread.run_sync(_check_redis, redis_url, installation)
    async with AsyncExitStack() as stack:
        configure = partial(prepare, settings={"statement_timeout": str(_STATEMENT_MS)})
        pool = AsyncConnectionPool(
            conninfo(database), configure=configure, min_size=1, max_size=2, timeout=2, kwargs=_CONNECTION, open=False
        )
        await stack.enter_async_context(pool)
        redis = Redis.from_url(redis_url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S, protocol=2)
        stack.push_async_callback(redis.aclose)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        scripts = Scripts(redis)
        acceptance_store, ledger_reader = AcceptanceStore(scripts), LedgerReader(pool)
        for run in (acceptance_store.run, ledger_reader.run):
            tasks.start_soon(run)
        yield BackOffice(
            operator_actions=OperatorActions(
                DeadLetterQueue(scripts, partitions), ledger_reader, AuditLog(pool), partitions
            ),
            timeline=PaymentTimeline(acceptance_store, ledger_reader, partitions),
            queries=PaymentQueries(
                acceptance_store, ledger_reader, partitions, lambda: datetime.now(UTC), _RECORD_TTL_MS
            ),
            ledger_reader=ledger_reader,
            acceptance_store=acceptance_store,
            partitions=partitions,
        )
        tasks.cancel_scope.cancel()


def _installation(database: str) -> tuple[str, int]:
    with connect(database, connect_timeout=5) as connection:
        row = connection.execute(statement("installation")).fetchone()
    if row is None:
        raise Broken(NO_TABLES)
    return str(row[0]), int(row[1])


def _check_redis(url: str, installation: str) -> None:
    """Raises Broken for a Redis that refuses us, or is another installation's. One that is away is no obstacle: the
    ledger answers a lot."""
    try:
        with reaching(url) as redis:
            there: Any = redis.get(keys.INSTALLATION)
    except Unavailable:
        return
    whose = there.decode(errors="replace") if isinstance(there, bytes) else there
    if whose is not None and whose != installation:
        raise Broken("PENSTOCK_REDIS_URL is the Redis of another installation than PENSTOCK_DATABASE_URL")
