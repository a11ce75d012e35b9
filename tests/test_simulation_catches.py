"""The simulation catches engines that are broken on purpose: what it does not catch, it does not show."""

from __future__ import annotations

import pytest

from simulation.run import run
from simulation.variants import VARIANTS

SEEDS = range(1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_engine_is_caught_within_a_thousand_histories(name: str) -> None:
    with VARIANTS[name]():
        caught = next((history for history in map(run, SEEDS) if history.breaches), None)

    assert caught is not None
    assert not run(caught.seed).breaches, "and it is the mistake that was caught"
