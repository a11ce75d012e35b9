"""What a campaign says at its end: a table of counts, every breach with its ids, and the command that replays it."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console

from ops.chaos.campaign import CampaignOutcome
from ops.terminal import print_table

EXAMPLES_MAX = 20


def document(outcome: CampaignOutcome, setting: dict[str, Any], replay: str) -> dict[str, Any]:
    """Everything, for scripts."""
    verdict, till = outcome.verdict, outcome.till
    return {
        "verdict": "clean" if verdict.clean else "breached",
        **setting,
        "counts": verdict.counts,
        "breaches": [{"promise": breach.promise, "evidence": breach.evidence} for breach in verdict.breaches],
        "bank_broke_promise": list(verdict.bank_broke_promise),
        "lost_age_s": _finite(verdict.lost_age_s),
        "revived_age_s": _finite(verdict.revived_age_s),
        "answers": dict(sorted(till.answers.items())),
        "keys_repeated": till.repeats,
        "lookups": till.lookups,
        "turned_away": till.turned_away,
        "shop_late_s": round(till.late_s, 3),
        "missed_strikes": outcome.missed,
        "folder": str(outcome.folder) if outcome.kept else None,
        "replay": replay,
    }


def show(outcome: CampaignOutcome, replay: str, console: Console) -> None:
    """The same for people."""
    verdict = outcome.verdict
    print_table([f"{name}>" for name in verdict.counts], [list(map(str, verdict.counts.values()))])
    if verdict.counts["revived keys"]:
        lost, again = verdict.lost_age_s, verdict.revived_age_s
        console.print(
            f"{verdict.counts['revived keys']} orders were lost with Redis and revived by their keys. They had been "
            f"asked for {lost['p50']:.2f} s (median) to {lost['max']:.2f} s before the loss; the shop's repeated key "
            f"was accepted {again['p50']:.1f} s to {again['max']:.1f} s after the first time.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{outcome.till.repeats} keys repeated, {outcome.till.lookups} look-ups, answers: {_answers(outcome)}. "
        f"Customers were let in at most {outcome.till.late_s:.1f} s late, {outcome.till.turned_away} were turned away.",
        highlight=False,
        soft_wrap=True,
    )
    _list(console, "The bank broke its promise", list(verdict.bank_broke_promise), 5)
    _list(console, "Could not be inflicted", outcome.missed)
    _list(console, "Breached", [f"{breach.promise}: {breach.evidence}" for breach in verdict.breaches])
    if verdict.clean:
        console.print("Nothing lost, nothing doubled, ledger and bank in bijection.", style="bold green")
    else:
        console.print(f"{len(verdict.breaches)} breaches. Logs and evidence: {outcome.folder}", style="bold red")
    console.print(f"Replay: {replay}", soft_wrap=True, markup=False, highlight=False)


def _answers(outcome: CampaignOutcome) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(outcome.till.answers.items()))


def _finite(figures: dict[str, float]) -> dict[str, float] | None:
    return None if any(math.isnan(figure) for figure in figures.values()) else figures


def _list(console: Console, title: str, lines: list[str], examples_max: int = EXAMPLES_MAX) -> None:
    if lines:
        console.print(f"{title}: {len(lines)}")
    for line in lines[:examples_max]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(lines) > examples_max:
        console.print(f"  and {len(lines) - examples_max} more")
