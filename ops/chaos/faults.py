"""How each fault is inflicted and healed: a context manager, entered at its moment and left when it is over.

Processes and stores are struck by signals and by their own commands, the bank by its control API. What heals runs also
when the campaign is interrupted. `Losses` remembers when Redis lost what it had: only then may what was accepted
be unknown to the gateway afterwards.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import anyio
import psutil
import psycopg
from anyio import to_thread
from redis import Redis

from ops.chaos import damage
from ops.chaos.environment import Environment
from ops.chaos.load import frail_cards
from ops.chaos.schedule import PARTITIONS, ChaosFault, Strike
from ops.statement import statement

REWIND_S = 1.0  # how much a Redis that is wound back loses
PATIENCE_S = 5.0
HALT_S = 0.7  # how long entries pile up unread before their streams are damaged; far below a lease
SPLIT_S = 0.3  # how long an old master still takes what the new one never hears of
MARGIN_S = 1.0  # a stalled bank rests so long beyond the end of what was sent just before
_AOF = "appendonlydir"


@dataclass(slots=True)
class Losses:
    """Moments (time.time()) from and to which Redis lost what it had taken."""

    spans: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStage:
    """What a fault works on."""

    rig: Environment
    losses: Losses
    http: aiohttp.ClientSession


Inflict = Callable[[FaultStage, Strike], AbstractAsyncContextManager[None]]


async def strike_out(stage: FaultStage, strike: Strike) -> None:
    """Inflict it, let it last, heal it."""
    async with INFLICT[strike.fault](stage, strike):
        await anyio.sleep(strike.lasting_s)


@asynccontextmanager
async def _kill(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """The next one may carry a failpoint; it dies, or stops and is continued by the rig."""
    stage.rig.kill(strike.target, failpoints=strike.failpoints)
    yield


@asynccontextmanager
async def _stop(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    stage.rig.stop(strike.target)
    yield


@asynccontextmanager
async def _bank_down(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    stage.rig.kill("bank", rest_s=strike.lasting_s)
    yield


@asynccontextmanager
async def _bank_stalled(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """Its connections stay open, and what is sent to it meanwhile waits in them for the moment it goes on."""
    began, least_s = time.monotonic(), stage.rig.plan.deadline_s + MARGIN_S
    with _frozen(stage.rig.child("bank").pid):
        yield
        await anyio.sleep(max(0.0, least_s - (time.monotonic() - began)))


@asynccontextmanager
async def _clock_wrong(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """Each offset for an equal share of the time; then the clock is right again."""

    async def step() -> None:
        for offset_s in strike.clock_s:
            stage.rig.set_clock(strike.target, offset_s)
            await anyio.sleep(strike.lasting_s / len(strike.clock_s))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
            yield
            tasks.cancel_scope.cancel()
    finally:
        stage.rig.set_clock(strike.target, 0)


@asynccontextmanager
async def _bank_rules(
    kind: str, times: int | None, slow_cards: bool, stage: FaultStage, strike: Strike
) -> AsyncIterator[None]:
    faults = f"{stage.rig.bank}/control/faults"
    rule: dict[str, Any] = {"kind": kind} | ({} if times is None else {"times": times})
    late_ms = round(stage.rig.plan.deadline_s * 1000) + 500
    rules = [rule | {"card_number": card, "latency_ms": late_ms} for card in frail_cards()] if slow_cards else [rule]
    for each in rules:
        with suppress(aiohttp.ClientError, TimeoutError):  # a bank that is only starting cannot be told
            await (await stage.http.post(faults, json=each)).read()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True), suppress(aiohttp.ClientError, TimeoutError):
            await (await stage.http.delete(faults)).read()


@asynccontextmanager
async def _redis_flushed(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    begin = time.time()
    await _told(stage, lambda redis: redis.flushall())
    stage.losses.spans.append((begin, time.time()))
    yield


@asynccontextmanager
async def _redis_cut(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    await _told(stage, lambda redis: redis.client_kill_filter(_type="normal", skipme=True))
    await _told(stage, lambda redis: redis.client_kill_filter(_type="pubsub"))
    yield


@asynccontextmanager
async def _redis_full(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    await _told(stage, lambda redis: redis.config_set("maxmemory", 1))
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await _told(stage, lambda redis: redis.config_set("maxmemory", 0))


@asynccontextmanager
async def _redis_killed(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    await to_thread.run_sync(stage.rig.redis.kill)
    try:
        yield
    finally:
        await _start(stage.rig.redis.start)


@asynccontextmanager
async def _redis_emptied(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    begin = time.time()
    await to_thread.run_sync(stage.rig.redis.kill)
    stage.losses.spans.append((begin, time.time()))
    shutil.rmtree(stage.rig.redis_folder / _AOF)
    try:
        yield
    finally:
        await _start(stage.rig.redis.start)


@asynccontextmanager
async def _redis_rewound(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """As a replica that had not heard the last second, and is the master now."""
    folder, begin = stage.rig.redis_folder, time.time()
    copy = folder / "a-second-ago"
    await to_thread.run_sync(partial(shutil.copytree, folder / _AOF, copy))
    await anyio.sleep(REWIND_S)
    await to_thread.run_sync(stage.rig.redis.kill)
    stage.losses.spans.append((begin, time.time()))
    shutil.rmtree(folder / _AOF)
    copy.rename(folder / _AOF)
    try:
        yield
    finally:
        await _start(stage.rig.redis.start)


@asynccontextmanager
async def _redis_stopped(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    with _frozen(stage.rig.redis.pid):
        yield


@asynccontextmanager
async def _postgres_stopped(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    with _frozen(stage.rig.postgres.pid):
        yield


@asynccontextmanager
async def _postgres_killed(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    await to_thread.run_sync(stage.rig.postgres.kill)
    try:
        yield
    finally:
        await _start(stage.rig.postgres.start)


@asynccontextmanager
async def _postgres_cut(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    def cut() -> None:
        with psycopg.connect(stage.rig.database, autocommit=True) as connection:
            connection.execute(statement("cut_connections"))

    await to_thread.run_sync(cut)
    yield


@asynccontextmanager
async def _redis_failed_over(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """The old master stays, as a replica that is seen through the connections that were open."""
    with anyio.CancelScope(shield=True):
        stage.losses.spans.append(await to_thread.run_sync(stage.rig.fail_over, SPLIT_S))
    yield


@asynccontextmanager
async def _redis_clock_back(stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """While a worker dies: its leases and its heartbeat are what nobody puts right."""
    process = stage.rig.child(strike.target).process
    stage.rig.kill(strike.target)
    await to_thread.run_sync(process.wait)
    await _told(stage, lambda redis: damage.step_back(redis, range(PARTITIONS)))
    yield


@asynccontextmanager
async def _stream_damaged(harm: damage.Damage, loses: bool, stage: FaultStage, strike: Strike) -> AsyncIterator[None]:
    """While the workers halt for a moment, so that some entries are unread and the damage is not beside the point."""
    begin = time.time()
    with stage.rig.halted("worker"):
        await anyio.sleep(HALT_S)
        await _told(stage, lambda redis: damage.damage(redis, harm, strike.partitions))
    if loses:
        stage.losses.spans.append((begin, time.time()))
    yield


async def _told(stage: FaultStage, tell: Callable[[Redis], object]) -> None:
    def told() -> None:
        with Redis.from_url(stage.rig.redis_url, socket_timeout=PATIENCE_S) as redis:
            tell(redis)

    await to_thread.run_sync(told)


async def _start(start: Callable[[], str]) -> None:
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(start)


class _frozen:
    """SIGSTOP for a server and its children, SIGCONT at the end."""

    def __init__(self, pid: int) -> None:
        server = psutil.Process(pid)
        server.send_signal(signal.SIGSTOP)  # first, so that it makes no more children
        self._family = [server, *server.children(recursive=True)]

    def __enter__(self) -> None:
        self._send(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _rules(kind: str, times: int | None = None, *, slow_cards: bool = False) -> Inflict:
    return partial(_bank_rules, kind, times, slow_cards)


def _damaged(harm: damage.Damage, *, loses: bool = False) -> Inflict:
    return partial(_stream_damaged, harm, loses)


F = ChaosFault

# fmt: off
INFLICT: Mapping[ChaosFault, Inflict] = {
    F.WORKER_KILLED:             _kill,
    F.WORKER_ASLEEP:             _stop,
    F.WORKER_DIES:               _kill,
    F.WORKER_SLEEPS:             _kill,
    F.WORKER_FAILS:              _kill,
    F.WORKER_CLOCK_WRONG:        _clock_wrong,
    F.EDGE_KILLED:               _kill,
    F.EDGE_ASLEEP:               _stop,
    F.EDGE_DIES:                 _kill,
    F.EDGE_CLOCK_WRONG:          _clock_wrong,
    F.BANK_FAILS:                _rules("fail_before"),
    F.BANK_SLOW:                 _rules("latency", slow_cards=True),
    F.BANK_SILENT:               _rules("drop_response", 60),
    F.BANK_FORGETFUL:            _rules("drop_key"),
    F.BANK_SILENT_AND_FORGETFUL: _rules("drop_key_and_response", 12),
    F.BANK_CONFUSED:             _rules("internal_error_after", 12),
    F.BANK_UNREADABLE:           _rules("unreadable_answer", 30),
    F.BANK_MISMATCHED:           _rules("mismatched_answer", 12),
    F.BANK_DOWN:                 _bank_down,
    F.BANK_STALLED:              _bank_stalled,
    F.REDIS_FLUSHED:             _redis_flushed,
    F.REDIS_KILLED:              _redis_killed,
    F.REDIS_EMPTIED:             _redis_emptied,
    F.REDIS_REWOUND:             _redis_rewound,
    F.REDIS_FULL:                _redis_full,
    F.REDIS_STOPPED:             _redis_stopped,
    F.REDIS_CUT:                 _redis_cut,
    F.REDIS_FAILED_OVER:         _redis_failed_over,
    F.REDIS_CLOCK_BACK:          _redis_clock_back,
    F.STREAM_TRIMMED:            _damaged(damage.trim, loses=True),
    F.STREAM_DELETED:            _damaged(damage.delete, loses=True),
    F.STREAM_SKIPPED:            _damaged(damage.skip),
    F.STREAM_DISOWNED:           _damaged(damage.disown),
    F.STREAM_UNGROUPED:          _damaged(damage.ungroup),
    F.POSTGRES_STOPPED:          _postgres_stopped,
    F.POSTGRES_KILLED:           _postgres_killed,
    F.POSTGRES_CUT:              _postgres_cut,
}
# fmt: on
