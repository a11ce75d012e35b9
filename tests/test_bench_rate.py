"""The bench without a rate: it finds one that the machine sustains, in few probes, and ends in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.bench.load import Figures
from ops.bench.rate_search import MARGIN, NARROW_ENOUGH, RATE_MAX, RATE_MIN, lowered, search
from ops.bench.report import verdict
from ops.bench.run import Completions, Trial

FIGURES = Figures(
    began_at=0.0,
    accepted=1000,
    accepted_in_all=1300,
    accepts_per_s=99.5,
    accept_ms={"p50": 4.0, "p99": 11.0, "p99_9": 20.0, "max": 21.0},
    errors={},
    late_ms={"p50": 0.1, "p99": 0.2, "p99_9": 0.3, "max": 0.4},
    waited_for_connection=0,
    connections=4,
    cpu_s=0.1,
)
COMPLETIONS = Completions(
    settled=1000,
    completions_per_s=99.0,
    end_to_end_ms={"p50": 30.0, "p99": 70.0, "p99_9": 80.0, "max": 90.0},
    drain_s=0.1,
)
TRIAL = Trial(offered_per_s=100, seconds=10, warmup_s=3, figures=FIGURES, completions=COMPLETIONS)


@given(st.floats(RATE_MIN, RATE_MAX))
def test_the_rate_found_is_just_below_what_the_machine_can_do(capacity: float) -> None:
    found = search(lambda rate: rate <= capacity)

    assert found.sustained_per_s is not None
    assert found.sustained_per_s <= capacity
    # In whole payments per second, so that small rates are as narrow as they get.
    assert capacity <= max(found.sustained_per_s * NARROW_ENOUGH, found.sustained_per_s + 1) or capacity > RATE_MAX
    assert found.measured_per_s == max(RATE_MIN, found.sustained_per_s * MARGIN // 1)
    assert len(found.probes) <= 13
    assert len({probe.rate_per_s for probe in found.probes}) == len(found.probes), "no rate is asked about twice"


def test_no_more_is_offered_than_twice_what_was_sustained() -> None:
    found = search(lambda rate: rate <= 1100)

    asked = [probe.rate_per_s for probe in found.probes]
    assert asked[:4] == [200, 400, 800, 1600]
    assert all(800 < rate < 1600 for rate in asked[4:])


def test_a_machine_that_sustains_nothing_is_asked_down_to_one_a_second() -> None:
    found = search(lambda rate: False)

    assert found.sustained_per_s is None
    assert found.probes[-1].rate_per_s == RATE_MIN
    assert found.measured_per_s == RATE_MIN


@given(st.floats(RATE_MIN, RATE_MAX))
def test_each_further_measurement_is_at_a_lower_rate(rate: float) -> None:
    assert lowered(rate) < rate or rate < 2


def test_what_was_kept_up_with_is_said_in_a_sentence() -> None:
    assert TRIAL.sustained
    assert verdict(TRIAL) == (
        "Sustained: 100 payments/s for 10 s, each accepted (p99 11 ms) and completed (p99 70 ms)."
    )
    assert verdict(replace(TRIAL, completions=None)) == "Sustained: 100 payments/s for 10 s, each accepted (p99 11 ms)."


@pytest.mark.parametrize(
    ("trial", "shortfall"),
    [
        (replace(TRIAL, figures=replace(FIGURES, accepts_per_s=60.0)), "60/s were accepted"),
        (
            replace(TRIAL, figures=replace(FIGURES, errors={"503": 8, "timeout": 1})),
            "not every call was accepted (8 × 503, 1 × timeout)",
        ),
        (replace(TRIAL, completions=replace(COMPLETIONS, settled=990, drain_s=120.0)), "10 had no outcome 120 s later"),
        (
            replace(TRIAL, completions=replace(COMPLETIONS, drain_s=5.25)),
            "the last outcome came 5.2 s after the last call",
        ),
    ],
    ids=["slow", "refused", "unfinished", "backlog"],
)
def test_what_was_not_kept_up_with_is_said_in_a_sentence(trial: Trial, shortfall: str) -> None:
    assert not trial.sustained
    assert verdict(trial) == f"Not sustained: 100 payments/s for 10 s were offered, but {shortfall}."
