"""Fair shares: every worker reaches the same even shares by itself, and few partitions move when one comes or goes."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.worker.assignment import shares

WORKERS = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12, unique=True)


@given(st.integers(1, 128), WORKERS)
def test_every_partition_has_one_owner_and_no_two_shares_differ_by_more_than_one(n: int, workers: list[str]) -> None:
    owner = shares(n, workers)

    sizes = Counter(owner.values())
    each = [sizes[worker] for worker in workers]
    assert sorted(owner) == list(range(n))
    assert set(sizes) <= set(workers)
    assert max(each) - min(each) <= 1


@given(st.integers(1, 64), WORKERS, st.randoms())
def test_the_order_in_which_workers_are_listed_does_not_matter(
    n: int, workers: list[str], chance: random.Random
) -> None:
    shuffled = list(workers)
    chance.shuffle(shuffled)

    assert shares(n, shuffled) == shares(n, workers)


def test_nobody_owns_anything_where_nobody_lives() -> None:
    assert shares(16, []) == {}


@pytest.mark.parametrize("workers", range(1, 10))
@pytest.mark.parametrize("partitions", [16, 64])
def test_few_partitions_move_when_one_worker_joins_or_leaves(partitions: int, workers: int) -> None:
    # What must move is the share of the one who comes or goes; keeping shares even costs a few more. A plain modulo
    # would move nearly all.
    names = [f"worker-{number}" for number in range(workers + 1)]
    whole = shares(partitions, names)

    moves = []
    for absent in names:
        without = shares(partitions, [name for name in names if name != absent])
        moves.append(sum(whole[partition] != without[partition] for partition in whole))

    must = partitions / (workers + 1)
    assert sum(moves) / len(moves) <= 2 * must + 2
    assert max(moves) <= 2 * must + 5
