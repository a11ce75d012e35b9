"""Who should own which partition: rendezvous hashing with a cap, so that shares are even and moves are few.

Pure, so that all workers reach the same answer from the same list without talking to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def shares(partitions: int, workers: Collection[str]) -> dict[int, str]:
    """Partition to worker. No two shares differ by more than one partition."""
    if not workers:
        return {}
    smallest, larger = divmod(partitions, len(workers))
    left = dict.fromkeys(sorted(workers), smallest)
    owner: dict[int, str] = {}
    for partition in range(partitions):
        liked = sorted(left, key=lambda worker: _weight(partition, worker), reverse=True)
        chosen = next((worker for worker in liked if left[worker] > 0), None)
        if chosen is None:  # everybody has the smallest share; the rest go one each
            chosen = next(worker for worker in liked if left[worker] == 0)
            left[chosen] = -1
            larger -= 1
        else:
            left[chosen] -= 1
        owner[partition] = chosen
    return owner


def _weight(partition: int, worker: str) -> bytes:
    return hashlib.sha256(f"{partition}:{worker}".encode()).digest()
