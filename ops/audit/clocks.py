"""The clocks of the ledger, of Redis and of this process, and what a clock that stepped back leaves behind in Redis.

Nothing that guards money rests on one clock alone; but what is due waits for the ledger's, an expiry for all of them,
and a dead worker's heartbeat that lies ahead keeps its partitions until somebody cuts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import psycopg
from redis import Redis

from engine.contracts.connector import Clock
from engine.ledger.statement import statement
from engine.streams import keys
from ops.audit.breach import Breach, breach

SKEW_MAX_S = 2.0  # as PENSTOCK_CLOCK_SKEW_MAX_MS by default
_LEASE_MAX_MS = 300_000  # the longest that PENSTOCK_LEASE_MS may be


def look(ledger: psycopg.Connection, redis: Redis, partitions: int, wall: Clock) -> Iterator[Breach]:
    """Clocks that differ by more than they may, and leases and heartbeats that reach further ahead than any can."""
    ahead_s = {
        "this process": (0.0, 0.0),
        "the ledger": _compared(wall, lambda: _ledger_s(ledger)),
        "Redis": _compared(wall, lambda: _redis_s(redis)),
    }
    for (one, (one_s, one_unsure_s)), (other, (other_s, other_unsure_s)) in combinations(ahead_s.items(), 2):
        if abs(other_s - one_s) - one_unsure_s - other_unsure_s > SKEW_MAX_S:
            yield breach("clocks_agree", f"the clock of {other} is {other_s - one_s:+.1f} s from that of {one}")
    now_ms = _redis_s(redis) * 1000
    beats: Any = redis.zrangebyscore(keys.WORKERS, f"({now_ms + SKEW_MAX_S * 1000:.0f}", "+inf", withscores=True)
    for worker, beat_ms in beats:
        detail = f"the heartbeat of {worker.decode(errors='replace')} lies {(beat_ms - now_ms) / 1000:.0f} s ahead"
        yield breach("clocks_agree", detail)
    pipeline = redis.pipeline(transaction=False)
    for partition in range(partitions):
        pipeline.pttl(keys.lease(partition))
    for partition, left_ms in enumerate(pipeline.execute()):
        if left_ms > _LEASE_MAX_MS:
            yield breach("leases_lapse", f"the lease of partition {partition} lasts {left_ms / 1000:.0f} s more")


def _compared(wall: Clock, told_s: Callable[[], float]) -> tuple[float, float]:
    """How far a clock is ahead of this process's, and how uncertain that is, in seconds."""
    asked_s = wall().timestamp()
    there_s = told_s()
    answered_s = wall().timestamp()
    return there_s - (asked_s + answered_s) / 2, (answered_s - asked_s) / 2


def _ledger_s(ledger: psycopg.Connection) -> float:
    row = ledger.execute(statement("ledger_time")).fetchone()
    return 0.0 if row is None else float(row[0].timestamp())


def _redis_s(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6
