"""Attempts that went unanswered, and the proof that the bank's queue with them is drained (I7).

A time-out ends our waiting, not the bank's work: a bank that stalls executes its queue when it wakes, and one that does
not guard a key against itself places a second hold for the repetition behind it, or refuses a second capture. So what
went unanswered is sent again only after the bank has answered something sent later, and its worst latency after that.
What another process sent, or this one has forgotten, counts as unanswered since it was first heard of here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

_KEYS_MAX = 100_000  # about 20 MB; a key beyond is forgotten, and only waits for a proof of its own again


@dataclass(slots=True)
class _Unanswered:
    since_s: float
    drained_at_s: float | None = None


class DrainProof:
    """Times are seconds of a clock that only goes forward."""

    def __init__(self, worst_latency_s: float) -> None:
        self._worst_latency_s = worst_latency_s
        self._keys: dict[str, _Unanswered] = {}
        self._undrained: list[tuple[float, str]] = []  # a heap by `since_s`

    def __len__(self) -> int:
        """Keys that wait for a proof."""
        return len(self._undrained)

    def unanswered(self, key: str, since_s: float) -> None:
        """An attempt under this key was written before `since_s`, and its answer has not come."""
        self._remember(key, _Unanswered(since_s))
        heapq.heappush(self._undrained, (since_s, key))

    def ended(self, key: str, now_s: float) -> None:
        """The bank itself has answered an attempt under this key: nothing of it is in the queue."""
        self._remember(key, _Unanswered(now_s, now_s - self._worst_latency_s))

    def forget(self, key: str) -> None:
        """It has its final answer."""
        self._keys.pop(key, None)

    def answered(self, sent_s: float, now_s: float) -> None:
        """A call sent at `sent_s` has its answer now: all that went unanswered before it is out of the queue."""
        while self._undrained and self._undrained[0][0] <= sent_s:
            since_s, key = heapq.heappop(self._undrained)
            known = self._keys.get(key)
            if known is not None and known.since_s == since_s:
                known.drained_at_s = now_s

    def wait_s(self, key: str, now_s: float) -> float | None:
        """How long until it may be sent again; None while the proof is missing. A key not heard of begins to wait."""
        known = self._keys.get(key)
        if known is None:
            self.unanswered(key, now_s)
            return None
        if known.drained_at_s is None:
            return None
        return max(known.drained_at_s + self._worst_latency_s - now_s, 0.0)

    def _remember(self, key: str, what: _Unanswered) -> None:
        self._keys.pop(key, None)
        while len(self._keys) >= _KEYS_MAX:
            del self._keys[next(iter(self._keys))]
        self._keys[key] = what
