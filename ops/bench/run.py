"""One trial of the bench: offer a load from a process of its own, wait for the drain, count in the ledger.

Completions are the ledger's word: an operation counts when Postgres holds its outcome. Its moment is `settled_at`,
which the worker notes as it decides the outcome, one group commit before it is durable.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import orjson
import psycopg

from engine.errors import PenstockError
from ops.bench import usage
from ops.bench.load import Figures, Load, due_s, percentiles
from ops.stack.ephemeral_stack import EphemeralAddresses
from ops.statement import statement

DRAIN_PATIENCE_S = 120.0
DRAIN_LOOK_S = 0.1
SUSTAINED_SHARE = 0.98  # of the offered rate, for accepts
SUSTAINED_DRAIN_S = 2.0  # more is a backlog that grew

Progress = Callable[[float, str], None]  # share done, what is going on


class TrialFailed(PenstockError):
    """The load could not be offered; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """What the ledger says of the arrivals that count."""

    settled: int
    completions_per_s: float
    end_to_end_ms: dict[str, float]
    drain_s: float  # from the last arrival to the last outcome; the patience when some never came


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Everything measured in one trial. Without a stack of our own only the generator's figures are known."""

    offered_per_s: float
    seconds: float
    warmup_s: float
    figures: Figures
    completions: Completions | None = None
    cpu_s_per_1000: dict[str, float] | None = None
    memory_mib: dict[str, float] | None = None

    @property
    def sustained(self) -> bool:
        """Whether the gateway kept up: nearly all accepted in time, none refused, and no backlog left behind."""
        return not self.shortfalls

    @property
    def shortfalls(self) -> list[str]:
        """What shows that the gateway did not keep up, in words; nothing when it did."""
        figures, done = self.figures, self.completions
        found = []
        if figures.accepts_per_s < SUSTAINED_SHARE * self.offered_per_s:
            found.append(f"{figures.accepts_per_s:,.0f}/s were accepted")
        if figures.errors:
            kinds = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(figures.errors.items()))
            found.append(f"not every call was accepted ({kinds})")
        if done is not None and done.settled < figures.accepted:
            found.append(f"{figures.accepted - done.settled:,} had no outcome {DRAIN_PATIENCE_S:.0f} s later")
        elif done is not None and done.drain_s > SUSTAINED_DRAIN_S:
            found.append(f"the last outcome came {done.drain_s:.1f} s after the last call")
        return found


def run_trial(load: Load, stack: EphemeralAddresses | None, tell: Progress) -> Trial:
    """Offer this load. Raises TrialFailed."""
    generator = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.generator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        before, figures = _offer(generator, load, stack, tell)
    finally:
        generator.kill()
        generator.wait()
    trial = Trial(offered_per_s=load.rate_per_s, seconds=load.seconds, warmup_s=load.warmup_s, figures=figures)
    if stack is None:
        return trial
    completions = _drain(load, figures, stack, tell)
    cost = usage.per_thousand(before, _cpu_s(stack), figures.accepted)
    if figures.accepted:
        cost["load_generator"] = round(figures.cpu_s * 1000 / figures.accepted, 4)
    return replace(trial, completions=completions, cpu_s_per_1000=cost, memory_mib=usage.memory_mib(stack.processes))


def _offer(
    generator: subprocess.Popen[bytes], load: Load, stack: EphemeralAddresses | None, tell: Progress
) -> tuple[dict[str, float], Figures]:
    """The CPU seconds used when the arrivals began to count, and the figures."""
    if generator.stdin is None or generator.stdout is None:
        raise RuntimeError("the generator has no pipes")
    generator.stdin.write(orjson.dumps(asdict(load)))
    generator.stdin.close()
    before: dict[str, float] = {}
    for line in generator.stdout:
        said = orjson.loads(line)
        if "measuring" in said and stack is not None:
            before = _cpu_s(stack)
        elif "answered" in said:
            waiting = f"{said['waiting']} in flight" + (f", {said['errors']} errors" if said["errors"] else "")
            tell(said["answered"] / load.arrivals, waiting)
        elif "failed" in said:
            raise TrialFailed(said["failed"])
        elif "figures" in said:
            return before, Figures(**said["figures"])
    raise TrialFailed(f"the load generator ended with {generator.wait()} before it had figures")


def _cpu_s(stack: EphemeralAddresses) -> dict[str, float]:
    name = psycopg.conninfo.conninfo_to_dict(stack.bank_database).get("dbname")
    return usage.cpu_s(stack.processes, str(name))


def _drain(load: Load, figures: Figures, stack: EphemeralAddresses, tell: Progress) -> Completions:
    """Wait until what was accepted is settled, then read when each outcome was there."""
    last_due = figures.began_at + due_s(load.arrivals, load.rate_per_s)
    patience = time.monotonic() + DRAIN_PATIENCE_S
    run = {"run": load.run}
    with psycopg.connect(stack.database, autocommit=True) as ledger:
        while time.monotonic() < patience:
            unsettled = _number(ledger, "unsettled", {})
            if not unsettled and _number(ledger, "settled_of_run", run) >= figures.accepted_in_all:
                break
            tell(1.0, f"draining, {unsettled} unsettled")
            time.sleep(DRAIN_LOOK_S)
        rows = ledger.execute(statement("outcomes"), run).fetchall()
    counted = sorted((settled_at, arrival) for arrival, settled_at in rows if arrival >= load.warmups)
    span_s = counted[-1][0] - counted[0][0] if len(counted) > 1 else 0.0
    waits_ms = [
        1000 * (settled_at - figures.began_at - due_s(arrival, load.rate_per_s)) for settled_at, arrival in counted
    ]
    return Completions(
        settled=len(counted),
        completions_per_s=round((len(counted) - 1) / span_s, 1) if span_s else 0.0,
        end_to_end_ms=percentiles(waits_ms),
        drain_s=round(max(0.0, counted[-1][0] - last_due), 2) if len(counted) >= figures.accepted else DRAIN_PATIENCE_S,
    )


def _number(ledger: psycopg.Connection, name: str, parameters: dict[str, str]) -> int:
    row = ledger.execute(statement(name), parameters).fetchone()
    return int(row[0]) if row else 0
