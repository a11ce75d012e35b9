"""Who should own which partition: rendezvous hashing with a cap, so that shares are even and moves are few.

Pure, so that all workers reach the same answer from the same list without talking to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def shares(partitions: int, workers: Collection[str]) -> dict[int, str]:
    """Partition to worker. No two shares differ by more than one partition.

    The heaviest pairs of partition and worker come first, so one who joins or leaves moves little beyond its own share.
    Going partition by partition instead lets one full share push all that follow: twice as many moves were seen.
    """
    live = sorted(set(workers))
    smallest, larger = divmod(partitions, len(live)) if live else (0, 0)
    size = dict.fromkeys(live, 0)
    owner: dict[int, str] = {}
    for _, partition, worker in sorted(
        ((_weight(partition, worker), partition, worker) for partition in range(partitions) for worker in live),
        reverse=True,
    ):
        if partition in owner or size[worker] > smallest or (size[worker] == smallest and not larger):
            continue
        if size[worker] == smallest:  # `larger` of the shares have one more
            larger -= 1
        size[worker] += 1
        owner[partition] = worker
    return owner


def _weight(partition: int, worker: str) -> bytes:
    return hashlib.sha256(f"{partition}:{worker}".encode()).digest()
