"""What waits in Redis, partition by partition: the same figures that redis-cli gives, in one table.

Backlog is XLEN, pending the count of XPENDING, lag their difference: exact, because settled entries are deleted
(XINFO GROUPS shows no lag after deletes out of order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from engine.streams import keys
from engine.streams.refusal import redis_refusal
from ops.terminal import print_table

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionBacklog:
    """One partition's streams. `owner` is the worker that holds the lease, None when nobody does; `lease_ms` is what is
    left of it."""

    partition: int
    stream: str
    backlog: int
    pending: int
    lag: int
    owner: str | None
    lease_ms: int | None
    dead_letters: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_backlog(redis_url: str, partitions: int) -> list[PartitionBacklog]:
    """All partitions in one round trip. Raises Broken or Unavailable when Redis refuses or is away."""
    patience = {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}
    try:
        with Redis.from_url(redis_url, **patience, protocol=2, retry=Retry(NoBackoff(), 0)) as redis:
            pipeline = redis.pipeline(transaction=False)
            for partition in range(partitions):
                pipeline.xlen(keys.commands(partition))
                pipeline.xpending(keys.commands(partition), keys.GROUP)
                pipeline.get(keys.lease(partition))
                pipeline.pttl(keys.lease(partition))
                pipeline.xlen(keys.dead(partition))
            replies = pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception) and not _no_group(reply):
                    raise reply
    except (OSError, RedisError) as error:
        raise redis_refusal(error, redis_url).error from error
    return [_row(partition, *replies[5 * partition : 5 * partition + 5]) for partition in range(partitions)]


def _no_group(reply: Any) -> bool:
    """Before the first command there is neither a stream nor a group."""
    return isinstance(reply, ResponseError) and str(reply).startswith("NOGROUP")


def _row(partition: int, length: Any, pending: Any, lease: Any, left_ms: Any, dead: Any) -> PartitionBacklog:
    waiting = 0 if _no_group(pending) else int(pending["pending"])
    return PartitionBacklog(
        partition=partition,
        stream=keys.commands(partition),
        backlog=length,
        pending=waiting,
        lag=length - waiting,
        owner=lease.decode(errors="replace").rpartition(":")[0] if lease else None,
        lease_ms=left_ms if lease and left_ms >= 0 else None,
        dead_letters=dead,
    )


def print_backlog(rows: Sequence[PartitionBacklog]) -> None:
    """As a table, with a line of totals."""
    totals = [str(sum(getattr(row, name) for row in rows)) for name in ("backlog", "pending", "lag")]
    lines = [(row.stream, str(row.backlog), str(row.pending), str(row.lag), row.owner or "nobody") for row in rows]
    print_table(("stream", "backlog>", "pending>", "lag>", "owner~"), lines, footer=("all", *totals, ""))
