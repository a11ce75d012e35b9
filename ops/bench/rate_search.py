"""Which rate a machine sustains: found by short probes, each at one rate. Pure; gateway.py does the probing.

Doubled until a probe is not sustained (or halved until one is), then narrowed between the two. A short probe is kinder
than a long measurement, since queues and checkpoints have no time to grow: so a share of what it found is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

RATE_FIRST = 200.0
RATE_MIN, RATE_MAX = 1.0, 100_000.0  # payments per second: what `penstock bench --rate` takes
NARROW_ENOUGH = 1.2  # between the highest rate that was sustained and the lowest that was not
MARGIN = 0.85  # of what the probes found, for a measurement that is several times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One short trial: payments offered per second, and whether the machine kept up."""

    rate_per_s: float
    sustained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """All probes in their order, and the highest rate that was sustained; None when not even RATE_MIN was."""

    probes: tuple[Probe, ...]
    sustained_per_s: float | None

    @property
    def measured_per_s(self) -> float:
        """The rate to measure at."""
        return lowered(self.sustained_per_s or RATE_MIN)


def search(sustains: Callable[[float], bool]) -> Search:
    """Asks about some twenty rates at most: seven to get below the first one, nine to get above it, three between."""
    probes: list[Probe] = []
    low, high = 0.0, math.inf
    rate: float | None = RATE_FIRST
    while rate is not None:
        probes.append(Probe(rate_per_s=rate, sustained=sustains(rate)))
        low, high = (rate, high) if probes[-1].sustained else (low, rate)
        rate = _next(low, high)
    return Search(probes=tuple(probes), sustained_per_s=low or None)


def lowered(rate_per_s: float) -> float:
    """MARGIN of a rate, in whole payments per second."""
    return max(RATE_MIN, math.floor(rate_per_s * MARGIN))


def _next(low: float, high: float) -> float | None:
    """The rate to ask about, when `low` is sustained (0: nothing yet) and `high` is not (infinite: nothing yet)."""
    if high <= RATE_MIN or low >= RATE_MAX or high <= low * NARROW_ENOUGH:
        return None
    if low == 0:
        return max(RATE_MIN, float(round(high / 2)))
    between = min(RATE_MAX, low * 2) if high == math.inf else float(round(math.sqrt(low * high)))
    return between if low < between < high else None
