"""The lanes: how many deliveries each endpoint may have under way, so that nobody is starved by another's. Pure.

Merchants take turns, and within a merchant its endpoints. A merchant gets a place only while it has fewer of them than
are free, so that some are left for others, however many slow endpoints it has. A lane begins narrow, becomes wider with
each answer, and half as wide with each silence: a dead endpoint costs one place. Times are of the monotonic clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

NEVER = math.inf
_WIDTH = 2  # of a lane of which nothing is known yet


@dataclass(slots=True, kw_only=True)
class Lane:
    """One endpoint, as this dispatcher sees it."""

    merchant: str
    width: int
    since: datetime  # nothing unclaimed was due before at the last scan, so claims need not look there
    under_way: int = 0
    due_at: float = NEVER
    closed_until: float = 0.0  # it cannot be claimed from, or not be signed for
    served_at: float = 0.0


class Lanes:
    """`places`: deliveries under way in all. `lane_places`: for one endpoint."""

    def __init__(self, places: int, lane_places: int) -> None:
        self._places, self._lane_places = places, lane_places
        self._lanes: dict[str, Lane] = {}
        self._under_way: Counter[str] = Counter()  # by merchant
        self._served_at: dict[str, float] = {}  # by merchant
        self._crowded = False

    def __contains__(self, endpoint: str) -> bool:
        return endpoint in self._lanes

    def __getitem__(self, endpoint: str) -> Lane:
        return self._lanes[endpoint]

    def open(self, endpoint: str, merchant: str, since: datetime) -> Lane:
        """The lane of an endpoint, a new one if need be."""
        if endpoint not in self._lanes:
            width = min(_WIDTH, self._lane_places)
            self._lanes[endpoint] = Lane(merchant=merchant, width=width, since=since)
        return self._lanes[endpoint]

    def keep(self, endpoints: set[str]) -> None:
        """All others are forgotten, unless something of theirs is under way."""
        gone = [endpoint for endpoint in self._lanes.keys() - endpoints if not self._lanes[endpoint].under_way]
        for endpoint in gone:
            del self._lanes[endpoint]
        merchants = {lane.merchant for lane in self._lanes.values()}
        self._served_at = {merchant: at for merchant, at in self._served_at.items() if merchant in merchants}

    def due(self, endpoint: str, at: float) -> bool:
        """Something is due there at that time; whether that is sooner than what was known."""
        lane = self._lanes[endpoint]
        at = max(at, lane.closed_until)
        sooner = at < lane.due_at
        lane.due_at = min(at, lane.due_at)
        return sooner

    def close(self, endpoint: str, until: float) -> None:
        """Leave it alone so long."""
        lane = self._lanes[endpoint]
        lane.due_at = lane.closed_until = until

    def next_due_at(self) -> float:
        """When something is due for which there is a place."""
        free = self._free
        lanes = (lane for lane in self._lanes.values() if lane.under_way < lane.width)
        return min((lane.due_at for lane in lanes if self._under_way[lane.merchant] < free), default=NEVER)

    def shares(self, now: float) -> Mapping[str, int]:
        """How many to claim for which endpoint now: one for each in turn, until there are no places or no wishes."""
        places: Counter[str] = Counter()
        of_merchants: Counter[str] = Counter()
        free, turns = self._free, deque(self._turns(now))
        while turns:
            merchant, line = turns.popleft()
            if self._under_way[merchant] + of_merchants[merchant] >= free:
                self._crowded = True  # and so for the rest of this round: fewer are free with each turn
                continue
            endpoint = line.popleft()
            places[endpoint] += 1
            of_merchants[merchant] += 1
            free -= 1
            lane = self._lanes[endpoint]
            lane.served_at = self._served_at[merchant] = now
            if lane.under_way + places[endpoint] < lane.width:
                line.append(endpoint)
            if line:
                turns.append((merchant, line))
        return places

    def begin(self, endpoint: str) -> None:
        lane = self._lanes[endpoint]
        lane.under_way += 1
        self._under_way[lane.merchant] += 1

    def end(self, endpoint: str, now: float) -> bool:
        """Its place is free again; whether something waits for one."""
        lane = self._lanes[endpoint]
        lane.under_way -= 1
        self._under_way[lane.merchant] -= 1
        if not self._under_way[lane.merchant]:
            del self._under_way[lane.merchant]
        waits, self._crowded = self._crowded or lane.due_at <= now, False
        return waits

    def fit(self, endpoint: str, *, answered: bool) -> None:
        """After an attempt."""
        lane = self._lanes[endpoint]
        lane.width = min(self._lane_places, lane.width + 1) if answered else max(1, lane.width // 2)

    @property
    def _free(self) -> int:
        return self._places - self._under_way.total()

    def _turns(self, now: float) -> list[tuple[str, deque[str]]]:
        """Merchants with something due that has room, those with least under way first; so too their endpoints."""
        lines: dict[str, list[str]] = {}
        for endpoint, lane in self._lanes.items():
            if lane.due_at <= now and lane.under_way < lane.width:
                lines.setdefault(lane.merchant, []).append(endpoint)
        merchants = sorted(lines, key=lambda one: (self._under_way[one], self._served_at.get(one, 0.0)))
        return [(merchant, deque(sorted(lines[merchant], key=self._turn))) for merchant in merchants]

    def _turn(self, endpoint: str) -> tuple[int, float]:
        lane = self._lanes[endpoint]
        return lane.under_way, lane.served_at
