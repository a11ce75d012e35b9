"""The retry policy: full jitter within its bounds, a few tries in hand, and an end (I7)."""

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from decision_stand import NOON, PATIENCE
from hypothesis import given
from hypothesis import strategies as st

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
    ("attempts", "hours", "spent"), [(1, 0, False), (4, 22.9, False), (5, 0, True), (1, 23, False), (1, 23.01, True)]
)
def test_it_is_over_after_the_last_attempt_or_the_last_hour(attempts: int, hours: float, spent: bool) -> None:
    assert PATIENCE.spent(attempts, NOON, NOON + timedelta(hours=hours)) is spent


def test_what_was_never_sent_has_no_age() -> None:
    assert not PATIENCE.spent(0, None, NOON)
