"""Thousands of histories of the whole engine, each with its own faults: nothing lost, nothing doubled, all in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from simulation.run import History, again, run

HISTORIES = 5000
# What a run must have gone through, or it shows nothing: each as often as a hundredth of the histories at least.
COMMON = (
    "operation_completed",
    "operation_parked",
    "partition_taken_over",
    "partition_fenced",
    "heartbeat_lost",
    "postgres_away",
    "acquired",
    "poison_isolated",
)
RARE = ("reclaimed", "circuit_breaker")  # at least once


def simulation(*arguments: object, **environ: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    words = [sys.executable, "-W", "error", "-m", "simulation.run", *map(str, arguments)]
    tests, given = Path(__file__).parent, {**os.environ, **environ}
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=given, cwd=tests)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_history_breaks_an_invariant() -> None:
    # A share of the seeds for each core; a failing seed is printed with the command that replays it.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bounds = [HISTORIES * share // cores for share in range(cores + 1)]
    shares = [simulation("--seeds", first, end) for first, end in pairwise(bounds)]
    said = [share.communicate()[0] for share in shares]

    text = "\n".join(said)
    assert [share.returncode for share in shares] == [0] * cores, text[-8000:]
    heard = {event: sum(map(int, re.findall(rf"\b{event} (\d+)", text))) for event in COMMON + RARE}
    assert all(heard[event] > HISTORIES / 100 for event in COMMON) and all(heard.values()), heard


def test_a_seed_replays_exactly_in_any_process() -> None:
    eventful = next(history for history in map(_traced, range(40)) if "partition_fenced" in history.heard)

    elsewhere = simulation("--seed", eventful.seed, "--trace", PYTHONHASHSEED="1")
    replayed = elsewhere.communicate()[0].splitlines()

    assert f"digest {eventful.digest}" in replayed
    assert _traced(eventful.seed).told == eventful.told
    untraced = run(eventful.seed)
    assert (untraced.heard, untraced.virtual_s) == (eventful.heard, eventful.virtual_s)


def test_a_broken_history_is_named_with_the_command_that_replays_it() -> None:
    broken = simulation("--seeds", 0, 3, "--variant", "ask-before-commit")
    said = broken.communicate()[0].splitlines()

    assert broken.returncode == 1
    assert any(line.startswith("seed 0: I1: ") for line in said)
    assert again(0, "ask-before-commit") in said


def _traced(seed: int) -> History:
    return run(seed, traced=True)
