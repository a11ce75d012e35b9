"""The ledger's time is believed, not the process's; a process whose clock is wrong takes no part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.store_clock import Store, StoreClock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SKEW_MAX_S = 2.0


class Clocks:
    """A process's wall clock, which can be set wrong, beside one that only goes forward."""

    def __init__(self) -> None:
        self.passed_s, self.wrong_s = 0.0, 0.0
        self.clock = StoreClock(self.wall, lambda: self.passed_s, SKEW_MAX_S)

    def true(self) -> datetime:
        return NOON + timedelta(seconds=self.passed_s)

    def wall(self) -> datetime:
        return self.true() + timedelta(seconds=self.wrong_s)

    def compare(self, store: Store, ahead_s: float = 0.0, round_trip_s: float = 0.002) -> None:
        told = self.true() + timedelta(seconds=ahead_s + round_trip_s / 2)
        self.clock.heard(store, told, self.passed_s, self.passed_s + round_trip_s)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.mark.parametrize("wrong_s", [-3600.0, -20.0, 4.0, 8 * 86_400.0])
def test_the_time_is_the_ledgers_whatever_the_process_believes(clocks: Clocks, wrong_s: float) -> None:
    clocks.wrong_s = wrong_s
    clocks.compare(Store.LEDGER)
    clocks.passed_s += 30

    assert abs(clocks.clock.now() - clocks.true()) < timedelta(milliseconds=10)


@pytest.mark.parametrize("step_s", [-7200.0, 7200.0])
def test_a_wall_clock_that_steps_moves_neither_the_time_nor_a_duration(clocks: Clocks, step_s: float) -> None:
    clocks.compare(Store.LEDGER)
    told, steady = clocks.clock.now(), clocks.clock.steady()

    clocks.wrong_s = step_s
    clocks.passed_s += 1

    assert clocks.clock.now() - told == clocks.clock.steady() - steady == timedelta(seconds=1)


@pytest.mark.parametrize("ahead_s", [-20.0, 8 * 86_400.0])
def test_a_clock_that_differs_from_both_stores_does_not_fit(clocks: Clocks, ahead_s: float) -> None:
    for store in Store:
        clocks.compare(store)
    assert clocks.clock.fits

    clocks.wrong_s = ahead_s

    assert not clocks.clock.fits
    assert clocks.clock.misfit is not None and f"{ahead_s:+.1f} s" in clocks.clock.misfit


@pytest.mark.parametrize("store", Store)
def test_one_store_with_a_wrong_clock_stops_nobody(clocks: Clocks, store: Store) -> None:
    for each in Store:
        clocks.compare(each, ahead_s=-7200.0 if each is store else 0.0)

    assert clocks.clock.fits


def test_a_slow_answer_is_not_taken_for_a_wrong_clock(clocks: Clocks) -> None:
    clocks.compare(Store.LEDGER, ahead_s=4.0, round_trip_s=10.0)

    assert clocks.clock.fits


def test_a_quicker_answer_replaces_what_a_slow_one_told(clocks: Clocks) -> None:
    clocks.compare(Store.LEDGER, ahead_s=1.0, round_trip_s=4.0)

    clocks.compare(Store.LEDGER, ahead_s=0.0, round_trip_s=0.002)

    assert abs(clocks.clock.now() - clocks.true()) < timedelta(milliseconds=10)


@pytest.mark.parametrize("wrong", [Store.LEDGER, Store.REDIS, None])
def test_it_is_surely_late_only_when_all_clocks_say_so(clocks: Clocks, wrong: Store | None) -> None:
    days = 8 * 86_400.0
    clocks.wrong_s = days if wrong is None else 0.0
    for each in Store:
        clocks.compare(each, ahead_s=days if each is wrong else 0.0)

    assert abs(clocks.clock.earliest() - clocks.true()) < timedelta(seconds=1)


@pytest.mark.parametrize("wrong_s", [-8 * 86_400.0, 8 * 86_400.0])
@pytest.mark.parametrize("wrong", [*Store, None])
def test_one_wrong_clock_of_three_is_outvoted(clocks: Clocks, wrong: Store | None, wrong_s: float) -> None:
    clocks.wrong_s = wrong_s if wrong is None else 0.0
    for each in Store:
        clocks.compare(each, ahead_s=wrong_s if each is wrong else 0.0)

    assert abs(clocks.clock.agreed() - clocks.true()) < timedelta(seconds=1)


@pytest.mark.parametrize("ahead_s", [-8 * 86_400.0, 8 * 86_400.0])
def test_of_two_clocks_the_later_one_counts(clocks: Clocks, ahead_s: float) -> None:
    clocks.compare(Store.LEDGER, ahead_s=ahead_s)

    assert clocks.clock.agreed() - clocks.true() > timedelta(days=7 if ahead_s > 0 else -1)


def test_before_any_store_has_told_its_time_the_process_has_its_own(clocks: Clocks) -> None:
    assert clocks.clock.now() == clocks.wall()
    assert clocks.clock.fits
    assert [clocks.clock.skew_s(store) for store in Store] == [None, None]
