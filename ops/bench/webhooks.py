"""`penstock bench webhooks`: deliveries per second and their latency, without and then with a dead endpoint among them.

On a stack of its own; everything, the receiver included, runs on this one machine.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ops.bench import report as bench_report
from ops.bench.webhook_run import HookLoad, HookTrial, run_hook_trial
from ops.errors import stopped_in_order
from ops.stack.ephemeral_stack import own_stack

_SUSTAINED_SHARE = 0.98
_SUSTAINED_DRAIN_S = 2.0


def bench_webhooks(
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="events per second to endpoints that live")] = 2000,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="how long the events count")] = 10,
    warmup: Annotated[float, typer.Option(min=0, max=600, help="seconds of load before that")] = 3,
    dispatchers: Annotated[int, typer.Option(min=1, max=64, help="dispatcher processes")] = 2,
    endpoints: Annotated[int, typer.Option(min=2, max=1000, help="endpoints, of which one is dead at last")] = 10,
    ordered: Annotated[bool, typer.Option("--ordered", help="endpoints in ordered mode")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Measure how webhooks get out: first all endpoints live, then one of them takes connections and never answers."""
    console = Console(stderr=True)
    options = ["--workers", "1", "--connector", "instant", "--dispatchers", str(dispatchers)]
    own = own_stack(purpose="bench", options=options, environ={"PENSTOCK_LOG_LEVEL": "error"})
    with stopped_in_order(console), own as stack:
        trials = []
        for dead in (False, True):
            load = HookLoad(
                rate_per_s=rate,
                seconds=seconds,
                warmup_s=warmup,
                endpoints=endpoints - 1,
                dead=dead,
                ordered=ordered,
            )
            with console.status("one of them dead" if dead else "all endpoints live") as status:
                trials.append(run_hook_trial(load, stack, lambda share, doing: status.update(doing)))
        machine = bench_report.machine(stack.data_dir)
    if as_json:
        figures = {"live": _document(trials[0]), "one_dead": _document(trials[1]), "machine": machine}
        sys.stdout.buffer.write(orjson.dumps(figures) + b"\n")
    else:
        Console().print(_table(trials))


def _document(trial: HookTrial) -> dict[str, object]:
    return {"sustained": _sustained(trial), **asdict(trial)}


def _sustained(trial: HookTrial) -> bool:
    """Whether the dispatchers kept up: everything came, at the rate, and no backlog was left behind."""
    kept_up = trial.delivered_per_s >= _SUSTAINED_SHARE * trial.load.rate_per_s
    return kept_up and trial.delivered >= trial.events and trial.drain_s <= _SUSTAINED_DRAIN_S


def _table(trials: list[HookTrial]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column("to the endpoints that live")
    for title in ("all live", "one dead"):
        grid.add_column(title, justify="right")
    for label, field in (
        ("events", "events"),
        ("delivered", "delivered"),
        ("delivered/s", "delivered_per_s"),
        ("came twice", "repeated"),
        ("worst endpoint's p99, ms", "worst_endpoint_p99_ms"),
        ("drained after, s", "drain_s"),
        ("dead: attempts", "dead_attempts"),
        ("dead: waiting", "dead_waiting"),
    ):
        grid.add_row(label, *(f"{getattr(trial, field):,}" for trial in trials))
    for share in ("p50", "p99", "p99_9", "max"):
        grid.add_row(f"event to shop {share}, ms", *(f"{trial.latency_ms[share]:,}" for trial in trials))
    for kind in sorted({kind for trial in trials for kind in trial.cpu_s_per_1000}):
        grid.add_row(f"CPU s per 1,000: {kind}", *(f"{trial.cpu_s_per_1000.get(kind, 0):,}" for trial in trials))
    grid.add_row("sustained", *("yes" if _sustained(trial) else "no" for trial in trials))
    return grid
