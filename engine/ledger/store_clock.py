"""The time by which all processes agree: the ledger's, told between two looks by a clock that never steps.

The wall clock of a process may be wrong or jump, and so may a store's. So a time that another process judges is the
ledger's, and a wait inside the process is the steady clock's. An act that cannot be undone asks `earliest`, on which
all clocks that are known agree. The bank's keys age by `agreed`, where one wrong clock of three is outvoted. A process
whose own clock differs from both stores is the one that is wrong: it does not fit, and owns nothing until it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import anyio
import structlog
from prometheus_client import CollectorRegistry, Gauge

from engine.contracts.connector import Clock
from engine.errors import PenstockError
from engine.ledger.database import Away
from engine.loop import forever
from engine.resilience.fitness import Fitness

log = structlog.get_logger()

FAULT = "clock"
_PATIENCE_S = 2.0  # for one look at a store's clock; a slow answer tells little about it
_KEEP_WITHIN_S = 0.02  # a new reading that differs by less says nothing new: round trips vary by more


class Store(StrEnum):
    LEDGER = "ledger"
    REDIS = "redis"


@dataclass(frozen=True, slots=True)
class _Reading:
    """A store's time minus the steady clock's at the same moment, and how uncertain that is, in seconds."""

    ahead_s: float
    uncertain_s: float


class StoreClock:
    """One per process. `wall` is the process's own clock, `monotonic` one that only goes forward, in seconds."""

    def __init__(self, wall: Clock, monotonic: Callable[[], float], skew_max_s: float) -> None:
        self._wall, self._monotonic, self._skew_max_s = wall, monotonic, skew_max_s
        self._epoch, self._began_s = wall(), monotonic()
        self._readings: dict[Store, _Reading] = {}

    def steady(self) -> datetime:
        """The process's wall clock as it would be had it not been set since the start: for durations inside it."""
        return self._epoch + timedelta(seconds=self._monotonic() - self._began_s)

    def now(self) -> datetime:
        """The ledger's time; the wall clock's until the ledger has told its own."""
        return self._time_of(Store.LEDGER) or self._wall()

    def earliest(self) -> datetime:
        """It is surely this late: every clock that is known says so."""
        return min(self._known())

    def agreed(self) -> datetime:
        """It is this late by two clocks: of three, the one in the middle; while only two are known, the later one."""
        told = sorted(self._known())
        return told[1] if len(told) > 2 else told[-1]

    def heard(self, store: Store, told: datetime, asked_s: float, answered_s: float) -> None:
        """The store told its time in answer to a question; both moments are the steady clock's."""
        uncertain_s = (answered_s - asked_s) / 2
        middle = self._epoch + timedelta(seconds=asked_s + uncertain_s - self._began_s)
        reading = _Reading((told - middle).total_seconds(), uncertain_s)
        known = self._readings.get(store)
        if known is not None:
            moved_s = reading.ahead_s - known.ahead_s
            if abs(moved_s) <= max(_KEEP_WITHIN_S, uncertain_s) and uncertain_s >= known.uncertain_s:
                return
            if abs(moved_s) - uncertain_s - known.uncertain_s > self._skew_max_s:
                log.error("clock_stepped", store=store, seconds=round(moved_s, 3))
        self._readings[store] = reading

    def skew_s(self, store: Store) -> float | None:
        """How far the process's clock is ahead of the store's, as far as that is certain; None when it is not known."""
        told, reading = self._time_of(store), self._readings.get(store)
        if told is None or reading is None:
            return None
        skew_s = (self._wall() - told).total_seconds()
        certain_s = max(abs(skew_s) - reading.uncertain_s, 0.0)
        return certain_s if skew_s > 0 else -certain_s

    @property
    def fits(self) -> bool:
        """Whether the process's clock agrees with one of the stores that have told theirs, or none has."""
        skews = [skew_s for store in Store if (skew_s := self.skew_s(store)) is not None]
        return not skews or any(abs(skew_s) <= self._skew_max_s for skew_s in skews)

    @property
    def misfit(self) -> str | None:
        """What is wrong, in words fit for /readyz; None when the clock fits."""
        if self.fits:
            return None
        skews = {store: self.skew_s(store) for store in Store}
        told = " and ".join(
            f"{skew_s:+.1f} s from the {store}'s" for store, skew_s in skews.items() if skew_s is not None
        )
        return f"this process's clock is {told}: set it right (NTP), it takes part again by itself"

    def _known(self) -> list[datetime]:
        return [self._wall(), *(told for store in Store if (told := self._time_of(store)) is not None)]

    def _time_of(self, store: Store) -> datetime | None:
        reading = self._readings.get(store)
        return None if reading is None else self.steady() + timedelta(seconds=reading.ahead_s)


Told = Callable[[], Awaitable[datetime]]
"""Asks a store for its time."""


class ClockWatch:
    """Compares the clocks again and again, and tells the process's fitness. `shown` is for metrics. Runs for life."""

    def __init__(
        self,
        clock: StoreClock,
        stores: Mapping[Store, Told],
        monotonic: Callable[[], float],
        every_s: float,
        fitness: Fitness,
        shown: Callable[[StoreClock], None] = lambda clock: None,
    ) -> None:
        self._clock, self._stores, self._monotonic = clock, stores, monotonic
        self._every_s, self._fitness, self._shown = every_s, fitness, shown

    async def run(self) -> None:
        await forever("clock_watch", self._round)

    async def _round(self) -> None:
        await anyio.sleep(self._every_s)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at each store's clock; a store that is away keeps the last reading."""
        await asyncio.gather(*(self._look(store, told) for store, told in self._stores.items()))
        self._shown(self._clock)
        self._fitness.tell(FAULT, self._clock.misfit)

    async def _look(self, store: Store, told: Told) -> None:
        asked_s = self._monotonic()
        try:
            with anyio.fail_after(_PATIENCE_S):
                moment = await told()
        except (PenstockError, TimeoutError, *Away):
            return
        self._clock.heard(store, moment, asked_s, self._monotonic())


class ClockMetrics:
    """How the process's clock compares with those of its stores."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._skew = Gauge(
            "penstock_clock_skew_seconds",
            "How far this process's clock is ahead of a store's, as far as that is certain",
            ["store"],
            registry=registry,
        )

    def show(self, clock: StoreClock) -> None:
        for store in Store:
            skew_s = clock.skew_s(store)
            if skew_s is not None:
                self._skew.labels(store).set(skew_s)
