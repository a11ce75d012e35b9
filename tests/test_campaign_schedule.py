"""The schedule of a campaign: the same for the same seed, whole, and never two faults on one part at a time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.failpoint import ACCEPTANCE, PATH, Failpoints
from ops.chaos.faults import INFLICT
from ops.chaos.load import baskets
from ops.chaos.schedule import FAULTS, NEEDS, PARTITIONS, SKEW_MAX_S, SKEW_MIN_S, STEPS, ChaosFault, Strike, schedule

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
    assert {strike.fault for strike in strikes} == set(ChaosFault)
    assert {point for fault, point in points if fault is ChaosFault.WORKER_DIES} == set(PATH)
    assert {point for fault, point in points if fault is ChaosFault.WORKER_SLEEPS} == set(PATH)
    assert {point for fault, point in points if fault is ChaosFault.EDGE_DIES} == set(ACCEPTANCE)


@pytest.mark.parametrize("seed", [*range(5), *range(21, 26)])
def test_three_minutes_have_clocks_that_go_ahead_and_behind_and_step_and_outlast_an_authorization(seed: int) -> None:
    clocks = [strike.clock_s for strike in of(seed) if strike.fault is ChaosFault.WORKER_CLOCK_WRONG]

    assert any(clock[0] > 0 for clock in clocks if len(clock) == 1)
    assert any(clock[0] < 0 for clock in clocks if len(clock) == 1)
    assert any(len(clock) == STEPS for clock in clocks)
    assert (SKEW_MAX_S,) in clocks


@given(seeds, st.floats(6, 900))
@settings(max_examples=50)
def test_no_part_is_struck_twice_at_a_time_and_all_is_over_with_the_load(seed: int, seconds: float) -> None:
    busy_until: dict[str, float] = {}
    for strike in of(seed, seconds):
        struck = {strike.target, NEEDS[strike.fault]} if strike.fault in NEEDS else {strike.target}
        assert all(strike.at_s >= busy_until.get(name, 0) for name in struck)
        assert strike.at_s + strike.lasting_s <= seconds + 0.02
        busy_until |= dict.fromkeys(struck, strike.at_s + strike.lasting_s)


@given(seeds)
@settings(max_examples=20)
def test_every_failpoint_of_a_schedule_is_understood_by_the_engine(seed: int) -> None:
    for strike in of(seed):
        point = strike.failpoints.partition(":")[0]

        assert Failpoints(strike.failpoints).armed(point) is bool(point)


@given(seeds)
@settings(max_examples=20)
def test_particulars_are_there_for_the_faults_that_need_them_and_within_bounds(seed: int) -> None:
    for strike in of(seed):
        is_clock = strike.fault in (ChaosFault.WORKER_CLOCK_WRONG, ChaosFault.EDGE_CLOCK_WRONG)
        is_damage = strike.fault.startswith("stream_")

        assert bool(strike.clock_s) is is_clock
        assert bool(strike.partitions) is is_damage
        assert all(SKEW_MIN_S <= abs(offset_s) <= SKEW_MAX_S for offset_s in strike.clock_s)
        assert set(strike.partitions) <= set(range(PARTITIONS))


def test_a_schedule_says_which_clock_is_wrong_by_how_much_and_which_streams_are_damaged() -> None:
    clock = Strike(at_s=1, lasting_s=5, fault=ChaosFault.WORKER_CLOCK_WRONG, target="worker-2", clock_s=(3.5, -691_200))
    stream = Strike(at_s=1, lasting_s=1, fault=ChaosFault.STREAM_TRIMMED, target="redis", partitions=(3, 12))

    assert "worker-2" in str(clock)
    assert "+3.5 s, then -691200.0 s" in str(clock)
    assert "XTRIM to nothing of p3 p12" in str(stream)


@pytest.mark.parametrize("only", [{ChaosFault.BANK_STALLED}, {ChaosFault.STREAM_SKIPPED, ChaosFault.REDIS_FAILED_OVER}])
def test_a_campaign_of_chosen_faults_has_these_alone_again_and_again(only: set[ChaosFault]) -> None:
    strikes = schedule(21, 60, workers=3, edges=2, only=only)

    assert {strike.fault for strike in strikes} == only
    assert len(strikes) >= 5
    assert strikes == schedule(21, 60, workers=3, edges=2, only=only)


def test_every_fault_has_its_row_and_its_way_of_being_inflicted() -> None:
    assert set(FAULTS) == set(INFLICT) == set(ChaosFault)


def test_amounts_are_unique_to_their_payments() -> None:
    source = baskets(7)

    amounts = [next(source).amount for _ in range(1000)]

    assert len(set(amounts)) == 1000
