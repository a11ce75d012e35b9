"""`penstock chaos`: a campaign of faults against a stack of its own, and the count at the bank's tables.

Exit code 0: nothing was lost, nothing doubled, ledger and bank are in bijection. 1: a promise did not hold; the folder
with all logs is kept, and the ids are told. 2: the campaign could not be run. The same seed strikes at the same times.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, NoReturn, TypeVar

import anyio
import orjson
import typer
from rich.console import Console

from ops.chaos import report, takeover
from ops.chaos.campaign import CampaignOutcome, During, campaign, striking
from ops.chaos.environment import EnvironmentPlan
from ops.chaos.flush import Flushes
from ops.chaos.load import CARDS, FRAIL
from ops.chaos.progress import ProgressBoard
from ops.chaos.schedule import ChaosFault, schedule
from ops.cli.stack import latency_range
from ops.errors import in_words

COULD_NOT_RUN = 2

Result = TypeVar("Result")


class Scene(StrEnum):
    CAMPAIGN = "campaign"
    TAKEOVER = "takeover"
    FLUSH = "flush"


RATES = {Scene.CAMPAIGN: 60.0, Scene.TAKEOVER: 500.0, Scene.FLUSH: 100.0}


def chaos(
    scene: Annotated[
        Scene,
        typer.Argument(
            help="campaign: all faults, by the seed. takeover: how long until what a killed worker had in flight is "
            "finished. flush: FLUSHALL under load, in a table"
        ),
    ] = Scene.CAMPAIGN,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="decides what strikes whom and when, and what customers buy")
    ] = 1,
    minutes: Annotated[float, typer.Option(min=0.1, max=600, help="how long the load of a campaign lasts")] = 3,
    rate: Annotated[
        float | None, typer.Option(min=1, max=10_000, help="customers per second [60; takeover 500; flush 100]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="worker processes (a take-over is between two)")] = 3,
    edges: Annotated[int, typer.Option(min=1, max=8, help="edge processes")] = 2,
    bank_latency_ms: Annotated[
        str, typer.Option(callback=latency_range, metavar="MIN-MAX", help="how long the bank takes without a fault")
    ] = "100-2000",
    bank_failure_rate: Annotated[float, typer.Option(min=0, max=1, help="share of calls that the bank fails")] = 0.05,
    only: Annotated[
        list[ChaosFault] | None,
        typer.Option(
            "--only",
            metavar="KIND",
            help="strike with this kind of fault alone, as in bank_stalled; may be given again; a wrong one lists all",
        ),
    ] = None,
    only_schedule: Annotated[bool, typer.Option("--schedule", help="print the schedule, and do nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """A campaign of faults against a stack of its own, under load, with a verdict counted at the bank's tables."""
    if only_schedule:
        typer.echo("\n".join(map(str, schedule(seed, minutes * 60, workers=workers, edges=edges, only=only or ()))))
        return
    board, rate = ProgressBoard(Console(stderr=True)), rate or RATES[scene]
    if scene is Scene.TAKEOVER:
        _take_over(rate, board, as_json)
    least, _, most = bank_latency_ms.partition("-")
    plan = EnvironmentPlan(
        workers=workers,
        edges=edges,
        bank_failure_rate=bank_failure_rate,
        bank_latency_ms=(int(least), int(most)),
        cards=CARDS + FRAIL,
    )
    replay = (
        f"penstock chaos {scene} --seed {seed} --minutes {minutes:g} --rate {rate:g} --workers {workers} "
        f"--edges {edges} --bank-latency-ms {bank_latency_ms} --bank-failure-rate {bank_failure_rate:g}"
        + "".join(f" --only {fault}" for fault in only or ())
    )
    board.tell(replay)
    run = Run(seed=seed, rate_per_s=rate, plan=plan, replay=replay, only=tuple(only or ()))
    _flush(run, board, as_json) if scene is Scene.FLUSH else _campaign(run, minutes * 60, board, as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a campaign is run with."""

    seed: int
    rate_per_s: float
    plan: EnvironmentPlan
    replay: str
    only: tuple[ChaosFault, ...] = ()

    def outcome(self, during: During, board: ProgressBoard) -> CampaignOutcome:
        async def run() -> CampaignOutcome:
            return await campaign(self.plan, seed=self.seed, rate_per_s=self.rate_per_s, board=board, during=during)

        return _run(run, board)


def _campaign(run: Run, seconds: float, board: ProgressBoard, as_json: bool) -> NoReturn:
    strikes = schedule(run.seed, seconds, workers=run.plan.workers, edges=run.plan.edges, only=run.only)
    missed: list[str] = []
    board.tell("\n".join(map(str, strikes)) + f"\n{len(strikes)} strikes\n")
    outcome = run.outcome(striking(strikes, seconds, board, missed), board)
    outcome.missed = missed
    if as_json:
        setting = {"seed": run.seed, "seconds": seconds, "strikes": [str(strike) for strike in strikes]}
        _print_json(report.document(outcome, setting, run.replay))
    else:
        report.show(outcome, run.replay, Console())
    raise typer.Exit(0 if outcome.verdict.clean else 1)


def _flush(run: Run, board: ProgressBoard, as_json: bool) -> NoReturn:
    flushes = Flushes(board)
    outcome = run.outcome(flushes.during(), board)
    if as_json:
        _print_json(report.document(outcome, flushes.document(outcome), run.replay))
    else:
        flushes.show(outcome, Console())
        report.show(outcome, run.replay, Console())
    raise typer.Exit(0 if outcome.verdict.clean else 1)


def _take_over(rate: float, board: ProgressBoard, as_json: bool) -> NoReturn:
    found = _run(partial(takeover.takeovers, rate, board), board)
    if as_json:
        _print_json({"takeovers": [each.as_dict() for each in found], "held": takeover.held(found)})
    else:
        takeover.show(found, Console())
    raise typer.Exit(0 if takeover.held(found) else 1)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")


def _run(run: Callable[[], Awaitable[Result]], board: ProgressBoard) -> Result:
    """To its end, or to exit code 2 (130 for Ctrl-C); either way everything is stopped."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # cleans up as Ctrl-C does
    try:
        return anyio.run(run)
    except KeyboardInterrupt:
        board.console.print("interrupted; everything that was started is stopped", style="yellow")
        raise typer.Exit(130) from None
    except Exception as error:
        words = in_words(error)
        if words is None:
            board.console.print_exception()
        board.tell(f"the campaign could not be run: {words or 'see above'}")
        raise typer.Exit(COULD_NOT_RUN) from None
