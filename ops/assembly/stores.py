"""Opening the stores and checking what the promises rest on, once, at start.

Redis keeps what it is told (AOF, noeviction), Postgres syncs its commits, and the database is an installation of ours
with as many partitions as we were told. Stores that are still starting are waited for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import psycopg
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, ResponseError

from engine.errors import Broken, Unavailable
from engine.ledger.database import Away
from engine.ledger.session import conninfo, prepare
from engine.ledger.statement import statement
from engine.resilience.fitness import Fitness
from engine.streams.installation import InstallationCheck
from engine.streams.scripts import Scripts
from ops.assembly.settings import Settings

_POOL_MAX = 8
_START_PATIENCE_S = 30.0
_TRY_AGAIN_S = 0.2
_RECONNECT_S = 1.0  # the pool's pauses between tries double: a limit keeps the end of a long outage from being missed
WORKER_STATEMENT_MS = 10_000
EDGE_STATEMENT_MS = (
    1_500  # below the archive's patience: a slow statement ends alone, and nobody takes Postgres for away
)
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
    async with _pool(settings, patience, fitness) as pool:
        with anyio.move_on_after(_START_PATIENCE_S) as start:
            installation, _ = await _check_postgres(pool, settings, fitness)
        if start.cancelled_caught:
            raise Unavailable("store_unavailable", "Postgres did not answer within 30 s of the start")
        yield LedgerConnections(pool=pool, installation=installation, fitness=fitness)


@asynccontextmanager
async def open_stores(settings: Settings, patience: StorePatience) -> AsyncIterator[Stores]:
    """Connects, waits a while for stores that are starting, and checks them. Raises Broken with what to change."""
    fitness = Fitness()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(_pool(settings, patience, fitness))
        with anyio.move_on_after(_START_PATIENCE_S) as start:
            installation, partitions = await _check_postgres(pool, settings, fitness)
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
            stack.push_async_callback(redis.aclose)
            await _check_redis(redis, settings, installation_check, fitness)
        if start.cancelled_caught:
            raise Unavailable("store_unavailable", "Redis or Postgres did not answer within 30 s of the start")
        yield Stores(
            redis=redis,
            pool=pool,
            installation=installation,
            partitions=partitions,
            installation_check=installation_check,
            fitness=fitness,
        )


def _pool(settings: Settings, patience: StorePatience, fitness: Fitness) -> AsyncConnectionPool:
    """Every connection of it is judged before it is used, so that a database that changed while we were away is met
    as one that cannot be reached, and said to be what it is."""

    async def configure(connection: psycopg.AsyncConnection) -> None:
        try:
            await prepare(connection)
        except Broken as fault:
            fitness.tell("ledger", str(fault))
            raise
        fitness.tell("ledger", None)

    timeouts = (
        f"idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}",
        f"statement_timeout={patience.statement_ms}",
    )
    return AsyncConnectionPool(
        conninfo(settings.database_url, *timeouts),
        configure=configure,
        min_size=2,
        max_size=_POOL_MAX,
        timeout=2,
        reconnect_timeout=_RECONNECT_S,
        kwargs=_CONNECTION,
        open=False,
    )


async def _check_postgres(pool: AsyncConnectionPool, settings: Settings, fitness: Fitness) -> tuple[str, int]:
    while True:
        try:
            async with pool.connection(timeout=_TRY_AGAIN_S) as connection:
                row = await (await connection.execute(statement("installation"))).fetchone()
                safety = await (await connection.execute(statement("safety"))).fetchone()
                renumber = await (await connection.execute(statement("events_renumber"))).fetchone()
            break
        except psycopg.errors.UndefinedTable:
            raise Broken("the database has no Penstock tables yet: run `penstock migrate` first") from None
        except Away:
            _refuse(fitness)
            await anyio.sleep(_TRY_AGAIN_S)
    if row is None:
        raise Broken("the database is not an installation yet: run `penstock migrate` first")
    if row[1] != settings.partitions:
        raise Broken(
            f"PENSTOCK_PARTITIONS is {settings.partitions}, but this database was initialised with {row[1]}, "
            "which are fixed for the life of an installation"
        )
    if safety is not None and safety != ("on", "on") and not settings.allow_unsafe_postgres:
        raise Broken(
            f"Postgres runs with fsync={safety[0]}, synchronous_commit={safety[1]}: a power cut would lose payments. "
            "Turn both on, or set PENSTOCK_ALLOW_UNSAFE_POSTGRES=true where no money is at stake"
        )
    if renumber is not None and renumber[0]:
        raise Broken(
            "new events would get numbers that are taken: the database was restored without its sequences. "
            "Run `penstock migrate`, which sets them right"
        )
    return row[0], row[1]


def _refuse(fitness: Fitness) -> None:
    """Raises Broken for a store that answers and is not the one that is meant."""
    if not fitness.fits:
        raise Broken("; ".join(fitness.faults.values()))


async def _check_redis(
    redis: Redis, settings: Settings, installation_check: InstallationCheck, fitness: Fitness
) -> None:
    while True:
        try:
            config = await redis.config_get("maxmemory-policy", "appendonly")
            break
        except AuthenticationError as error:
            raise Broken(f"Redis refuses our credentials ({error}): correct PENSTOCK_REDIS_URL") from error
        except ResponseError as error:
            if "DB index" in str(error):
                raise Broken("this Redis has no database of the number in PENSTOCK_REDIS_URL: choose another") from None
            await anyio.sleep(_TRY_AGAIN_S)
        except (OSError, RedisError):
            _refuse(fitness)
            await anyio.sleep(_TRY_AGAIN_S)
    values = {_text(name): _text(value) for name, value in config.items()}
    if values.get("maxmemory-policy", "noeviction") != "noeviction" and not settings.allow_unsafe_redis:
        raise Broken(
            f"Redis evicts ({values['maxmemory-policy']}): accepted payments could vanish. Set maxmemory-policy "
            "noeviction, or PENSTOCK_ALLOW_UNSAFE_REDIS=true where no money is at stake"
        )
    if values.get("appendonly", "yes") != "yes" and not settings.allow_unsafe_redis:
        raise Broken(
            "Redis runs without an append-only file: a 202 would not be on disk. Set appendonly yes, or "
            "PENSTOCK_ALLOW_UNSAFE_REDIS=true where no money is at stake"
        )
    await _claim(Scripts(redis), installation_check, fitness)


async def _claim(scripts: Scripts, installation_check: InstallationCheck, fitness: Fitness) -> None:
    """Nobody's Redis becomes ours; another's is refused, in words."""
    while True:
        try:
            await installation_check.look(scripts)
            return _refuse(fitness)
        except Unavailable:
            _refuse(fitness)
            await anyio.sleep(_TRY_AGAIN_S)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
