"""The clocks of a process and its stores: compared once at the start, and again and again while it runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial

from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.errors import Broken, Unavailable
from engine.ledger.database import borrowed
from engine.ledger.statement import statement
from engine.ledger.store_clock import ClockMetrics, ClockWatch, Store, StoreClock, Told
from engine.resilience.fitness import Fitness
from ops.assembly.process import wall_clock
from ops.assembly.settings import Settings

_COMPARE_EVERY_S = 2.0  # a clock that was set wrong is noticed within that; a look costs two small round trips
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former goes on while the machine is suspended


def monotonic() -> float:
    """Seconds that only go forward."""
    return time.clock_gettime(_STEADY)


def store_clock(settings: Settings) -> StoreClock:
    """The clock of this process, before any store has told its own."""
    return StoreClock(wall_clock(settings), monotonic, settings.clock_skew_max_ms / 1000)


async def compared(
    settings: Settings,
    clock: StoreClock,
    fitness: Fitness,
    meters: ClockMetrics,
    pool: AsyncConnectionPool,
    redis: Redis | None = None,
) -> ClockWatch:
    """Compares the clocks once, and returns the watch that goes on with it and tells the process's fitness. Raises
    Broken when ours is wrong at the start."""
    stores: dict[Store, Told] = {Store.LEDGER: partial(ledger_time, pool)}
    if redis is not None:
        stores[Store.REDIS] = partial(redis_time, redis)
    every_s = min(settings.lease_ms / 1000 / 5, _COMPARE_EVERY_S)
    watch = ClockWatch(clock, stores, monotonic, every_s, fitness, meters.show)
    await watch.run_once()
    if clock.misfit is not None:
        raise Broken(clock.misfit)
    return watch


async def ledger_time(pool: AsyncConnectionPool) -> datetime:
    """Postgres's clock. Raises what psycopg raises."""
    async with borrowed(pool) as connection:
        row = await (await connection.execute(statement("ledger_time"))).fetchone()
    if row is None:
        raise Broken("Postgres does not tell its time")
    told: datetime = row[0]
    return told


async def redis_time(redis: Redis) -> datetime:
    """Redis's clock. Raises Unavailable."""
    try:
        seconds, microseconds = await redis.time()
    except (RedisError, OSError, RuntimeError) as error:
        raise Unavailable("store_unavailable", f"Redis: {type(error).__name__}") from error
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))
