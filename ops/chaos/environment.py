"""The rig: a stack in a folder of its own whose every part can be killed, stopped and brought back.

Like `penstock up`, but held in this process: the next start of a child can be armed with failpoints, and a store can be
stopped, emptied or wound back between two starts. The bank has a Postgres of its own, because it is somebody else's
house: what strikes ours must not strike it. Blocking work runs in threads; the shop's load runs in this loop.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
from anyio import to_thread

from bank.simulator.settings import LOG_LEVELS
from engine.ledger.migrate import migrate, seed_local
from ops.chaos.failover import Span, fail_over
from ops.chaos.schedule import PARTITIONS
from ops.stack.address import any_free_port
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.stack.ephemeral_stack import StackFailed
from ops.stack.supervisor import Child, Program, Supervisor

LEASE_MS = 2000  # short, so that take-overs fit between two strikes
SEND_WINDOW_MS = 1000
BANK_SLACK_MS = 2000  # an attempt's time above the bank's worst latency: this machine is busy
READY_S = 60.0
STOP_S = 15.0
TICK_S = 0.1
FORMER_MAX = 5  # old masters of Redis that stay: ending one would cut the connections that must find out by themselves
_KEPT = "PENSTOCK_REDIS_SERVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentPlan:
    """What to raise. `attempt_timeout_ms` must exceed the bank's worst latency, or attempts overlap there."""

    workers: int
    edges: int
    bank_failure_rate: float
    bank_latency_ms: tuple[int, int]
    cards: int
    lease_ms: int = LEASE_MS
    send_window_ms: int = SEND_WINDOW_MS
    attempt_timeout_ms: int = 0  # 0 stands for the worst latency and the slack

    @property
    def attempt_ms(self) -> int:
        return self.attempt_timeout_ms or self.bank_latency_ms[1] + BANK_SLACK_MS

    @property
    def deadline_s(self) -> float:
        """From an attempt's commit to its end."""
        return (self.send_window_ms + self.attempt_ms) / 1000


