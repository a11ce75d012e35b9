"""The schedule of a campaign: the same for the same seed, whole, and never two faults on one part at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.failpoint import ACCEPTANCE, PATH, Failpoints
from ops.campaign.crowd import baskets
from ops.campaign.schedule import FAULTS, Fault, Strike, schedule
from ops.campaign.strike import INFLICT

THREE_MINUTES = 180.0
seeds = st.integers(0, 2**32)


def of(seed: int, seconds: float = THREE_MINUTES) -> tuple[Strike, ...]:
    return schedule(seed, seconds, workers=3, edges=2)


@given(seeds)
@settings(max_examples=20)
def test_the_same_seed_gives_the_same_schedule_and_the_same_customers(seed: int) -> None:
    assert of(seed) == of(seed)
    assert [next(baskets(seed)) for _ in range(50)] == [next(baskets(seed)) for _ in range(50)]


def test_another_seed_gives_another_schedule() -> None:
    assert len({of(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("seed", range(5))
def test_three_minutes_have_every_fault_and_every_crash_point(seed: int) -> None:
    strikes = of(seed)

    points = {(strike.fault, strike.failpoints.partition(":")[0]) for strike in strikes if strike.failpoints}
    assert {strike.fault for strike in strikes} == set(Fault)
    assert {point for fault, point in points if fault is Fault.WORKER_DIES} == set(PATH)
    assert {point for fault, point in points if fault is Fault.WORKER_SLEEPS} == set(PATH)
    assert {point for fault, point in points if fault is Fault.EDGE_DIES} == set(ACCEPTANCE)


@given(seeds, st.floats(6, 900))
@settings(max_examples=50)
def test_no_part_is_struck_twice_at_a_time_and_all_is_over_with_the_load(seed: int, seconds: float) -> None:
    busy_until: dict[str, float] = {}
    for strike in of(seed, seconds):
        assert strike.at_s >= busy_until.get(strike.target, 0)
        assert strike.at_s + strike.lasting_s <= seconds + 0.02
        busy_until[strike.target] = strike.at_s + strike.lasting_s


@given(seeds)
@settings(max_examples=20)
def test_every_failpoint_of_a_schedule_is_understood_by_the_engine(seed: int) -> None:
    for strike in of(seed):
        point = strike.failpoints.partition(":")[0]

        assert Failpoints(strike.failpoints).armed(point) is bool(point)


def test_every_fault_has_its_row_and_its_way_of_being_inflicted() -> None:
    assert set(FAULTS) == set(INFLICT) == set(Fault)


def test_amounts_are_unique_to_their_payments() -> None:
    source = baskets(7)

    amounts = [next(source).amount for _ in range(1000)]

    assert len(set(amounts)) == 1000
