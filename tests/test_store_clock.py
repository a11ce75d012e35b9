"""The ledger's time is believed, not the process's; a process whose clock is wrong takes no part."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from engine.errors import Unavailable
from engine.ledger.store_clock import ClockWatch, Store, StoreClock
from engine.resilience.fitness import Fitness

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


@pytest.mark.parametrize("within", [True, False])
def test_an_answer_leaves_half_its_round_trip_in_doubt_and_no_more(clocks: Clocks, within: bool) -> None:
    clocks.compare(Store.LEDGER, ahead_s=5.0 + SKEW_MAX_S + (-0.1 if within else 0.1), round_trip_s=10.0)

    assert clocks.clock.fits is within


def test_a_slower_answer_does_not_replace_what_a_quick_one_told_unless_it_contradicts_it(clocks: Clocks) -> None:
    clocks.compare(Store.LEDGER, ahead_s=0.0, round_trip_s=0.002)

    clocks.compare(Store.LEDGER, ahead_s=0.5, round_trip_s=4.0)
    kept = clocks.clock.now() - clocks.true()
    clocks.compare(Store.LEDGER, ahead_s=60.0, round_trip_s=4.0)
    moved = clocks.clock.now() - clocks.true()

    assert abs(kept) < timedelta(milliseconds=10)
    assert abs(moved - timedelta(seconds=60)) < timedelta(milliseconds=10)


@pytest.mark.parametrize("step_s", [-7200.0, -3.0, 0.5, 3.0])
def test_a_store_s_clock_that_steps_is_believed_at_once_and_told_when_it_is_beyond_the_stated_skew(
    clocks: Clocks, step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ledger.store_clock.log", structlog.get_logger())
    clocks.compare(Store.LEDGER)

    with capture_logs() as said:
        clocks.compare(Store.LEDGER, ahead_s=step_s)

    assert abs(clocks.clock.now() - clocks.true() - timedelta(seconds=step_s)) < timedelta(milliseconds=10)
    assert [line["event"] for line in said] == (["clock_stepped"] if abs(step_s) > SKEW_MAX_S else [])


def test_a_watch_believes_what_it_heard_and_keeps_it_while_a_store_is_away_or_silent(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ledger.store_clock._PATIENCE_S", 0.01)
    fitness, answers = Fitness(), [0.0, 1.0, -3600.0]

    async def told() -> datetime:
        if not answers:
            await anyio.sleep_forever()
        if (ahead_s := answers.pop(0)) == 1.0:
            raise Unavailable("store_unavailable", "Redis is away")
        clocks.passed_s += 2.0  # on the way there, and on the way back
        moment = clocks.true() + timedelta(seconds=ahead_s)
        clocks.passed_s += 2.0
        return moment

    watch = ClockWatch(clocks.clock, {Store.REDIS: told}, lambda: clocks.passed_s, 1.0, fitness)
    found = []
    for _ in range(4):
        anyio.run(watch.run_once)
        found.append((clocks.clock.skew_s(Store.REDIS), fitness.fits))

    assert found == [(0.0, True), (0.0, True), (3598.0, False), (3598.0, False)]


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
