"""`penstock bench bare`: what this machine does where no gateway is in the way, for comparing what ours does on it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
import psycopg
import typer
from rich.console import Console

from ops.bench import bare_pipeline, usage
from ops.bench import report as bench_report
from ops.bench.http_baseline import bare_request_us, wait_for
from ops.bench.load import Load
from ops.bench.run import TrialFailed, run_trial
from ops.errors import stopped_in_order
from ops.stack.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.stack.ephemeral_stack import KEPT, Process
from ops.statement import statement
from ops.terminal import print_table

_DATABASE = "postgres"
_DRAIN_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """What came of it. CPU seconds per 1,000 payments by part, the load generator among them."""

    payments: int
    payments_per_s: float  # from the first arrival to the last outcome
    cpu_s_per_1000: dict[str, float]
    bare_request_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pipeline:
    url: str
    database: str
    processes: tuple[Process, ...]


def bench_bare(
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="payments offered per second, best too many")] = 5000,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="how long")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Measure a payment's path with nothing in it: edge, stream, worker, two commits; no checks, no rules, no bank.

    [dim]Beside it `penstock bench` shows what the gateway itself costs, on this machine in this hour.[/dim]
    """
    console = Console(stderr=True)
    with stopped_in_order(console), console.status("a bare request, then the bare pipeline"):
        bare = _measured(rate, seconds)
    if as_json:
        figures = {**asdict(bare), "machine": bench_report.machine(Path(tempfile.gettempdir()))}
        sys.stdout.buffer.write(orjson.dumps(figures) + b"\n")
        return
    costs = {**bare.cpu_s_per_1000, "in all": sum(bare.cpu_s_per_1000.values())}
    rows = [
        ("payments/s", f"{bare.payments_per_s:,.0f}"),
        *((f"CPU s per 1,000: {part}", f"{spent:.3f}") for part, spent in costs.items()),
        ("bare request here, us", f"{bare.bare_request_us:.1f}"),
    ]
    print_table(["bare pipeline", "always>"], rows)


def _measured(rate_per_s: float, seconds: float) -> Bare:
    request_us = bare_request_us()
    with _running() as pipeline:
        load = Load(
            url=pipeline.url,
            api_key="none",
            run="bare",
            rate_per_s=rate_per_s,
            warmup_s=0,
            seconds=seconds,
            cards=["4" * 16],
        )
        before = usage.cpu_s(pipeline.processes, "")
        figures = run_trial(load, None, lambda share, doing: None).figures
        took_s = _drained(pipeline.database, figures.accepted) - figures.began_at
        cost = usage.per_thousand(before, usage.cpu_s(pipeline.processes, ""), figures.accepted)
    if not figures.accepted:
        raise TrialFailed("the bare pipeline accepted nothing")
    cost["load_generator"] = round(figures.cpu_s * 1000 / figures.accepted, 4)
    return Bare(
        payments=figures.accepted,
        payments_per_s=round(figures.accepted / took_s, 1),
        cpu_s_per_1000=cost,
        bare_request_us=request_us,
    )


@contextmanager
def _running() -> Iterator[_Pipeline]:
    """On stores of its own. All of it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bare-"))
    folder.chmod(0o711)  # when root starts it, Postgres runs under another account and must pass
    postgres, redis = (
        EmbeddedPostgres(folder / "postgres"),
        EmbeddedRedis(folder / "redis", server=os.environ.get(KEPT)),
    )
    children: list[subprocess.Popen[bytes]] = []
    try:
        postgres.start()
        redis_url, database = redis.start(), postgres.dsn(_DATABASE)
        with psycopg.connect(database, autocommit=True) as ledger:
            ledger.execute(statement("bare_tables"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            environ = {**os.environ, bare_pipeline.REDIS: redis_url, bare_pipeline.DATABASE: database}
            for role in (["edge", str(listener.fileno())], ["worker"]):
                command = [sys.executable, "-m", "ops.bench.bare_pipeline", *role]
                children.append(
                    subprocess.Popen(command, env=environ, pass_fds=[listener.fileno()], start_new_session=True)
                )
        wait_for(url)
        edge, worker = children
        pids = {"edge": edge.pid, "worker": worker.pid, "redis": redis.pid, "postgres": postgres.pid}
        processes = tuple(Process(role=role, pid=pid) for role, pid in pids.items())
        yield _Pipeline(url=url, database=database, processes=processes)
    finally:
        for child in children:
            child.kill()
            child.wait()
        redis.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _drained(database: str, payments: int) -> float:
    """The wall clock when the last outcome was there. Raises TrialFailed."""
    patience = time.monotonic() + _DRAIN_PATIENCE_S
    with psycopg.connect(database, autocommit=True) as ledger:
        while time.monotonic() < patience:
            row = ledger.execute(statement("bare_done")).fetchone()
            if row is not None and row[0] >= payments:
                return time.time()
            time.sleep(0.05)
    raise TrialFailed(f"not all of {payments} were through after {_DRAIN_PATIENCE_S:.0f} s")
