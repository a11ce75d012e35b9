"""Admission: how much an edge takes on at once, and of whom; the rest is refused before it is read or accepted (I10).

Three lanes, so that no kind of call keeps out another: writes, reads, and calls whose client waits, for an outcome or
for events. A merchant takes at most half of a lane, and calls no faster than its rate: its flood costs the others
little. A wait is a wish (RFC 7240): where its lane is full, the answer comes at once (202, or a page without events),
so neither a slow bank nor a quiet feed keeps new work out.

All of it is this process' own, so a merchant's rate holds for each edge (docs/decisions/0014). What is admitted here is
bounded, and with it the memory that calls can take: a body has at most 64 KiB.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from engine.errors import Unavailable

_SHARE = 2  # a merchant may take one part in so many of a lane
_AGAIN_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """Calls handled at once (writes; reads as many again), clients waiting, and a merchant's calls per second."""

    in_flight_max: int = 2000
    waiting_max: int = 2000
    merchant_rate_per_s: int = 5000


class ConcurrencyLimit:
    """So many places, of which no merchant has more than its share."""

    def __init__(self, places_max: int) -> None:
        self.places_max, self.share_max = places_max, math.ceil(places_max / _SHARE)
        self.taken = 0
        self._of: dict[str, int] = {}

    def of(self, merchant: str) -> int:
        """How many this merchant has taken."""
        return self._of.get(merchant, 0)

    @property
    def has_places(self) -> bool:
        return self.taken < self.places_max

    def has_room(self, merchant: str) -> bool:
        return self.has_places and self.of(merchant) < self.share_max

    def take(self, merchant: str) -> None:
        self.taken += 1
        self._of[merchant] = self.of(merchant) + 1

    def give_back(self, merchant: str) -> None:
        self.taken -= 1
        self._of[merchant] -= 1
        if not self._of[merchant]:
            del self._of[merchant]


class Rate:
    """Calls per second of each merchant, with a burst of one second's worth (GCRA: one number per merchant)."""

    def __init__(self, per_s: int, clock: Callable[[], float]) -> None:
        self._gap_s, self._clock = 1 / per_s, clock
        self._burst_s = 1.0 - self._gap_s
        self._next: dict[str, float] = {}  # when the next call would be due, if they came evenly

    def wait_s(self, merchant: str) -> float:
        """0 when the call may pass, and is counted; else how long until one may."""
        now = self._clock()
        due = max(self._next.get(merchant, now), now)
        if due - now > self._burst_s:
            return due - now - self._burst_s
        self._next[merchant] = due + self._gap_s
        return 0.0


class Slot:
    """What one admitted call holds; a context manager that gives it back."""

    __slots__ = ("_lane", "_merchant", "_waiting")

    def __init__(self, merchant: str, lane: ConcurrencyLimit, waiting: ConcurrencyLimit) -> None:
        self._merchant, self._lane, self._waiting = merchant, lane, waiting
        lane.take(merchant)

    def wait(self) -> bool:
        """Go over to those who wait; False where there is no room to."""
        if not self._waiting.has_room(self._merchant):
            return False
        self._lane.give_back(self._merchant)
        self._lane = self._waiting
        self._lane.take(self._merchant)
        return True

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lane.give_back(self._merchant)


class Admission:
    """The door keeper of one edge process."""

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.lanes = {
            "write": ConcurrencyLimit(limits.in_flight_max),
            "read": ConcurrencyLimit(limits.in_flight_max),
            "wait": ConcurrencyLimit(limits.waiting_max),
        }
        self._rates = {lane: Rate(limits.merchant_rate_per_s, clock) for lane in ("write", "read")}

    def admit(self, merchant: str, method: str) -> Slot:
        """A place for this call. Raises Unavailable(rate_limited or overloaded); nothing has happened then."""
        kind = "read" if method in ("GET", "HEAD") else "write"
        wait_s, lane = self._rates[kind].wait_s(merchant), self.lanes[kind]
        if wait_s:
            detail = "You call faster than this gateway allows. Nothing was accepted."
            raise Unavailable("rate_limited", detail, retry_after_s=math.ceil(wait_s))
        if lane.of(merchant) >= lane.share_max:
            detail = "You have too many calls under way. Nothing was accepted."
            raise Unavailable("rate_limited", detail, retry_after_s=_AGAIN_S)
        if not lane.has_places:
            detail = "Too many calls are under way here. Nothing was accepted."
            raise Unavailable("overloaded", detail, retry_after_s=_AGAIN_S)
        return Slot(merchant, lane, self.lanes["wait"])
