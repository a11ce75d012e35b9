"""The local stack: real stores, the bank, the edge and workers on this machine, behind one command.

Starts in the order of need, stops in the reverse: edge, workers (they drain), bank, Redis, Postgres. The first Ctrl-C
stops, the second kills. What each process is told goes through PENSTOCK_* variables, as in any deployment.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bank.simulator.settings import BankSettings
from engine.errors import Broken
from ops.address import Port, any_free_port, beside, chosen_port, loopback, shown
from ops.data_dir import DataDir, is_alive
from ops.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.migrate import migrate, seed_local
from ops.settings import Settings, load_settings
from ops.supervisor import TICK_S, Program, Supervisor

READY_WITHIN_S = 60.0
_EDGE_PATIENCE_S = 40.0  # above the edge's own drain: clients that wait get their answers
_BANK_PATIENCE_S = 10.0
_DRAIN_MARGIN_S = 5.0
_DATABASE, _BANK_DATABASE = "penstock", "penstock_bank"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What `penstock up` was told."""

    data_dir: Path
    fresh: bool
    workers: int
    edge_port: Port
    bank_port: Port
    partitions: int
    bank_failure_rate: float
    bank_latency_ms: tuple[int, int]
    bank_control: bool
    bank_extra_cards: int
    appendfsync: str
    connector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One line of the table. `pid` is None for what runs elsewhere."""

    role: str
    name: str
    address: str
    port: int
    pid: int | None


@dataclass(slots=True, kw_only=True)
class Addresses:
    """Where everything is; known before the first process starts."""

    edge: str
    bank: str
    redis: str
    database: str
    bank_database: str


class Interrupted(Exception):
    """A signal came while the stack started."""


@dataclass(slots=True)
class Signals:
    """How often we were told to stop."""

    count: int = field(default=0)

    @contextmanager
    def heard(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._hear) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def raise_if_told(self) -> None:
        if self.count:
            raise Interrupted

    def hurry(self) -> bool:
        return self.count > 1

    def _hear(self, *_: object) -> None:
        self.count += 1


class Stack:
    """One run of the local stack; `announce` is called once, with the table, when all of it is ready."""

    def __init__(
        self, options: StackOptions, *, say: Callable[[str], None], announce: Callable[[list[Part]], None]
    ) -> None:
        self._options, self._say, self._announce = options, say, announce
        self._dir = DataDir(options.data_dir)
        self._signals = Signals()
        self._stores: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}
        self._supervisor = Supervisor(say)

    def run(self) -> None:
        """Until a signal. Raises Broken, SettingsError, EmbeddedError, MigrationError when it cannot start."""
        with ExitStack() as cleanup:
            cleanup.callback(self._supervisor.close)
            cleanup.enter_context(self._signals.heard())
            cleanup.enter_context(self._dir.held(fresh=self._options.fresh))
            cleanup.callback(self._stop)
            try:
                self._start()
                self._announce(self._parts())
                while not self._signals.count:
                    if self._supervisor.run_once() | self._revive_stores():
                        self._write_state()
                    time.sleep(TICK_S)
            except Interrupted:
                pass
            except Exception:
                if not self._signals.count:  # else Ctrl-C, seen by a short-lived child of ours as well, is the cause
                    raise
            self._dir.forget_state()
            self._say("stopping: edge, workers, bank, stores (Ctrl-C again kills)")

    def _start(self) -> None:
        options = self._options
        edge = chosen_port(options.edge_port, "--edge-port", self._say)
        bank = chosen_port(options.bank_port, "--bank-port", self._say, not_this=edge)
        keys = self._keys()
        self._check(self._environ(keys, _provisional(edge, bank)), bank)
        redis, database = self._start_stores()
        self._signals.raise_if_told()
        self._at = Addresses(
            edge=f"http://{loopback(os.environ.get('PENSTOCK_EDGE_HOST'))}:{edge}",
            bank=f"http://{loopback(os.environ.get('PENSTOCK_BANK_HOST'))}:{bank}",
            redis=redis,
            database=database,
            bank_database=beside(database, _BANK_DATABASE),
        )
        migrate(database, options.partitions)
        environ = self._environ(keys, self._at)
        settings = load_settings(environ)
        if settings.env == "local":
            seed_local(database)
        self._start_children(environ, settings, edge, bank)
        patience = time.monotonic() + READY_WITHIN_S
        while self._supervisor.starting():
            self._signals.raise_if_told()
            if time.monotonic() > patience:
                raise Broken(f"not everything was ready within {READY_WITHIN_S:.0f} s: see {self._dir.root / 'logs'}")
            time.sleep(TICK_S)
        self._write_state()

    def _keys(self) -> dict[str, str]:
        names = {"PENSTOCK_MASTER_KEY": "master", "PENSTOCK_FINGERPRINT_KEY": "fingerprint"}
        return {variable: os.environ.get(variable) or self._dir.key(name) for variable, name in names.items()}

    def _check(self, environ: Mapping[str, str], bank_port: int) -> None:
        """Mistakes in variables are told here, before anything starts, and not in a child's log."""
        load_settings(environ)
        BankSettings.from_env({**environ, **self._bank_environ(bank_port)})

    def _start_stores(self) -> tuple[str, str]:
        """The URLs of Redis and of the ledger's database: given ones, or embedded servers'."""
        database, redis = os.environ.get("PENSTOCK_DATABASE_URL"), os.environ.get("PENSTOCK_REDIS_URL")
        if database is None:
            postgres = self._stores["postgres"] = EmbeddedPostgres(self._dir.postgres, port=any_free_port())
            postgres.start()
            database = postgres.dsn(_DATABASE)
        self._signals.raise_if_told()
        if redis is None:
            server = os.environ.get("PENSTOCK_REDIS_SERVER")
            self._stores["redis"] = EmbeddedRedis(
                self._dir.redis, appendfsync=self._options.appendfsync, server=server, port=any_free_port()
            )
            redis = self._stores["redis"].start()
        return redis, database

    def _start_children(self, environ: Mapping[str, str], settings: Settings, edge: int, bank: int) -> None:
        bank_environ = {**environ, **self._bank_environ(bank), "PENSTOCK_BANK_DATABASE_URL": self._at.bank_database}
        self._child("bank", 1, bank, f"{self._at.bank}/health", lambda: bank_environ, _BANK_PATIENCE_S)
        self._child("edge", 1, edge, f"{self._at.edge}/readyz", lambda: environ, _EDGE_PATIENCE_S)
        host = loopback(settings.edge_host)
        for number in range(1, self._options.workers + 1):
            port = any_free_port()

            def named(number: int = number, port: int = port) -> dict[str, str]:
                name = f"worker-{number}-{secrets.token_hex(3)}"
                return {**environ, "PENSTOCK_WORKER_PORT": str(port), "PENSTOCK_WORKER_NAME": name}

            patience_s = settings.drain_ms / 1000 + _DRAIN_MARGIN_S
            self._child("worker", number, port, f"http://{host}:{port}/readyz", named, patience_s)

    def _child(
        self,
        role: str,
        number: int,
        port: int,
        ready_url: str,
        environ: Callable[[], Mapping[str, str]],
        patience_s: float,
    ) -> None:
        name = f"{role}-{number}"
        self._supervisor.start(
            Program(
                name=name if role == "worker" else role,
                role=role,
                port=port,
                command=(sys.executable, "-m", "ops.cli", role),
                environ=environ,
                ready_url=ready_url,
                log=self._dir.log(name),
                patience_s=patience_s,
            )
        )

    def _environ(self, keys: Mapping[str, str], at: Addresses) -> dict[str, str]:
        return {
            **os.environ,
            **keys,
            "PENSTOCK_REDIS_URL": at.redis,
            "PENSTOCK_DATABASE_URL": at.database,
            "PENSTOCK_PARTITIONS": str(self._options.partitions),
            "PENSTOCK_EDGE_PORT": at.edge.rpartition(":")[2],
            "PENSTOCK_BANK_URL": at.bank,
            "PENSTOCK_CONNECTOR": self._options.connector,
        }

    def _bank_environ(self, port: int) -> dict[str, str]:
        options = self._options
        return {
            "PORT": str(port),
            "FAILURE_RATE": str(options.bank_failure_rate),
            "MIN_LATENCY_MS": str(options.bank_latency_ms[0]),
            "MAX_LATENCY_MS": str(options.bank_latency_ms[1]),
            "PENSTOCK_BANK_CONTROL": "1" if options.bank_control else "0",
            "PENSTOCK_BANK_EXTRA_CARDS": str(options.bank_extra_cards),
        }

    def _revive_stores(self) -> bool:
        """Start an embedded server that died again, where it was. True when one was."""
        revived = False
        for name, store in self._stores.items():
            if not is_alive(store.pid):
                self._say(f"{name} died; starting it again")
                store.kill()  # what was left of it
                store.start()
                self._say(f"{name} is ready again (pid {store.pid})")
                revived = True
        return revived

    def _parts(self) -> list[Part]:
        """Everything there is, in the order of the table."""
        parts = [
            Part(
                role=child.program.role,
                name=child.program.name,
                address=child.program.ready_url.rpartition("/")[0],
                port=child.program.port,
                pid=child.pid,
            )
            for child in sorted(self._supervisor.children, key=lambda child: child.program.role != "edge")
        ]
        for name, url in (("redis", self._at.redis), ("postgres", self._at.database)):
            store = self._stores.get(name)
            pid, port = (store.pid, store.port) if store else (None, 0)
            parts.append(Part(role=name, name=name, address=shown(url), port=port, pid=pid))
        return parts

    def _write_state(self) -> None:
        at = self._at
        processes = [
            {"role": part.role, "pid": part.pid, "port": part.port} for part in self._parts() if part.pid is not None
        ]
        self._dir.write_state(
            {
                "supervisor": os.getpid(),
                "partitions": self._options.partitions,
                "edge": at.edge,
                "bank": at.bank,
                "redis": at.redis,
                "database": at.database,
                "bank_database": at.bank_database,
                "processes": processes,
            }
        )

    def _stop(self) -> None:
        """In order; the second signal kills what is left."""
        for role in ("edge", "worker", "bank"):
            self._supervisor.stop((role,), self._signals.hurry)
        for name in ("redis", "postgres"):
            store = self._stores.get(name)
            if store is not None:
                (store.kill if self._signals.hurry() else store.stop)()


def _provisional(edge: int, bank: int) -> Addresses:
    """Addresses for a check of the variables while the stores are not there yet."""
    stores = Settings.model_fields
    redis = os.environ.get("PENSTOCK_REDIS_URL", stores["redis_url"].default)
    database = os.environ.get("PENSTOCK_DATABASE_URL", stores["database_url"].default)
    return Addresses(
        edge=f"http://127.0.0.1:{edge}",
        bank=f"http://127.0.0.1:{bank}",
        redis=redis,
        database=database,
        bank_database="",
    )