class Environment:
    """Made by `raised`; `folder` has every log."""

    def __init__(self, plan: EnvironmentPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.postgres = EmbeddedPostgres(folder / "ledger", port=any_free_port())
        self.bank_postgres = EmbeddedPostgres(folder / "bank", port=any_free_port())
        self.redis_folder = folder / "redis"
        self.redis = self._a_redis()
        self._former_redis: list[EmbeddedRedis] = []
        self.database = self.bank_database = self.redis_url = ""
        self.ports = {name: any_free_port() for name in self._names()}
        self.edges = [f"http://127.0.0.1:{self.ports[name]}" for name in self.ports if name.startswith("edge")]
        self.bank = f"http://127.0.0.1:{self.ports['bank']}"
        self._keys = {
            f"PENSTOCK_{name}_KEY": base64.b64encode(secrets.token_bytes(32)).decode()
            for name in ("MASTER", "FINGERPRINT")
        }
        self._armed: dict[str, str] = {}
        self._asleep_since: dict[int, float] = {}
        self._struck: set[int] = set()  # pids that sleep for a strike of their own
        self._supervisor = Supervisor(self._note)
        self._serial = 0
        self._strangers = psutil.Process().children(recursive=True)  # whoever raises us may have children of his own
        self.left_over: list[str] = []  # known once everything was stopped

    @property
    def bank_log(self) -> Path:
        return self._log("bank")

    def child(self, name: str) -> Child:
        return next(child for child in self._supervisor.children if child.program.name == name)

    def kill(self, name: str, rest_s: float = 0.2, failpoints: str = "") -> None:
        """SIGKILL; the next start, after that long, carries the failpoints."""
        self._armed[name] = failpoints
        self.child(name).kill(rest_s)

    def stop(self, name: str) -> None:
        """SIGSTOP. `supervise` continues it when it has slept for two leases."""
        self._struck.add(self.child(name).pid)
        self.child(name).process.send_signal(signal.SIGSTOP)

    def wake(self, name: str) -> None:
        """SIGCONT."""
        self._struck.discard(self.child(name).pid)
        self.child(name).process.send_signal(signal.SIGCONT)

    @contextmanager
    def halted(self, role: str) -> Iterator[None]:
        """All of a role stand still meanwhile. Those that slept before, or were put to sleep meanwhile, sleep on."""
        awake = [child.process for child in self._children(role) if not _is_stopped(child.pid)]
        for process in awake:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in awake:
                if process.pid not in self._struck:
                    process.send_signal(signal.SIGCONT)

    def set_clock(self, name: str, offset_s: float) -> None:
        """How wrong the clock of a worker or an edge is, in seconds; within a twentieth of a second."""
        draft = self.folder / f"{name}.clock.new"
        draft.write_text(f"{offset_s:.3f}")
        draft.rename(self._clock(name))

    def fail_over(self, split_s: float) -> Span:
        """Another Redis becomes the master; the old one lives on as its replica, with all its connections. Returns from
        when to when what the old one took is lost. Raises EmbeddedError, Redis' errors."""
        self._serial += 1
        self.redis_folder, folder = self.folder / f"redis-{self._serial}", self.redis_folder
        heir, old = self._a_redis(), self.redis
        try:
            span = fail_over(old, heir, split_s)
        except BaseException:
            heir.kill()
            self.redis_folder = folder
            raise
        self.redis = heir
        self._former_redis.append(old)
        while len(self._former_redis) > FORMER_MAX:
            self._former_redis.pop(0).kill()
        return span

    async def supervise(self) -> None:
        """For life: start again who died, continue who has slept past the lease."""
        while True:
            await to_thread.run_sync(self._supervisor.run_once)
            self._wake()
            await anyio.sleep(TICK_S)

    async def whole(self) -> None:
        """Returns when every child is ready. Raises StackFailed when one is not in time."""
        patience = time.monotonic() + READY_S
        while not await to_thread.run_sync(self._all_ready):
            if time.monotonic() > patience:
                raise StackFailed(f"not every process came back within {READY_S:.0f} s: see {self.folder}")
            await anyio.sleep(TICK_S)

    def start(self) -> None:
        """Everything, in the order of need; returns when all of it is ready."""
        plan = self.plan
        for name in self.ports:
            role = name.partition("-")[0]
            url = f"http://127.0.0.1:{self.ports[name]}"
            self._supervisor.start(
                Program(
                    name=name,
                    role=role,
                    port=self.ports[name],
                    command=(sys.executable, "-P", "-m", "ops.cli.main", role),
                    environ=lambda name=name, role=role: self._environ(name, role),  # type: ignore[misc]
                    ready_url=f"{url}/health" if role == "bank" else f"{url}/readyz",
                    log=self._log(name),
                    patience_s=STOP_S,
                )
            )
        patience = time.monotonic() + READY_S
        while self._supervisor.starting():
            if time.monotonic() > patience:
                raise StackFailed(f"{plan} was not ready within {READY_S:.0f} s: see {self.folder}")
            time.sleep(TICK_S)

    def start_stores(self) -> None:
        with ThreadPoolExecutor() as threads:
            starting = [threads.submit(server.start) for server in (self.postgres, self.bank_postgres, self.redis)]
            self.redis_url = [started.result() for started in starting][-1]
        self.database, self.bank_database = self.postgres.dsn("penstock"), self.bank_postgres.dsn("penstock_bank")
        migrate(self.database, PARTITIONS)
        seed_local(self.database)

    def close(self) -> None:
        """End everything in order; what is left of it afterwards is killed and told."""
        family = [child for child in psutil.Process().children(recursive=True) if child not in self._strangers]
        for child in self._supervisor.children:
            child.signal_group(signal.SIGCONT)
        for role in ("edge", "worker", "bank"):
            self._supervisor.stop(role, lambda: False)
        self._supervisor.close()
        for redis in (self.redis, *self._former_redis):
            redis.stop()
        for server in (self.postgres, self.bank_postgres):
            server.stop()
        _, left = psutil.wait_procs(family, timeout=2)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.left_over = [f"process {process.pid} was still there after the stack had stopped" for process in left]

    def _all_ready(self) -> bool:
        return all([not child.ended and child.probe() for child in self._supervisor.children])

    def _wake(self) -> None:
        """A child may stop itself at a failpoint: whoever sleeps for two leases has lost his. The bank has no lease."""
        ours = [*self._children("worker"), *self._children("edge")]
        asleep = {child.pid: child for child in ours if _is_stopped(child.pid)}
        now = time.monotonic()
        self._asleep_since = {pid: self._asleep_since.get(pid, now) for pid in asleep}
        for pid, since in self._asleep_since.items():
            if now - since > 2 * self.plan.lease_ms / 1000:
                self.wake(asleep[pid].program.name)

    def _children(self, role: str) -> list[Child]:
        return [child for child in self._supervisor.children if child.program.role == role]

    def _a_redis(self) -> EmbeddedRedis:
        return EmbeddedRedis(self.redis_folder, server=os.environ.get(_KEPT), port=any_free_port())

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def _note(self, text: str) -> None:
        with (self.folder / "rig.log").open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def _names(self) -> list[str]:
        edges = [f"edge-{number + 1}" for number in range(self.plan.edges)]
        return ["bank", *edges, *(f"worker-{number + 1}" for number in range(self.plan.workers))]

    def _environ(self, name: str, role: str) -> Mapping[str, str]:
        """Asked at each start. Nothing of the caller's variables reaches a child: it must never meet a real store."""
        plan = self.plan
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")}
        if role == "bank":
            return inherited | {
                "PORT": str(self.ports[name]),
                "PENSTOCK_BANK_DATABASE_URL": self.bank_database,
                "PENSTOCK_BANK_CONTROL": "1",
                "PENSTOCK_BANK_HANG_UP_CANCELS": "0",  # An abandoned request is executed: the harder bank.
                "PENSTOCK_BANK_HANG_UP_LOSES_KEY": "0",  # Else every one of those would be a hold without a key.
                "PENSTOCK_BANK_EXTRA_CARDS": str(plan.cards),
                "FAILURE_RATE": str(plan.bank_failure_rate),
                "MIN_LATENCY_MS": str(plan.bank_latency_ms[0]),
                "MAX_LATENCY_MS": str(plan.bank_latency_ms[1]),
                "LOG_LEVEL": LOG_LEVELS[2],
            }
        return inherited | {
            **self._keys,
            "PENSTOCK_REDIS_URL": self.redis_url,
            "PENSTOCK_DATABASE_URL": self.database,
            "PENSTOCK_BANK_URL": self.bank,
            "PENSTOCK_PARTITIONS": str(PARTITIONS),
            f"PENSTOCK_{role.upper()}_PORT": str(self.ports[name]),
            "PENSTOCK_WORKER_NAME": f"{name}-{secrets.token_hex(3)}",
            "PENSTOCK_CLOCK_OFFSET_FILE": str(self._clock(name)),
            "PENSTOCK_FAILPOINTS": self._armed.pop(name, ""),
            "PENSTOCK_LEASE_MS": str(plan.lease_ms),
            "PENSTOCK_SEND_WINDOW_MS": str(plan.send_window_ms),
            "PENSTOCK_ATTEMPT_TIMEOUT_MS": str(plan.attempt_ms),
            "PENSTOCK_RETRY_BASE_MS": "50",
            "PENSTOCK_RETRY_CAP_MS": "500",
            "PENSTOCK_PARK_BASE_MS": "500",
            "PENSTOCK_PARK_CAP_MS": "2000",
            "PENSTOCK_SWEEP_MS": "200",
            "PENSTOCK_DRAIN_MS": "5000",
        }


@asynccontextmanager
async def raised(plan: EnvironmentPlan, folder: Path) -> AsyncIterator[Environment]:
    """A ready rig. What it started is gone afterwards. Raises StackFailed, EmbeddedError, Broken."""
    rig = Environment(plan, folder)
    try:
        await to_thread.run_sync(rig.start_stores)
        await to_thread.run_sync(rig.start)
        yield rig
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(rig.close)


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
