"""The circuit breaker of one connector: a bank that does not answer is left alone for a while, then asked carefully.

A pure machine; guarded_connector.py asks it before each call and tells it of each answer. A refusal is an answer like
any other: only silence counts against a bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

CALLS_MAX = 1_000_000  # more than anybody makes at once
_DOUBLINGS_MAX = 10


class Circuit(StrEnum):
    CLOSED = "closed"  # calls pass
    OPEN = "open"  # none does
    HALF_OPEN = "half_open"  # a few do, to see whether the bank is back


class Signal(StrEnum):
    ANSWERED = "answered"
    SILENT = "silent"
    TOO_SILENT = "too_silent"  # the one that makes it too many in a row
    RESTED = "rested"


C, S = Circuit, Signal

# fmt: off
CIRCUITS: Mapping[tuple[Circuit, Signal], Circuit] = {
    # from        sign             to
    (C.CLOSED,    S.ANSWERED):    C.CLOSED,
    (C.CLOSED,    S.SILENT):      C.CLOSED,
    (C.CLOSED,    S.TOO_SILENT):  C.OPEN,
    (C.OPEN,      S.ANSWERED):    C.OPEN,       # a call from before it opened: late, and no sign of health now
    (C.OPEN,      S.SILENT):      C.OPEN,
    (C.OPEN,      S.RESTED):      C.HALF_OPEN,
    (C.HALF_OPEN, S.ANSWERED):    C.CLOSED,
    (C.HALF_OPEN, S.SILENT):      C.OPEN,
}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """How much silence is too much, and how long a bank is left alone then (it doubles while the bank stays silent)."""

    silences_max: int
    rest_s: float
    rest_cap_s: float
    probes: int


class CircuitBreaker:
    """Times are seconds of any clock that only goes forward."""

    def __init__(self, tolerance: BreakerPolicy) -> None:
        self._tolerance = tolerance
        self.circuit = Circuit.CLOSED
        self._silences = 0
        self._rests = 0  # in a row
        self._rested_at = 0.0
        self._probing = 0

    def admits(self, now_s: float) -> bool:
        """Whether a call may be made now. One that is admitted is followed by `answered`, `silent` or `withdrawn`."""
        if self.circuit is Circuit.OPEN and now_s >= self._rested_at:
            self.circuit, self._probing = CIRCUITS[self.circuit, Signal.RESTED], 0
        if self.circuit is Circuit.HALF_OPEN:
            if self._probing >= self._tolerance.probes:
                return False
            self._probing += 1
        return self.circuit is not Circuit.OPEN

    def room(self, now_s: float) -> int:
        """How many calls would be admitted now; CALLS_MAX while the circuit is closed."""
        if self.circuit is Circuit.CLOSED:
            return CALLS_MAX
        if self.circuit is Circuit.OPEN:
            return self._tolerance.probes if now_s >= self._rested_at else 0
        return max(self._tolerance.probes - self._probing, 0)

    def closed_for_s(self, now_s: float) -> float:
        """How long to wait before it is worth asking again, for a call that was not admitted."""
        return max(self._rested_at - now_s, self._tolerance.rest_s)

    def withdrawn(self) -> None:
        """The call was not made after all, and that says nothing about the bank."""
        self._probing = max(self._probing - 1, 0)

    def answered(self) -> None:
        self.circuit = CIRCUITS[self.circuit, Signal.ANSWERED]
        if self.circuit is Circuit.CLOSED:
            self._silences = self._rests = 0

    def silent(self, now_s: float) -> None:
        self._silences += 1
        too_many = self.circuit is Circuit.CLOSED and self._silences >= self._tolerance.silences_max
        before = self.circuit
        self.circuit = CIRCUITS[self.circuit, Signal.TOO_SILENT if too_many else Signal.SILENT]
        if self.circuit is Circuit.OPEN and before is not Circuit.OPEN:
            rest_s = self._tolerance.rest_s * (1 << min(self._rests, _DOUBLINGS_MAX))
            self._rested_at = now_s + min(rest_s, self._tolerance.rest_cap_s)
            self._rests += 1
