"""The retry budget of one connector: repeated calls may be a share of the fresh ones, and a few a second besides.

A bank that comes back after an hour has thousands of doubts waiting for it. They come due by chance over minutes; the
budget keeps them from being more than it can bear beside the payments of today. Pure; guarded_connector.py spends it.
"""

from __future__ import annotations

from dataclasses import dataclass

_SAVED_S = 2.0  # what is not spent is kept for so long at the floor's pace: a burst, not a hoard


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetPolicy:
    """`share` of fresh calls (0.2: one repeat for five), and `floor_per_s` whatever else goes on."""

    share: float
    floor_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many parked operations the banks take now: `unsent`, of those they never saw, and `doubt`, of the others."""

    unsent: int
    doubt: int


class RetryBudget:
    """Times are seconds of any clock that only goes forward."""

    def __init__(self, allowance: RetryBudgetPolicy, now_s: float) -> None:
        self._allowance = allowance
        self._tokens_max = max(allowance.floor_per_s * _SAVED_S, 1.0)
        self._tokens, self._at_s = self._tokens_max, now_s

    def fresh(self) -> None:
        """A first call was made."""
        self._tokens = min(self._tokens + self._allowance.share, self._tokens_max)

    def left(self, now_s: float) -> int:
        """How many repeats could be made now."""
        earned = (now_s - self._at_s) * self._allowance.floor_per_s
        self._tokens, self._at_s = min(self._tokens + earned, self._tokens_max), now_s
        return int(self._tokens)

    def spend(self, now_s: float) -> bool:
        """Take a repeat out of the budget; False when there is none left."""
        if not self.left(now_s):
            return False
        self._tokens -= 1
        return True
