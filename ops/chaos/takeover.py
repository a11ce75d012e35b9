"""The take-over, measured: one of two workers is killed under load, and what it had in flight is finished by the other.

Twice: with a bank that only takes its time, and with one that also fails as the mock bank does by default. The killed
worker stays away. A payment counts as in flight when it was accepted before the kill and settled after it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import psycopg
from anyio import to_thread
from rich.console import Console

from bank.simulator.card import EXTRA_CARD_CVV, extra_card
from ops.audit.reconcile import compare, opening_balances
from ops.bench.load import Load, percentile
from ops.bench.run import run_trial
from ops.chaos.books import still_open
from ops.chaos.campaign import a_folder
from ops.chaos.environment import Environment, EnvironmentPlan, raised
from ops.chaos.progress import ProgressBoard
from ops.stack.ephemeral_stack import MERCHANT_KEY
from ops.statement import statement
from ops.terminal import print_table

LEASE_MS = 5000
SEND_WINDOW_MS, ATTEMPT_TIMEOUT_MS = 500, 2500  # an attempt is over 3 s after its commit
CARDS = 500
KILL_AFTER_S, LOAD_S = 4.0, 8.0
SETTLE_S = 120.0
TARGET_S = 10.0
LOOK_AGAIN_S = 0.2
VICTIM = "worker-1"
BANKS: tuple[tuple[str, float, tuple[int, int]], ...] = (
    # the bank             fails  takes (ms)
    ("takes 100-500 ms", 0.0, (100, 500)),
    ("takes 100-2000 ms, fails 5 %", 0.05, (100, 2000)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """One of the two. `finished_s`: from the kill to each payment's outcome, sorted."""

    bank: str
    partitions: int
    taken_after_s: float  # when the last of its partitions had a new owner
    accepted: int
    accepted_per_s: float
    finished_s: tuple[float, ...]
    unfinished: int
    asked_again: int
    differences: tuple[str, ...]

    @property
    def last_s(self) -> float:
        return self.finished_s[-1] if self.finished_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        return {
            "bank": self.bank,
            "partitions_taken_over": self.partitions,
            "taken_over_after_s": round(self.taken_after_s, 2),
            "accepted": self.accepted,
            "accepted_per_s": self.accepted_per_s,
            "in_flight_at_the_kill": len(self.finished_s) + self.unfinished,
            "unfinished": self.unfinished,
            "asked_again": self.asked_again,
            "finished_s": {name: round(percentile(self.finished_s, share), 2) for name, share in shares.items()},
            "ledger_and_bank_differ": list(self.differences),
        }


async def takeovers(rate_per_s: float, board: ProgressBoard) -> list[Takeover]:
    """Both. Raises StackFailed, TrialFailed."""
    return [await _takeover(*bank, rate_per_s, board) for bank in BANKS]


def held(found: list[Takeover]) -> bool:
    """Whether what must hold did: everything finished, once, and with a calm bank in time."""
    return found[0].last_s < TARGET_S and not any(each.unfinished or each.differences for each in found)


def show(found: list[Takeover], console: Console) -> None:
    rows = []
    for each in found:
        told = each.as_dict()
        ends = [f"{told['finished_s'][share]:.1f}" for share in ("p50", "p90", "p99", "max")]
        taken = f"{each.taken_after_s:.1f}"
        numbers = (round(each.accepted_per_s), each.partitions, taken, told["in_flight_at_the_kill"], each.asked_again)
        rows.append((each.bank, *map(str, numbers), *ends, str(len(each.differences))))
    columns = ("bank", "accepted/s>", "partitions>", "taken over s>", "in flight>", "asked again>")
    print_table((*columns, "p50 s>", "p90 s>", "p99 s>", "last s>", "differences>"), rows)
    for each in found:
        for difference in each.differences:
            console.print(f"  {difference}", markup=False)
    calm = found[0].last_s
    verdict = "in time" if calm < TARGET_S else f"too late: the target is {TARGET_S:.0f} s"
    console.print(f"The last payment of the killed worker was finished {calm:.1f} s after the kill, {verdict}.")


async def _takeover(
    name: str, failure_rate: float, latency_ms: tuple[int, int], rate: float, board: ProgressBoard
) -> Takeover:
    plan = EnvironmentPlan(
        workers=2,
        edges=1,
        bank_failure_rate=failure_rate,
        bank_latency_ms=latency_ms,
        cards=CARDS,
        lease_ms=LEASE_MS,
        send_window_ms=SEND_WINDOW_MS,
        attempt_timeout_ms=ATTEMPT_TIMEOUT_MS,
    )
    board.tell(f"a bank that {name}: raising a stack of its own")
    with a_folder() as folder:
        async with raised(plan, folder) as rig:
            openings = await to_thread.run_sync(opening_balances, rig.bank_database)
            load = Load(
                url=rig.edges[0],
                api_key=MERCHANT_KEY,
                run="takeover",
                rate_per_s=rate,
                warmup_s=0,
                seconds=LOAD_S,
                cards=[extra_card(number) for number in range(CARDS)],
                cvv=EXTRA_CARD_CVV,
            )
            killed: list[tuple[float, list[int]]] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_kill_one, rig, killed, board)
                trial = await to_thread.run_sync(run_trial, load, None, lambda share, doing: None)
            await _settled(rig, board)
            gone_at, partitions = killed[0]
            left, taken_after_s = await to_thread.run_sync(_left, rig.database, partitions, gone_at)
            comparison = await to_thread.run_sync(partial(compare, rig.database, rig.bank_database, openings))
        if comparison.agrees:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            board.tell(f"the logs are in {folder}")
    return Takeover(
        bank=name,
        partitions=len(partitions),
        taken_after_s=taken_after_s,
        accepted=trial.figures.accepted,
        accepted_per_s=trial.figures.accepts_per_s,
        finished_s=tuple(sorted(after_s for after_s, _ in left if after_s is not None)),
        unfinished=sum(after_s is None for after_s, _ in left),
        asked_again=sum(attempts > 1 for _, attempts in left),
        differences=comparison.differences,
    )


async def _kill_one(rig: Environment, killed: list[tuple[float, list[int]]], board: ProgressBoard) -> None:
    await anyio.sleep(KILL_AFTER_S)
    partitions = await to_thread.run_sync(_partitions, rig.database)
    rig.kill(VICTIM)
    killed.append((time.time(), partitions))
    board.tell(f"SIGKILL of {VICTIM}, which owned {len(partitions)} partitions")


async def _settled(rig: Environment, board: ProgressBoard) -> None:
    for _ in range(round(SETTLE_S / LOOK_AGAIN_S)):
        if not await to_thread.run_sync(still_open, rig):
            return
        await anyio.sleep(LOOK_AGAIN_S)
    board.tell(f"not everything was settled within {SETTLE_S:.0f} s")


def _partitions(ledger_dsn: str) -> list[int]:
    with psycopg.connect(ledger_dsn) as ledger:
        return [row[0] for row in ledger.execute(statement("partitions_of_owner"), {"owner": VICTIM}).fetchall()]


def _left(ledger_dsn: str, partitions: list[int], gone_at: float) -> tuple[list[tuple[float | None, int]], float]:
    """When each payment of the killed worker was settled and how often it was asked for, and when they had an owner."""
    parameters = {"partitions": partitions, "gone_at": gone_at}
    with psycopg.connect(ledger_dsn) as ledger:
        left = ledger.execute(statement("left_by_owner"), parameters).fetchall()
        taken = ledger.execute(statement("taken_after"), parameters).fetchone()
    return left, taken[0] if taken and taken[0] is not None else 0.0
