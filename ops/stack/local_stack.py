"""The local stack: real stores, the bank, the edge, workers and dispatchers on this machine, behind one command.

Starts in the order of need, stops in the reverse: edge, workers (they drain), dispatchers, bank, auditor, stores. The
first Ctrl-C stops, the second kills. What each process is told goes through PENSTOCK_* variables, as in any deployment.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bank.simulator.settings import BankSettings
from engine.errors import Broken
from engine.ledger.migrate import migrate, seed_local
from ops.assembly.settings import Settings, load_settings
from ops.secret_file import variables
from ops.stack.address import Port, any_free_port, beside, chosen_port, loopback, shown
from ops.stack.data_dir import KEYS, DataDir
from ops.stack.shutdown import StopRequest, StopRequested
from ops.stack.stores import StackStores
from ops.stack.supervisor import TICK_S, Program, Supervisor

READY_WITHIN_S = 60.0
_EDGE_PATIENCE_S = 40.0  # above the edge's own drain: clients that wait get their answers
_BANK_PATIENCE_S = 10.0
_AUDITOR_PATIENCE_S = 5.0
_DRAIN_MARGIN_S = 5.0
_ONCE = ("--fresh",)  # what was wiped must not be wiped again at a restart
_BANK_DATABASE = "penstock_bank"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What `penstock up` was told."""

    data_dir: Path
    fresh: bool
    workers: int
    dispatchers: int
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
class StackPart:
    """One line of the table. `pid` is None for what runs elsewhere."""

    role: str
    name: str
    address: str
    port: int
    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackAddresses:
    """Where everything is."""

    edge: str
    bank: str
    redis: str
    database: str
    bank_database: str


