"""The retry policy: full jitter within its bounds, a few tries in hand, and an end (I7)."""

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.payment import Operation, Verb
from engine.domain.retry_policy import RetrySchedule
from support.decision_stand import LOST, NOON, PATIENCE, a_payment_begun, changed

ATTEMPTS = st.integers(1, 100_000)


@given(ATTEMPTS, st.integers())
def test_a_backoff_is_never_negative_and_never_above_its_cap(attempts: int, seed: int) -> None:
    wait = PATIENCE.backoff(attempts, random.Random(seed))

    assert timedelta(0) <= wait <= min(PATIENCE.retry_cap, PATIENCE.retry_base * 2 ** min(attempts - 1, 40))


@given(ATTEMPTS, st.integers())
def test_a_parking_has_its_base_and_its_cap(attempts: int, seed: int) -> None:
    wait = PATIENCE.parking(attempts, random.Random(seed))

    assert PATIENCE.park_base <= wait <= PATIENCE.park_base + PATIENCE.park_cap


def test_the_bound_of_a_backoff_doubles() -> None:
    longest = [max(PATIENCE.backoff(n, random.Random(seed)) for seed in range(500)) for n in (1, 2, 3, 4)]

    for shorter, longer in pairwise(longest):
        assert 1.9 < longer / shorter < 2.1


def test_the_jitter_is_full_so_a_bank_that_comes_back_is_not_met_by_all_at_once() -> None:
    waits = [PATIENCE.backoff(4, random.Random(seed)) / (PATIENCE.retry_base * 8) for seed in range(1000)]

    assert min(waits) < 0.02 and max(waits) > 0.98
    assert 0.45 < sum(waits) / len(waits) < 0.55


@pytest.mark.parametrize("in_hand", [1, 2, 4])
def test_every_few_attempts_it_is_parked(in_hand: int) -> None:
    policy = replace(PATIENCE, attempts_in_hand=in_hand)

    parked = [attempts for attempts in range(1, 13) if not policy.stays_in_hand(attempts)]

    assert parked == list(range(in_hand, 13, in_hand))


@pytest.mark.parametrize(
    ("attempts", "hours", "retries_exhausted"),
    [(1, 0, False), (4, 22.9, False), (5, 0, True), (1, 23, False), (1, 23.01, True)],
)
def test_it_is_over_after_the_last_attempt_or_the_last_hour(
    attempts: int, hours: float, retries_exhausted: bool
) -> None:
    assert PATIENCE.retries_exhausted(attempts, NOON, NOON + timedelta(hours=hours)) is retries_exhausted


def test_what_was_never_sent_has_no_age() -> None:
    assert not PATIENCE.retries_exhausted(0, None, NOON)


SCHEDULE = RetrySchedule(PATIENCE, random.Random(7))
A_BIT = timedelta(microseconds=1)
HASTY = replace(PATIENCE, send_window=A_BIT, attempt_timeout=A_BIT)  # so that an attempt hides no error of a schedule


def an_attempt() -> Operation:
    """Under way at the bank."""
    operation = a_payment_begun().at_bank
    assert operation is not None
    return operation


@given(ATTEMPTS, st.integers(), st.timedeltas(timedelta(0), timedelta(days=2)))
def test_no_schedule_reaches_further_ahead_than_the_farthest(attempts: int, seed: int, wait: timedelta) -> None:
    schedule, operation = RetrySchedule(HASTY, random.Random(seed)), changed(an_attempt(), attempts=attempts)

    scheduled = [
        schedule.sent(operation, NOON).deadline or NOON,
        schedule.parked_until(operation, NOON, over=False),
        schedule.returning(NOON, wait),
        schedule.returning(NOON, None),
    ]

    assert max(scheduled) - NOON <= HASTY.farthest
    assert all(schedule.is_due(changed(operation, next_attempt_at=at), at) for at in scheduled)
    assert not any(schedule.is_due(changed(operation, next_attempt_at=at), NOON) for at in scheduled[1:])


def test_what_is_due_further_ahead_than_any_schedule_was_written_before_a_clock_stepped() -> None:
    def due(ahead: timedelta) -> bool:
        return SCHEDULE.is_due(changed(an_attempt(), next_attempt_at=NOON + ahead), NOON)

    assert [due(ahead) for ahead in (timedelta(0), A_BIT, PATIENCE.farthest, PATIENCE.farthest + A_BIT)] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=2)], ids=["as it was", "by a clock that was ahead"])
def test_a_parked_attempt_is_waited_for_as_long_as_any_attempt_takes(ahead: timedelta) -> None:
    sent = SCHEDULE.sent(a_payment_begun(patience=PATIENCE).answer(LOST).operation(Verb.AUTHORIZE), NOON + ahead)
    hasty = RetrySchedule(replace(PATIENCE, park_base=A_BIT, park_cap=A_BIT), random.Random(7))

    assert hasty.parked_until(sent, NOON, over=False) == NOON + PATIENCE.attempt


def test_who_is_told_to_come_again_is_held_to_the_cap_and_comes_not_with_all_others() -> None:
    def returns(wait: timedelta | None) -> list[timedelta]:
        return [RetrySchedule(PATIENCE, random.Random(seed)).returning(NOON, wait) - NOON for seed in range(200)]

    for wait, least in [(None, PATIENCE.park_base), (timedelta(days=1), PATIENCE.park_cap), (timedelta(0), None)]:
        least = PATIENCE.park_base if least is None else least
        assert least <= min(returns(wait)) < max(returns(wait)) <= least + PATIENCE.park_base
        assert max(returns(wait)) - min(returns(wait)) > PATIENCE.park_base / 2


@pytest.mark.parametrize("theirs_s", [1, 60], ids=["more hasty than ours", "more patient than ours"])
def test_a_lost_attempt_lasts_as_long_as_the_more_patient_of_its_owners_says(theirs_s: int) -> None:
    theirs = replace(PATIENCE, attempt_timeout=timedelta(seconds=theirs_s))
    attempt = RetrySchedule(theirs, random.Random(7)).sent(an_attempt(), NOON)

    left = PATIENCE.left_of(attempt)

    assert left == PATIENCE.send_window + max(PATIENCE.attempt_timeout, theirs.attempt_timeout)
    assert PATIENCE.left_of(changed(attempt, send_by=None, deadline=None)) == PATIENCE.attempt


def test_an_attempt_that_began_within_its_key_s_life_was_not_insisted_on_by_a_person() -> None:
    first = changed(an_attempt(), verb=Verb.CAPTURE, first_sent_at=NOON)

    def was_forced(began_after: timedelta) -> bool:
        return SCHEDULE.was_forced(SCHEDULE.sent(first, NOON + began_after), 1)

    assert [was_forced(PATIENCE.bank_key_life), was_forced(PATIENCE.bank_key_life + A_BIT)] == [False, True]
