"""Opening the stores, once, at start: each is checked first (store_checks.py), then used through pools.

A store that refuses us ends the process at once, in words; one that may come by itself is waited for, and that is told.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError

from engine.errors import Broken, Unavailable
from engine.ledger.refusal import postgres_place
from engine.ledger.session import conninfo, prepare
from engine.resilience.fitness import Fitness
from engine.streams.installation import InstallationCheck
from engine.streams.scripts import Scripts
from ops.assembly.settings import Settings
from ops.assembly.store_checks import check_postgres, check_redis

log = structlog.get_logger()

_POOL_MAX = 8
_START_PATIENCE_S = 30.0
_TRY_AGAIN_S = 0.2
_RECONNECT_S = 1.0  # the pool's pauses between tries double: a limit keeps the end of a long outage from being missed
# A stopped worker must not hold a lock (I2), a dead connection not hold up a worker, a slow statement not an edge.
_CONNECTION = {
    "autocommit": True,
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
_IDLE_IN_TRANSACTION_MS = 1000
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePatience:
    """How long a store may take: Redis for an answer, Postgres for a statement."""

    redis_s: float
    statement_ms: int


# A client is waiting. A statement is ended before the archive's own patience: it fails alone, Postgres is not away.
EDGE = StorePatience(redis_s=2.0, statement_ms=1500)
# Nobody waits; the doorbell's block time is part of an answer.
WORKER = StorePatience(redis_s=5.0, statement_ms=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Open connections, and what the database says about this installation."""

    redis: Redis
    pool: AsyncConnectionPool
    installation: str
    partitions: int
    installation_check: InstallationCheck
    fitness: Fitness


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerConnections:
    """The same for who does without Redis."""

    pool: AsyncConnectionPool
    installation: str
    fitness: Fitness


@asynccontextmanager
async def open_ledger(settings: Settings, patience: StorePatience) -> AsyncIterator[LedgerConnections]:
    """Postgres alone, checked likewise, for who does without Redis. Raises Broken, Unavailable."""
    fitness = Fitness()
    installation, _ = await reached(partial(in_thread, check_postgres, settings))
    async with _pool(settings, patience, fitness) as pool:
        yield LedgerConnections(pool=pool, installation=installation, fitness=fitness)


@asynccontextmanager
async def open_stores(settings: Settings, patience: StorePatience) -> AsyncIterator[Stores]:
    """Connects, waits a while for stores that are starting, and checks them. Raises Broken with what to change."""
    fitness = Fitness()
    installation, partitions = await reached(partial(in_thread, check_postgres, settings))
    await reached(partial(in_thread, check_redis, settings))
    installation_check = InstallationCheck(installation, fitness)
    redis = Redis.from_url(
        settings.redis_url,
        socket_timeout=patience.redis_s,
        socket_connect_timeout=2,
        protocol=2,
        # For a pooled connection gone stale; that a Redis is away, or silent, is said at once.
        retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        redis_connect_func=installation_check.greet,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        pool = await stack.enter_async_context(_pool(settings, patience, fitness))
        await reached(partial(_claim, Scripts(redis), installation_check, fitness))
        yield Stores(
            redis=redis,
            pool=pool,
            installation=installation,
            partitions=partitions,
            installation_check=installation_check,
            fitness=fitness,
        )


async def reached(attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt returns once it raises Unavailable no more, within 30 s. The wait is told, and for what."""
    until, told = time.monotonic() + _START_PATIENCE_S, ""
    while True:
        try:
            return await attempt()
        except Unavailable as fault:
            if time.monotonic() > until:
                detail = f"{fault.detail} (waited {_START_PATIENCE_S:.0f} s for it)"
                raise Unavailable(fault.code, detail) from fault
            if fault.detail != told:
                told = fault.detail
                log.warning("waiting_for_store", why=told, at_most_s=_START_PATIENCE_S)
        await anyio.sleep(_TRY_AGAIN_S)


async def in_thread(check: Callable[[S], T], given: S) -> T:
    """A check that blocks."""
    return await anyio.to_thread.run_sync(check, given, abandon_on_cancel=True)


async def _claim(scripts: Scripts, installation_check: InstallationCheck, fitness: Fitness) -> None:
    """Nobody's Redis becomes ours; another's is refused, in words."""
    try:
        await installation_check.look(scripts)
    finally:
        if not fitness.fits:
            raise Broken("; ".join(fitness.faults.values()))


@asynccontextmanager
async def _pool(settings: Settings, patience: StorePatience, fitness: Fitness) -> AsyncIterator[AsyncConnectionPool]:
    """Every connection of it is judged before it is used, so that a database that changed while we were away is met
    as one that cannot be reached, and said to be what it is."""
    timeouts = {
        "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_MS),
        "statement_timeout": str(patience.statement_ms),
    }

    async def configure(connection: psycopg.AsyncConnection) -> None:
        try:
            await prepare(connection, timeouts)
        except Broken as fault:
            fitness.tell("ledger", str(fault))
            raise
        fitness.tell("ledger", None)

    async with AsyncConnectionPool(
        conninfo(settings.database_url),
        configure=configure,
        min_size=2,
        max_size=_POOL_MAX,
        timeout=2,
        reconnect_timeout=_RECONNECT_S,
        kwargs=_CONNECTION,
        open=False,
    ) as pool:
        try:
            await pool.wait(_START_PATIENCE_S)
        except PoolTimeout:
            place = postgres_place(settings.database_url)
            words = f"{place} gives one connection and no second: raise max_connections, or the user's CONNECTION LIMIT"
            raise Unavailable("store_unavailable", words) from None
        yield pool
