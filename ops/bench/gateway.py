"""`penstock bench`: what this machine sustains, measured against a stack of its own and told with its costs.

The load comes by the clock (load.py), the completions from the ledger (run.py), the rate from short probes
(rate_search.py) unless one is given. Everything runs on this one machine, the load generator and the bank included; the
report says what each of them took, and ends in a verdict: exit code 0 when the rate was sustained, 1 when not.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bank.simulator.card import EXTRA_CARD_CVV, extra_card
from ops.bench import report as bench_report
from ops.bench.http_baseline import bare_request_us
from ops.bench.load import Load
from ops.bench.rate_search import MARGIN, RATE_MAX, RATE_MIN, Probe, lowered, search
from ops.bench.run import Trial, run_trial
from ops.errors import or_exit, stopped_in_order
from ops.stack.ephemeral_stack import MERCHANT_KEY, EphemeralAddresses, own_stack

CARDS = 1000  # one account's row lock would be the bottleneck of the bank, and ours would never show
PROBE_WARMUP_S, PROBE_S = 1.0, 2.0
MEASUREMENTS_MAX = 3  # a machine that is busy with other things for a moment gets further chances, each at a lower rate
_CANNOT_TELL = 2


class BenchConnector(StrEnum):
    INSTANT = "instant"
    FICMART_BANK = "ficmart_bank"


class Fsync(StrEnum):
    ALWAYS = "always"
    EVERYSEC = "everysec"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What was asked for. Without a rate, one that the machine sustains is found."""

    rate_per_s: float | None
    seconds: float
    warmup_s: float
    connector: str
    workers: int
    edge_processes: int


def bench(
    rate: Annotated[
        float | None,
        typer.Option(min=RATE_MIN, max=RATE_MAX, help="payments offered per second [as many as short probes sustain]"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="how long the arrivals count")] = 10,
    warmup: Annotated[float, typer.Option(min=0, max=600, help="seconds of load before that")] = 3,
    connector: Annotated[
        BenchConnector, typer.Option(help="the bank inside the worker, or the mock bank over HTTP")
    ] = BenchConnector.INSTANT,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="worker processes [half of the cores: the rest have work too]")
    ] = None,
    edge_processes: Annotated[int, typer.Option(min=1, max=64, help="processes that share the edge's port")] = 1,
    appendfsync: Annotated[Fsync, typer.Option(help="when Redis syncs; both runs one after the other")] = Fsync.ALWAYS,
    against: Annotated[
        str | None, typer.Option(help="URL of a running edge instead of an own stack: accepts only")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="key for --against")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Measure accepts and completions per second, their latencies and what they cost, at a steady rate.

    Exit code: 0 when the rate was sustained, 1 when it was not, 2 when it cannot be told.
    """
    plan = BenchPlan(
        rate_per_s=rate,
        seconds=seconds,
        warmup_s=warmup,
        connector=connector.value,
        workers=workers or max((os.cpu_count() or 2) // 2, 1),
        edge_processes=edge_processes,
    )
    _check(against, api_key)
    modes = ["always", "everysec"] if appendfsync is Fsync.BOTH else [appendfsync.value]
    console = Console(stderr=True)
    with or_exit(_CANNOT_TELL), stopped_in_order(console):
        if against is not None:
            results = [_against(plan, against, api_key or MERCHANT_KEY, console)]
        else:
            with console.status("the yardstick: what a bare request costs here"):
                bare_us = bare_request_us()
            results = [_own(plan, mode, bare_us, console) for mode in modes]
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(bench_report.document(results)) + b"\n")
    else:
        Console().print(bench_report.table(results))
    for each in results:
        console.print(f"{each['verdict']}", style="green" if each["sustained"] else "red", highlight=False)
    raise typer.Exit(0 if all(each["sustained"] for each in results) else 1)


def _check(against: str | None, api_key: str | None) -> None:
    if against is None:
        if api_key is not None:
            raise typer.BadParameter("--api-key is for --against; an own stack has its own key")
        return
    parts = urlsplit(against)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise typer.BadParameter(f"--against is the edge's base URL, as in http://127.0.0.1:8000, not {against!r}")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise typer.BadParameter("--api-key has characters that no key has")


def _own(plan: BenchPlan, appendfsync: str, bare_us: float, console: Console) -> bench_report.Result:
    options = [
        "--workers",
        str(plan.workers),
        "--dispatchers",
        "0",
        "--connector",
        plan.connector,
        "--appendfsync",
        appendfsync,
    ]
    options += ["--bank-failure-rate", "0", "--bank-latency-ms", "0-0", "--bank-extra-cards", str(CARDS)]
    environ = {"PENSTOCK_EDGE_PROCESSES": str(plan.edge_processes), "PENSTOCK_LOG_LEVEL": "warning"}
    starting = console.status(f"starting a stack of its own (appendfsync {appendfsync})")
    with starting, own_stack(purpose="bench", options=options, environ=environ) as stack:
        starting.stop()  # two live displays cannot share a terminal
        trial, probes = _measured(plan, stack.edge, MERCHANT_KEY, stack, console)
        machine = bench_report.machine(stack.data_dir)
    setting = {
        "connector": plan.connector,
        "workers": plan.workers,
        "edge_processes": plan.edge_processes,
        "appendfsync": appendfsync,
    }
    return bench_report.result(trial, setting, machine, bare_us, probes)


def _against(plan: BenchPlan, url: str, api_key: str, console: Console) -> bench_report.Result:
    trial, probes = _measured(plan, url, api_key, None, console)
    return bench_report.result(trial, {"against": url}, bench_report.machine(None), probes=probes)


def _measured(
    plan: BenchPlan, url: str, api_key: str, stack: EphemeralAddresses | None, console: Console
) -> tuple[Trial, Sequence[Probe]]:
    """The trial at the rate given, or at one that probes have found, with those probes."""

    def offered(rate_per_s: float, warmup_s: float, seconds: float) -> Trial:
        load = Load(
            url=url,
            api_key=api_key,
            run=f"bench-{secrets.token_hex(4)}",
            rate_per_s=rate_per_s,
            warmup_s=warmup_s,
            seconds=seconds,
            cards=[extra_card(number) for number in range(CARDS)],
            cvv=EXTRA_CARD_CVV,
        )
        return _trial(load, stack, console)

    if plan.rate_per_s is not None:
        return offered(plan.rate_per_s, plan.warmup_s, plan.seconds), ()
    console.print(f"Which rate is sustained here? Probes of {PROBE_WARMUP_S + PROBE_S:.0f} s each:", style="dim")
    found = search(lambda rate_per_s: offered(rate_per_s, PROBE_WARMUP_S, PROBE_S).sustained)
    console.print(f"The measurement, at {MARGIN:.0%} of what the probes sustained:", style="dim")
    rate_per_s = found.measured_per_s
    for _ in range(MEASUREMENTS_MAX):
        trial = offered(rate_per_s, plan.warmup_s, plan.seconds)
        if trial.sustained:
            break
        rate_per_s = lowered(rate_per_s)
    return trial, found.probes


def _trial(load: Load, stack: EphemeralAddresses | None, console: Console) -> Trial:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
        console=console,
    )
    with bar:
        task = bar.add_task(f"{load.rate_per_s:>7,.0f} payments/s", total=1.0, doing="connecting")
        trial = run_trial(load, stack, lambda share, doing: bar.update(task, completed=share, doing=doing))
        bar.update(task, completed=1.0, doing="sustained" if trial.sustained else "not sustained")
    return trial
