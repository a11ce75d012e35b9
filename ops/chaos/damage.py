"""Damage to the command streams and to what Redis knows of the workers: by single commands, as a slip of the hand does.

A stream that loses its entries keeps their records, so that the gateway still calls them accepted. One that keeps them
may have nobody who reads them: skipped by the group, or delivered to a consumer that is no more. And where the clock of
Redis steps back, what had a time to live lives that much longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from engine.streams import keys

STRAY = "chaos-stray"  # a reader whose worker is dead, or whose reply was lost
READ_MAX = 10_000
STEP_MS = 2 * 3600 * 1000  # how far the clock steps back

Damage = Callable[[Redis, str], Any]


def damage(redis: Redis, harm: Damage, partitions: Iterable[int]) -> None:
    """To the streams of these partitions. Before its first command a partition has nothing to be damaged."""
    for partition in partitions:
        with suppress(ResponseError):
            harm(redis, keys.commands(partition))


def trim(redis: Redis, stream: str) -> None:
    """All entries are gone, also those that are pending; stream and group stay."""
    redis.xtrim(stream, maxlen=0, approximate=False)


def delete(redis: Redis, stream: str) -> None:
    """All entries are gone, with the group."""
    redis.delete(stream)


def skip(redis: Redis, stream: str) -> None:
    """The group has delivered all there is, it believes: nobody was given what had not been read."""
    redis.xgroup_setid(stream, keys.GROUP, "$")


def disown(redis: Redis, stream: str) -> None:
    """What was delivered is pending no more, for nobody has it. What had not been read is delivered first."""
    redis.xreadgroup(keys.GROUP, STRAY, {stream: ">"}, count=READ_MAX)
    consumers: Any = redis.xinfo_consumers(stream, keys.GROUP)
    for consumer in consumers:
        if consumer["pending"]:
            redis.xgroup_delconsumer(stream, keys.GROUP, consumer["name"])


def ungroup(redis: Redis, stream: str) -> None:
    """The group is gone, with all it knew of what was delivered and to whom; the entries stay."""
    redis.xgroup_destroy(stream, keys.GROUP)


def step_back(redis: Redis, partitions: Iterable[int]) -> None:
    """Redis's clock steps back: leases hold, and heartbeats lie, that much further ahead. The living put theirs right
    at their next beat; those of the dead stay."""
    with redis.pipeline(transaction=True) as pipeline:
        for partition in partitions:
            pipeline.pexpire(keys.lease(partition), STEP_MS, gt=True)
        workers: Any = redis.zrange(keys.WORKERS, 0, -1)
        for worker in workers:
            pipeline.zincrby(keys.WORKERS, STEP_MS, worker)
        pipeline.execute()
