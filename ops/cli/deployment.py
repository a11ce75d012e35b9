"""A deployment as its stores show it: what is wrong with it, what runs there, what waits. For `penstock status`.

Needs the addresses of Redis and Postgres and no keys, changes nothing, and asks no process. Each finding says what to
do about it; whatever one store does not tell, the other still does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import dict_row
from redis import Redis
from redis.exceptions import RedisError

from engine.accounts.merchants import refuse_local_keys
from engine.errors import PenstockError, Unavailable
from engine.ledger.session import connect
from engine.ledger.statement import statement as engine_statement
from engine.streams import keys
from ops.assembly.settings import Settings
from ops.audit.backlog import PartitionBacklog, read_backlog
from ops.cli.master_key_store import read_keys
from ops.statement import statement

_PATIENCE_S = 5.0
_REDIS_MIN, _POSTGRES_MIN = 7, 14


class DeploymentVerdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFinding:
    """One thing that was looked at."""

    name: str
    verdict: DeploymentVerdict
    detail: str


@dataclass(slots=True, kw_only=True)
class Deployment:
    """What a look found. `processes`: kind to names; `waiting`: what is not done yet, by kind."""

    installation: str | None = None
    findings: list[DeploymentFinding] = field(default_factory=list)
    processes: dict[str, list[str]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        return all(finding.verdict is not DeploymentVerdict.WRONG for finding in self.findings)

    def tell(self, name: str, verdict: DeploymentVerdict, detail: str) -> None:
        self.findings.append(DeploymentFinding(name=name, verdict=verdict, detail=detail))


def look(settings: Settings) -> Deployment:
    """One look. Raises nothing that a store may say: it is a finding."""
    seen = Deployment()
    _guarded(seen, "postgres", lambda: _look_at_postgres(seen, settings))
    _guarded(seen, "redis", lambda: _look_at_redis(seen, settings))
    return seen


def _guarded(seen: Deployment, name: str, look_at: Callable[[], None]) -> None:
    try:
        look_at()
    except (psycopg.Error, RedisError, OSError, PenstockError) as error:
        words = error.detail if isinstance(error, Unavailable) else str(error).strip()
        seen.tell(name, DeploymentVerdict.WRONG, words or type(error).__name__)


def _look_at_postgres(seen: Deployment, settings: Settings) -> None:
    with connect(
        settings.database_url, connect_timeout=int(_PATIENCE_S), autocommit=True, row_factory=dict_row
    ) as ledger:
        version = ledger.info.server_version
        if version // 10_000 < _POSTGRES_MIN:
            seen.tell(
                "postgres", DeploymentVerdict.WRONG, f"version {version // 10_000}: {_POSTGRES_MIN} or newer is needed"
            )
        else:
            seen.tell(
                "postgres",
                DeploymentVerdict.OK,
                f"version {version // 10_000}.{version % 10_000}, schema of this version",
            )
        row: dict[str, Any] | None = ledger.execute(engine_statement("installation")).fetchone()
        if row is None:
            return seen.tell("installation", DeploymentVerdict.WRONG, "there is none: run `penstock migrate`")
        seen.installation = row["id"]
        if row["partitions"] == settings.partitions:
            seen.tell("installation", DeploymentVerdict.OK, f"{row['id']}, {row['partitions']} partitions")
        else:
            detail = f"it has {row['partitions']} partitions, and PENSTOCK_PARTITIONS is {settings.partitions}"
            seen.tell("installation", DeploymentVerdict.WRONG, detail)
        _judge_safety(seen, tuple(ledger.execute(engine_statement("safety")).fetchone().values()))  # type: ignore[union-attr]
        _judge_clock(seen, "postgres", ledger.execute(engine_statement("ledger_time")).fetchone()["at"], settings)  # type: ignore[index]
        waiting: dict[str, Any] = ledger.execute(statement("operations_open")).fetchone()  # type: ignore[assignment]
    _judge_waiting(seen, waiting)
    _judge_processes(seen, settings)
    if settings.env == "production":
        _guarded(seen, "keys", lambda: refuse_local_keys(settings.database_url))


def _judge_safety(seen: Deployment, safety: tuple[str, ...]) -> None:
    if safety == ("on", "on"):
        return seen.tell("commits", DeploymentVerdict.OK, "are on disk (fsync, synchronous_commit)")
    detail = f"fsync={safety[0]}, synchronous_commit={safety[1]}: a power cut would lose payments; turn both on"
    seen.tell("commits", DeploymentVerdict.WRONG, detail)


def _judge_clock(seen: Deployment, store: str, at: datetime, settings: Settings) -> None:
    skew_ms = round((at.timestamp() - time.time()) * 1000)
    wrong = abs(skew_ms) > settings.clock_skew_max_ms
    detail = f"{abs(skew_ms)} ms {'ahead of' if skew_ms > 0 else 'behind'} ours" + (
        "; set both by NTP" if wrong else ""
    )
    seen.tell(f"clock of {store}", DeploymentVerdict.WRONG if wrong else DeploymentVerdict.OK, detail)


def _judge_waiting(seen: Deployment, row: dict[str, Any]) -> None:
    seen.waiting |= {name: int(row[name]) for name in ("open", "in_doubt", "review")}
    if row["review"]:
        detail = f"{row['review']} operations wait for a person: `penstock payment --help`"
        seen.tell("review", DeploymentVerdict.WARNING, detail)
    if row["in_doubt"]:
        detail = f"{row['in_doubt']} operations have no answer of the bank; the oldest since {row['oldest_s']:.0f} s"
        seen.tell("in doubt", DeploymentVerdict.WARNING, detail)


def _judge_processes(seen: Deployment, settings: Settings) -> None:
    """Those that hold keys tell the ledger that they live; auditors hold none."""
    _, holders = read_keys(settings.database_url)
    for holder in holders:
        if holder.silent_s < settings.key_holder_s:
            seen.processes.setdefault(holder.kind, []).append(holder.name)
    for kind, lost in (
        ("edge", "nothing is accepted"),
        ("worker", "what is accepted waits"),
        ("dispatcher", "no webhook is delivered"),
    ):
        names = seen.processes.get(kind, [])
        without = DeploymentVerdict.WARNING if kind == "dispatcher" else DeploymentVerdict.WRONG
        verdict = DeploymentVerdict.OK if names else without
        seen.tell(f"{kind}s", verdict, f"{len(names)} run" if names else f"none runs: {lost}")


def _look_at_redis(seen: Deployment, settings: Settings) -> None:
    with Redis.from_url(
        settings.redis_url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S, protocol=2
    ) as redis:
        about: dict[str, Any] = redis.info("server")
        version = str(about.get("valkey_version") or about["redis_version"])
        new = int(version.partition(".")[0]) >= _REDIS_MIN
        seen.tell(
            "redis",
            DeploymentVerdict.OK if new else DeploymentVerdict.WRONG,
            f"version {version}" + ("" if new else ": 7.0 or newer"),
        )
        owner: Any = redis.get(keys.INSTALLATION)
        if seen.installation and owner and owner.decode(errors="replace") != seen.installation:
            seen.tell("redis belongs", DeploymentVerdict.WRONG, "to another installation: correct PENSTOCK_REDIS_URL")
        _judge_writes(seen, redis)
        _judge_configuration(seen, redis)
        seconds, microseconds = redis.time()
        at = datetime.fromtimestamp(seconds + microseconds / 1_000_000).astimezone()
        _judge_clock(seen, "redis", at, settings)
    _judge_partitions(seen, read_backlog(settings.redis_url, settings.partitions), settings)


def _judge_writes(seen: Deployment, redis: Redis) -> None:
    """By the script that an edge asks with."""
    try:
        redis.eval(files("engine.streams").joinpath("lua/probe-1.lua").read_text(), 1, keys.PROBE, "1000")
        seen.tell("writes", DeploymentVerdict.OK, "Redis takes them")
    except RedisError as error:
        seen.tell("writes", DeploymentVerdict.WRONG, f"Redis refuses them ({error}): nothing can be accepted")


def _judge_configuration(seen: Deployment, redis: Redis) -> None:
    try:
        found: dict[str, str] = redis.config_get("maxmemory-policy", "appendonly")  # type: ignore[assignment]
    except RedisError:
        detail = "our user may not see its configuration: make sure of maxmemory-policy noeviction and appendonly yes"
        return seen.tell("redis keeps", DeploymentVerdict.WARNING, detail)
    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes"}
    wrong = [f"{name} is {found.get(name)}, set {value}" for name, value in wanted.items() if found.get(name) != value]
    detail = "; ".join(wrong) + ": accepted payments could vanish" if wrong else "what it accepted (AOF, no eviction)"
    seen.tell("redis keeps", DeploymentVerdict.WRONG if wrong else DeploymentVerdict.OK, detail)


def _judge_partitions(seen: Deployment, rows: list[PartitionBacklog], settings: Settings) -> None:
    seen.waiting |= {
        "backlog": sum(row.backlog for row in rows),
        "dead_letters": sum(row.dead_letters for row in rows),
    }
    orphans = [str(row.partition) for row in rows if row.owner is None]
    full = [str(row.partition) for row in rows if row.backlog >= settings.backlog_max]
    detail = f"without a worker: {', '.join(orphans)}" if orphans else "each has a worker"
    seen.tell("partitions", DeploymentVerdict.WRONG if orphans else DeploymentVerdict.OK, detail)
    if full:
        seen.tell("backlog", DeploymentVerdict.WRONG, f"full (PENSTOCK_BACKLOG_MAX) in partitions {', '.join(full)}")
    if seen.waiting["dead_letters"]:
        detail = f"{seen.waiting['dead_letters']} wait for a person: `penstock dead-letters list`"
        seen.tell("dead letters", DeploymentVerdict.WARNING, detail)