class Stack:
    """One run of the local stack; `announce` is called once, with the table, when all of it is ready."""

    def __init__(
        self, options: StackOptions, *, say: Callable[[str], None], announce: Callable[[list[StackPart]], None]
    ) -> None:
        self._options, self._say, self._announce = options, say, announce
        self._dir = DataDir(options.data_dir)
        self._told = StopRequest()
        self._stores = StackStores(self._dir.postgres, self._dir.redis, appendfsync=options.appendfsync, say=say)
        self._supervisor = Supervisor(say)

    def run(self) -> None:
        """Until a signal. Raises Broken, SettingsError, EmbeddedError, MigrationError when it cannot start."""
        with ExitStack() as cleanup:
            cleanup.callback(self._supervisor.close)
            cleanup.enter_context(self._told.heard())
            cleanup.enter_context(self._dir.held(fresh=self._options.fresh))
            cleanup.callback(self._stop)
            try:
                at = self._start()
                self._announce(self._parts(at))
                self._watch(at)
            except StopRequested:
                pass
            except Exception:
                if not self._told.made:  # else a program that started for us saw Ctrl-C too, and that is no failure
                    raise
            self._dir.forget_state()
            self._say("stopping: edge, workers, dispatchers, bank, auditor, stores (Ctrl-C again kills)")

    def _start(self) -> StackAddresses:
        options = self._options
        edge = chosen_port(options.edge_port, "--edge-port", self._say)
        bank = chosen_port(options.bank_port, "--bank-port", self._say, not_this=edge)
        ours = self._environ(edge, bank)
        # Mistakes in variables are told here, before anything starts, and not in a child's log.
        settings = load_settings(ours)
        BankSettings.from_env({**ours, **self._bank_environ(bank)})
        database = self._stores.start_postgres()
        self._told.check()
        redis = self._stores.start_redis()
        self._told.check()
        migrate(database, options.partitions)
        if settings.env == "local":
            seed_local(database)
        at = StackAddresses(
            edge=f"http{'s' if settings.edge_tls_cert_file else ''}://{loopback(settings.edge_host)}:{edge}",
            bank=f"http://{loopback(os.environ.get('PENSTOCK_BANK_HOST'))}:{bank}",
            redis=redis,
            database=database,
            bank_database=beside(database, _BANK_DATABASE),
        )
        located = {"PENSTOCK_REDIS_URL": redis, "PENSTOCK_DATABASE_URL": database, "PENSTOCK_BANK_URL": at.bank}
        self._start_children(at, {**ours, **located}, settings, bank)
        self._wait()
        self._write_state(at)
        return at

    def _wait(self) -> None:
        patience = time.monotonic() + READY_WITHIN_S
        while self._supervisor.starting():
            self._told.check()
            if time.monotonic() > patience:
                raise Broken(f"not everything was ready within {READY_WITHIN_S:.0f} s: see {self._dir.root / 'logs'}")
            time.sleep(TICK_S)

    def _watch(self, at: StackAddresses) -> None:
        while not self._told.made:
            if self._supervisor.run_once() | self._stores.run_once():
                self._write_state(at)
            time.sleep(TICK_S)

    def _start_children(self, at: StackAddresses, environ: Mapping[str, str], settings: Settings, bank: int) -> None:
        bank_environ = {**environ, **self._bank_environ(bank), "PENSTOCK_BANK_DATABASE_URL": at.bank_database}
        edge_port = int(environ["PENSTOCK_EDGE_PORT"])
        self._child("bank", "bank", bank, f"{at.bank}/health", lambda: bank_environ, _BANK_PATIENCE_S)
        patience_s = _EDGE_PATIENCE_S + settings.edge_linger_s
        self._child("edge", "edge", edge_port, f"{at.edge}/readyz", lambda: environ, patience_s)
        auditor = any_free_port()
        keyless = {name: value for name, value in environ.items() if name not in KEYS}
        audits = {**keyless, "PENSTOCK_AUDITOR_PORT": str(auditor)}
        ready_url = f"http://{loopback(settings.edge_host)}:{auditor}/readyz"
        self._child("auditor", "auditor", auditor, ready_url, lambda: audits, _AUDITOR_PATIENCE_S)
        patience_s = settings.webhook_timeout_ms / 1000 + _DRAIN_MARGIN_S
        for number in range(1, self._options.dispatchers + 1):
            port = any_free_port()
            told = {**environ, "PENSTOCK_DISPATCHER_PORT": str(port)}
            ready_url = f"http://{loopback(settings.edge_host)}:{port}/readyz"
            self._child("dispatcher", f"dispatcher-{number}", port, ready_url, partial(dict, told), patience_s)
        patience_s = settings.drain_ms / 1000 + _DRAIN_MARGIN_S
        for number in range(1, self._options.workers + 1):
            name, port = f"worker-{number}", any_free_port()

            def named(name: str = name, port: int = port) -> dict[str, str]:
                """A name for each start: the one before may still be taken for alive."""
                unique = f"{name}-{secrets.token_hex(3)}"
                return {**environ, "PENSTOCK_WORKER_PORT": str(port), "PENSTOCK_WORKER_NAME": unique}

            ready_url = f"http://{loopback(settings.edge_host)}:{port}/readyz"
            self._child("worker", name, port, ready_url, named, patience_s)

    def _child(
        self,
        role: str,
        name: str,
        port: int,
        ready_url: str,
        environ: Callable[[], Mapping[str, str]],
        patience_s: float,
    ) -> None:
        self._supervisor.start(
            Program(
                name=name,
                role=role,
                port=port,
                command=(sys.executable, "-P", "-m", "ops.cli.main", role),
                environ=environ,
                ready_url=ready_url,
                log=self._dir.log(name if "-" in name else f"{name}-1"),
                patience_s=patience_s,
            )
        )

    def _environ(self, edge: int, bank: int) -> dict[str, str]:
        """What is settled before the stores run: ours, with the caller's own keys if there are any."""
        given = variables()
        return {
            "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8,::1/128",  # shops to try it with are on this machine
            "PENSTOCK_EDGE_LINGER_S": "0",  # no load balancer has to hear of the end
            **given,
            **{variable: given.get(variable) or self._dir.key(name) for variable, name in KEYS.items()},
            "PENSTOCK_PARTITIONS": str(self._options.partitions),
            "PENSTOCK_EDGE_PORT": str(edge),
            "PENSTOCK_BANK_URL": f"http://127.0.0.1:{bank}",
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

    def _parts(self, at: StackAddresses) -> list[StackPart]:
        """Everything there is, in the order of the table."""
        parts = [
            StackPart(
                role=child.program.role,
                name=child.program.name,
                address=child.program.ready_url.rpartition("/")[0],
                port=child.program.port,
                pid=child.pid,
            )
            for child in sorted(self._supervisor.children, key=lambda child: child.program.role != "edge")
        ]
        for name, url in (("redis", at.redis), ("postgres", at.database)):
            pid, port = self._stores.process(name) or (None, 0)
            parts.append(StackPart(role=name, name=name, address=shown(url), port=port, pid=pid))
        return parts

    def _write_state(self, at: StackAddresses) -> None:
        own = [part for part in self._parts(at) if part.pid is not None]
        processes = [{"role": part.role, "pid": part.pid, "port": part.port} for part in own]
        about = {"supervisor": os.getpid(), "partitions": self._options.partitions, "options": options_of(sys.argv)}
        self._dir.write_state({**about, **asdict(at), "processes": processes})

    def _stop(self) -> None:
        """In order; the second signal kills what is left."""

        def urgent() -> bool:
            return self._told.urgent

        for role in ("edge", "worker", "dispatcher", "bank", "auditor"):
            self._supervisor.stop(role, urgent)
        self._stores.stop(urgent)


def options_of(command_line: Sequence[str]) -> list[str]:
    """What stands behind `up` on a command line and is meant again at a restart."""
    words = command_line[command_line.index("up") + 1 :] if "up" in command_line else ()
    return [word for word in words if word not in _ONCE]
