"""What the bench says: one JSON object, or a table of the same figures."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops.bench.rate_search import Probe
from ops.bench.run import Trial
from ops.bench.usage import BANK_POSTGRES

Result = dict[str, object]
LATE_MS = 20.0  # a generator that is later than this at p99 measures itself
_NOT_OURS = frozenset({"load_generator", "bank", BANK_POSTGRES})


def result(
    trial: Trial,
    setting: Mapping[str, object],
    machine: Mapping[str, object],
    bare_us: float | None = None,
    probes: Sequence[Probe] = (),
) -> Result:
    """The figures of one trial as plain values. `bare_us`: CPU of a bare request on this machine (http_baseline.py);
    `probes`: those that the rate was found by."""
    figures, done = trial.figures, trial.completions
    cost = trial.cpu_s_per_1000
    ours = sum(spent for kind, spent in cost.items() if kind not in _NOT_OURS) if cost else 0.0
    return {
        "sustained": trial.sustained,
        "verdict": verdict(trial),
        "offered_per_s": trial.offered_per_s,
        "seconds": trial.seconds,
        "warmup_s": trial.warmup_s,
        **setting,
        "accepted": figures.accepted,
        "completed": done.settled if done else None,
        "accepts_per_s": figures.accepts_per_s,
        "completions_per_s": done.completions_per_s if done else None,
        "accept_ms": _finite(figures.accept_ms),
        "end_to_end_ms": _finite(done.end_to_end_ms) if done else None,
        "drain_s": done.drain_s if done else None,
        "errors": figures.errors,
        "cpu_s_per_1000": cost,
        "payments_per_core_s": round(1000 / ours, 1) if ours else None,  # edge, workers, Redis and our Postgres
        "yardstick": {
            "bare_request_us": bare_us,
            "payment_in_bare_requests": round(ours * 1000 / bare_us, 1) if ours and bare_us else None,
        },
        "memory_mib": trial.memory_mib,
        "generator": {
            "late_ms": _finite(figures.late_ms),
            "late": figures.late_ms["p99"] > LATE_MS,
            "waited_for_connection": figures.waited_for_connection,
            "connections": figures.connections,
        },
        "probes": [asdict(probe) for probe in probes],
        "machine": dict(machine),
    }


def verdict(trial: Trial) -> str:
    """One sentence."""
    offered = f"{trial.offered_per_s:,.0f} payments/s for {trial.seconds:,.0f} s"
    if not trial.sustained:
        return f"Not sustained: {offered} were offered, but {'; '.join(trial.shortfalls)}."
    done = trial.completions
    completed = f" and completed (p99 {done.end_to_end_ms['p99']:,.0f} ms)" if done else ""
    return f"Sustained: {offered}, each accepted (p99 {trial.figures.accept_ms['p99']:,.0f} ms){completed}."


def machine(data_dir: Path | None) -> dict[str, object]:
    """Facts without which the figures mean little."""
    return {
        "cores": psutil.cpu_count(logical=True),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "data_filesystem": _filesystem(data_dir) if data_dir else None,
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def document(results: Sequence[Result]) -> Result:
    """One object: the durable mode's figures, and beside them those of everysec where both ran."""
    first, *others = results
    return {**first, **{str(other["appendfsync"]): other for other in others}}


# fmt: off
_ROWS = (
    # label                        field                 part
    ("offered/s",                  "offered_per_s",      None),
    ("accepts/s",                  "accepts_per_s",      None),
    ("completions/s",              "completions_per_s",  None),
    ("accept p50, ms",             "accept_ms",          "p50"),
    ("accept p99, ms",             "accept_ms",          "p99"),
    ("accept p99.9, ms",           "accept_ms",          "p99_9"),
    ("end to end p50, ms",         "end_to_end_ms",      "p50"),
    ("end to end p99, ms",         "end_to_end_ms",      "p99"),
    ("end to end p99.9, ms",       "end_to_end_ms",      "p99_9"),
    ("drained after, s",           "drain_s",            None),
)
# fmt: on


def table(results: Sequence[Result]) -> RenderableType:
    """The figures side by side, one column a run."""
    grid = Table(box=box.SIMPLE_HEAD)
    grid.add_column(str(results[0].get("connector", "")))
    for each in results:
        grid.add_column(str(each.get("appendfsync") or each.get("against")), justify="right")
    for label, field, part in _ROWS:
        grid.add_row(label, *(_shown(_part(each[field], part)) for each in results))
    grid.add_section()
    for title, field in (("CPU s per 1,000", "cpu_s_per_1000"), ("memory MiB", "memory_mib")):
        for kind in _kinds(results, field):
            grid.add_row(f"{title}: {kind}", *(_shown(_part(each[field], kind)) for each in results))
    grid.add_row("payments/s per core", *(_shown(each["payments_per_core_s"]) for each in results))
    for label, part in (
        ("bare request here, us", "bare_request_us"),
        ("a payment in bare requests", "payment_in_bare_requests"),
    ):
        grid.add_row(label, *(_shown(_part(each["yardstick"], part)) for each in results))
    grid.add_section()
    for status in _kinds(results, "errors"):
        grid.add_row(f"errors: {status}", *(_shown(_part(each["errors"], status)) for each in results))
    grid.add_row("sustained", *(Text("yes", "green") if each["sustained"] else Text("no", "red") for each in results))
    facts = ", ".join(f"{name} {value}" for name, value in _mapping(results[0]["machine"]).items())
    return Group(grid, *(_warning(each) for each in results if _part(each["generator"], "late")), Text(facts, "dim"))


def _warning(each: Result) -> Text:
    late = _part(_part(each["generator"], "late_ms"), "p99")
    return Text(f"The load generator sent its arrivals late (p99 {late} ms): latencies include that.", "yellow")


def _kinds(results: Sequence[Result], field: str) -> list[str]:
    return sorted({kind for each in results for kind in _mapping(each[field])})


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _part(value: object, part: str | None) -> object:
    return value if part is None else _mapping(value).get(part)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _finite(latencies: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in latencies.items()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _filesystem(data_dir: Path) -> str:
    """On tmpfs an fsync costs nothing, which is worth knowing."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (data_dir, *data_dir.resolve().parents) if parent in mounts), "unknown")
