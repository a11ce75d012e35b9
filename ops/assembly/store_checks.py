"""What the promises rest on, looked at once, at the start, with plain blocking connections: Redis keeps what it is told
(append-only file, no eviction) and lets our user do what we need, Postgres syncs its commits, lets us write, and the
database is an installation of ours with as many partitions as we were told.

Raises Broken for what somebody must change, in words; Unavailable for what may come by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from engine.errors import Broken
from engine.ledger.refusal import postgres_place
from engine.ledger.session import NO_TABLES, connect
from engine.ledger.statement import statement
from engine.streams.permission import CHANNELS, NEEDED, granting, lacking
from engine.streams.refusal import CLUSTER, REPLICA, SENTINEL, redis_place, redis_refusal, redis_user
from engine.streams.scripts import sources
from ops.assembly.settings import Settings

log = structlog.get_logger()

_PATIENCE_S = 2
_REDIS_VERSION_MIN = 7  # the oldest the scripts are tried with
_MODES = {"cluster": CLUSTER, "sentinel": SENTINEL}
_REPLICAS = ("replica", "slave")


def check_postgres(settings: Settings) -> tuple[str, int]:
    """The installation's id and number of partitions."""
    place = postgres_place(settings.database_url)
    with connect(settings.database_url, autocommit=True, connect_timeout=_PATIENCE_S) as ledger:
        missing = ledger.execute(statement("rights")).fetchall()
        if missing:
            lacks = "; ".join(f"{', '.join(rights)} on {table}" for table, rights in missing)
            raise Broken(
                f"{place} cannot be used: permission denied: our user lacks {lacks}: GRANT SELECT, INSERT, UPDATE, "
                "DELETE ON ALL TABLES IN SCHEMA public, and SELECT ON ALL SEQUENCES IN SCHEMA public"
            )
        (standby,) = ledger.execute(statement("standby")).fetchone() or (False,)
        if standby:
            raise Broken(
                f"{place} cannot be used: it is a standby, which takes no writes: put its primary into "
                "PENSTOCK_DATABASE_URL"
            )
        row = ledger.execute(statement("installation")).fetchone()
        safety = ledger.execute(statement("safety")).fetchone()
        renumber = ledger.execute(statement("events_renumber")).fetchone()
    if row is None:
        raise Broken(NO_TABLES)
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


def check_redis(settings: Settings) -> None:
    """That it is a Redis for us, keeps what it takes, and lets us do what we need."""
    with reaching(settings.redis_url) as redis:
        _judge_persistence(redis, settings)
        _judge_permissions(redis, settings.redis_url)


@contextmanager
def reaching(url: str) -> Iterator[Redis]:
    """A client of a Redis that is of the right kind and version. What it raises inside is told in words, too."""
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    database = options.pop("db", 0)
    pool = ConnectionPool(  # no database is chosen before we know who answers: a Sentinel and a cluster have none
        **options,
        db=0,
        protocol=2,
        socket_timeout=_PATIENCE_S,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        with Redis(connection_pool=pool, single_connection_client=True) as redis:
            _judge_kind(redis, redis_place(url))
            if database:
                redis.execute_command("SELECT", database)
            yield redis
    except (RedisError, OSError) as error:
        raise redis_refusal(error, url).error from error
    finally:
        pool.disconnect()


def _judge_kind(redis: Redis, place: str) -> None:
    """By the greeting, which every user may ask for."""
    reply: Any = redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=False)
    about = {_text(name): _text(value) for name, value in pairs if not isinstance(value, list)}
    if about.get("mode") in _MODES:
        raise Broken(f"{place} cannot be used: {_MODES[about['mode']]}")
    if about.get("role") in _REPLICAS:
        raise Broken(f"{place} cannot be used: {REPLICA}")
    major = about.get("version", "").partition(".")[0]
    if major.isdecimal() and int(major) < _REDIS_VERSION_MIN:
        raise Broken(f"{place} is version {about['version']}: Penstock needs Redis or Valkey 7.0 or newer")


def _judge_persistence(redis: Redis, settings: Settings) -> None:
    kept = _kept(redis)
    if kept is None:
        words = (
            f"{redis_place(settings.redis_url)}: NOPERM: our user may use neither CONFIG GET nor INFO, so it cannot be "
            f"checked that it keeps what it takes (appendonly yes, maxmemory-policy noeviction): "
            + granting(redis_user(settings.redis_url))
        )
        if not settings.allow_unsafe_redis:
            raise Broken(f"{words}, or set PENSTOCK_ALLOW_UNSAFE_REDIS=true where no money is at stake")
        log.warning("redis_not_checked", detail=words)
        return
    policy, appendonly = kept
    if settings.allow_unsafe_redis:
        return
    if policy != "noeviction":
        raise Broken(
            f"Redis evicts ({policy}): accepted payments could vanish. Set maxmemory-policy "
            "noeviction, or PENSTOCK_ALLOW_UNSAFE_REDIS=true where no money is at stake"
        )
    if appendonly != "yes":
        raise Broken(
            "Redis runs without an append-only file: a 202 would not be on disk. Set appendonly yes, or "
            "PENSTOCK_ALLOW_UNSAFE_REDIS=true where no money is at stake"
        )


def _kept(redis: Redis) -> tuple[str, str] | None:
    """Its maxmemory-policy and appendonly; None when nobody tells us. A managed Redis keeps CONFIG to itself."""
    try:
        config = {
            _text(name): _text(value) for name, value in redis.config_get("maxmemory-policy", "appendonly").items()
        }
        return config.get("maxmemory-policy", "noeviction"), config.get("appendonly", "yes")
    except ResponseError:
        pass
    try:
        memory, persistence = redis.info("memory"), redis.info("persistence")
    except ResponseError:
        return None
    return str(memory.get("maxmemory_policy", "noeviction")), "yes" if persistence.get("aof_enabled", 1) else "no"


def _judge_permissions(redis: Redis, url: str) -> None:
    source, _ = sources()["permits"]
    asked = (*NEEDED, *CHANNELS)
    missing = redis.evalsha(redis.script_load(source), 0, *asked)
    if words := lacking((number for number in missing if number < len(NEEDED)), redis_user(url)):
        raise Broken(
            f"{redis_place(url)} cannot be used: {words.replace('SETUSER USER', f'SETUSER {redis_user(url)}')}"
        )
    if missing:
        log.warning(
            "redis_channels_not_permitted",
            detail=f"{redis_place(url)}: NOPERM: our user may not use the channels penstock:reply:*, so clients that "
            "wait for an outcome hear of it up to 250 ms late: grant &penstock:*",
        )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value if value is not None else "")
