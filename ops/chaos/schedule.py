"""The schedule of a campaign: which fault strikes whom, when and for how long. The same seed gives the same schedule.

Every fault is a card of a deck that is shuffled and dealt until the time is up, so that a campaign of three minutes has
each of them, each crash point included. Of one part of the stack only one fault strikes at a time: two would hide each
other. Faults of different parts overlap. Pure; faults.py inflicts it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from engine.failpoint import ACCEPTANCE, PATH

FIRST_AT_S = 2.0  # the load has begun to flow
GAP_S = 2.6  # between two strikes, on average: some seventy in three minutes, which is a deck
STRIKES_MIN = 10  # in a short campaign they follow each other faster
PASSINGS_MAX = 40  # a crash point acts at one of its first passings
SKEW_MIN_S, SKEW_MAX_S = 3.0, 8 * 86_400.0  # the longest is a day more than an authorization lives
STEPS = 4  # of a clock that steps
PARTITIONS = 16  # of the stack
DAMAGED_MAX = 6  # of these streams at a time


class StruckPart(StrEnum):
    """What can be struck."""

    WORKER = "worker"
    EDGE = "edge"
    BANK = "bank"
    REDIS = "redis"
    POSTGRES = "postgres"


class ChaosFault(StrEnum):
    """What can go wrong; FAULTS says it in words."""

    WORKER_KILLED = "worker_killed"
    WORKER_ASLEEP = "worker_asleep"
    WORKER_DIES = "worker_dies"
    WORKER_SLEEPS = "worker_sleeps"
    WORKER_FAILS = "worker_fails"
    WORKER_CLOCK_WRONG = "worker_clock_wrong"
    EDGE_KILLED = "edge_killed"
    EDGE_ASLEEP = "edge_asleep"
    EDGE_DIES = "edge_dies"
    EDGE_CLOCK_WRONG = "edge_clock_wrong"
    BANK_FAILS = "bank_fails"
    BANK_SLOW = "bank_slow"
    BANK_SILENT = "bank_silent"
    BANK_FORGETFUL = "bank_forgetful"
    BANK_SILENT_AND_FORGETFUL = "bank_silent_and_forgetful"
    BANK_CONFUSED = "bank_confused"
    BANK_UNREADABLE = "bank_unreadable"
    BANK_MISMATCHED = "bank_mismatched"
    BANK_DOWN = "bank_down"
    BANK_STALLED = "bank_stalled"
    REDIS_FLUSHED = "redis_flushed"
    REDIS_KILLED = "redis_killed"
    REDIS_EMPTIED = "redis_emptied"
    REDIS_REWOUND = "redis_rewound"
    REDIS_FULL = "redis_full"
    REDIS_STOPPED = "redis_stopped"
    REDIS_CUT = "redis_cut"
    REDIS_FAILED_OVER = "redis_failed_over"
    REDIS_CLOCK_BACK = "redis_clock_back"
    STREAM_TRIMMED = "stream_trimmed"
    STREAM_DELETED = "stream_deleted"
    STREAM_SKIPPED = "stream_skipped"
    STREAM_DISOWNED = "stream_disowned"
    STREAM_UNGROUPED = "stream_ungrouped"
    POSTGRES_STOPPED = "postgres_stopped"
    POSTGRES_KILLED = "postgres_killed"
    POSTGRES_CUT = "postgres_cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault. `failpoints` is what the process that is started next carries, in the words of PENSTOCK_FAILPOINTS;
    `clock_s` what a clock is wrong by, one after the other; `partitions` whose streams are damaged."""

    at_s: float
    lasting_s: float
    fault: ChaosFault
    target: str
    failpoints: str = ""
    clock_s: tuple[float, ...] = ()
    partitions: tuple[int, ...] = ()

    def __str__(self) -> str:
        clock = ", then ".join(f"{offset_s:+.1f} s" for offset_s in self.clock_s)
        streams = " ".join(f"p{partition}" for partition in self.partitions)
        what = " ".join(filter(None, (FAULTS[self.fault][3], self.failpoints, clock, streams)))
        return f"{self.at_s:6.1f} s  {self.target:<9} {what} ({self.lasting_s:.1f} s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardBehaviour:
    """A fault of the deck with its particulars; whom and when it strikes is not yet known."""

    fault: ChaosFault
    failpoints: str = ""
    clock_s: tuple[float, ...] = ()
    partitions: tuple[int, ...] = ()


P, F = StruckPart, ChaosFault

# fmt: off
FAULTS: Mapping[ChaosFault, tuple[StruckPart, float, float, str]] = {
    # fault                      part       lasts from, to (s), and what happens; a restart takes two seconds
    F.WORKER_KILLED:             (P.WORKER,   2.5, 2.5, "SIGKILL"),
    F.WORKER_ASLEEP:             (P.WORKER,   5.0, 5.0, "SIGSTOP past its lease, then SIGCONT"),
    F.WORKER_DIES:               (P.WORKER,   5.0, 5.0, "SIGKILL; the next one dies at"),
    F.WORKER_SLEEPS:             (P.WORKER,   8.0, 8.0, "SIGKILL; the next one stops past its lease at"),
    F.WORKER_FAILS:              (P.WORKER,   5.0, 5.0, "SIGKILL; the next one meets exceptions at"),
    F.WORKER_CLOCK_WRONG:        (P.WORKER,   4.0, 8.0, "its clock is wrong by"),
    F.EDGE_KILLED:               (P.EDGE,     2.5, 2.5, "SIGKILL"),
    F.EDGE_ASLEEP:               (P.EDGE,     5.0, 5.0, "SIGSTOP, then SIGCONT"),
    F.EDGE_DIES:                 (P.EDGE,     5.0, 5.0, "SIGKILL; the next one dies at"),
    F.EDGE_CLOCK_WRONG:          (P.EDGE,     4.0, 8.0, "its clock is wrong by"),
    F.BANK_FAILS:                (P.BANK,     1.5, 4.0, "answers 500"),
    F.BANK_SLOW:                 (P.BANK,     3.0, 5.0, "answers some cards after the attempt's deadline"),
    F.BANK_SILENT:               (P.BANK,     1.0, 2.0, "drops connections after the effect"),
    F.BANK_FORGETFUL:            (P.BANK,     2.0, 4.0, "forgets keys at once"),
    F.BANK_SILENT_AND_FORGETFUL: (P.BANK,     1.0, 2.0, "drops connections after the effect, and forgets the keys"),
    F.BANK_CONFUSED:             (P.BANK,     1.0, 2.0, "answers 400 internal_error after the effect"),
    F.BANK_UNREADABLE:           (P.BANK,     1.0, 2.0, "answers 200 with half a body"),
    F.BANK_MISMATCHED:           (P.BANK,     1.0, 2.0, "answers 200 about something else"),
    F.BANK_DOWN:                 (P.BANK,     3.0, 8.0, "SIGKILL, and down for a while"),
    F.BANK_STALLED:              (P.BANK,     6.5, 9.0, "SIGSTOP for longer than an attempt lasts, then SIGCONT"),
    F.REDIS_FLUSHED:             (P.REDIS,    1.0, 1.0, "FLUSHALL"),
    F.REDIS_KILLED:              (P.REDIS,    0.5, 3.0, "SIGKILL, back with its append-only file"),
    F.REDIS_EMPTIED:             (P.REDIS,    0.5, 3.0, "SIGKILL, back empty"),
    F.REDIS_REWOUND:             (P.REDIS,    2.0, 3.0, "SIGKILL, back without its last second"),
    F.REDIS_FULL:                (P.REDIS,    1.0, 4.0, "out of memory"),
    F.REDIS_STOPPED:             (P.REDIS,    2.0, 6.0, "SIGSTOP, then SIGCONT"),
    F.REDIS_CUT:                 (P.REDIS,    1.0, 1.0, "all connections cut"),
    F.REDIS_FAILED_OVER:         (P.REDIS,    3.0, 5.0, "fails over to a replica; open connections see READONLY"),
    F.REDIS_CLOCK_BACK:          (P.WORKER,   6.0, 6.0, "SIGKILL, and Redis's clock steps back by 2 h"),
    F.STREAM_TRIMMED:            (P.REDIS,    1.0, 1.0, "XTRIM to nothing of"),
    F.STREAM_DELETED:            (P.REDIS,    1.0, 1.0, "DEL of the streams of"),
    F.STREAM_SKIPPED:            (P.REDIS,    1.0, 1.0, "XGROUP SETID to the end of"),
    F.STREAM_DISOWNED:           (P.REDIS,    1.0, 1.0, "XGROUP DELCONSUMER with entries pending in"),
    F.STREAM_UNGROUPED:          (P.REDIS,    1.0, 1.0, "XGROUP DESTROY in"),
    F.POSTGRES_STOPPED:          (P.POSTGRES, 2.0, 8.0, "SIGSTOP, then SIGCONT"),
    F.POSTGRES_KILLED:           (P.POSTGRES, 1.0, 3.0, "SIGKILL, back after its recovery"),
    F.POSTGRES_CUT:              (P.POSTGRES, 1.0, 1.0, "all connections cut"),
}
# fmt: on

NEEDS: Mapping[ChaosFault, StruckPart] = {F.REDIS_CLOCK_BACK: P.REDIS}
"""Faults that strike a second part, too."""

_DAMAGE = (F.STREAM_TRIMMED, F.STREAM_DELETED, F.STREAM_SKIPPED, F.STREAM_DISOWNED, F.STREAM_UNGROUPED)
_ACTIONS = {F.WORKER_DIES: "kill", F.WORKER_SLEEPS: "stop", F.EDGE_DIES: "kill"}


def schedule(
    seed: int, seconds: float, *, workers: int, edges: int, only: Collection[ChaosFault] = ()
) -> tuple[Strike, ...]:
    """All strikes of a campaign that long, in the order of their moments. All are over when the time is."""
    draw = random.Random(seed)
    members = {part: [part.value] for part in StruckPart}
    members[StruckPart.WORKER] = [f"worker-{number + 1}" for number in range(workers)]
    members[StruckPart.EDGE] = [f"edge-{number + 1}" for number in range(edges)]
    free_at = dict.fromkeys((name for names in members.values() for name in names), 0.0)
    gap_s = min(GAP_S, seconds / STRIKES_MIN)
    strikes: list[Strike] = []
    deck: list[CardBehaviour] = []
    at_s = FIRST_AT_S
    while at_s < seconds - 1:
        deck = deck or _shuffled(draw, only)
        for card in deck:
            part, least_s, most_s, _ = FAULTS[card.fault]
            needed = members[NEEDS[card.fault]] if card.fault in NEEDS else []
            free = [name for name in members[part] if free_at[name] <= at_s]
            if not free or any(free_at[name] > at_s for name in needed):
                continue
            deck.remove(card)
            target, lasting_s = draw.choice(free), min(draw.uniform(least_s, most_s), seconds - at_s)
            for name in (target, *needed):
                free_at[name] = at_s + lasting_s + 0.5
            strikes.append(
                Strike(
                    at_s=round(at_s, 2),
                    lasting_s=round(lasting_s, 2),
                    fault=card.fault,
                    target=target,
                    failpoints=card.failpoints,
                    clock_s=card.clock_s,
                    partitions=card.partitions,
                )
            )
            break
        at_s += draw.uniform(0.5, 1.5) * gap_s
    return tuple(strikes)


def _shuffled(draw: random.Random, only: Collection[ChaosFault]) -> list[CardBehaviour]:
    deck = [card for card in _deck(draw) if not only or card.fault in only]
    draw.shuffle(deck)
    return deck


def _deck(draw: random.Random) -> Iterator[CardBehaviour]:
    """Every fault with its particulars; those at a crash point once for each point, exceptions at all points together,
    a worker's clock once ahead, once behind, once by the longest way, and once stepping."""
    for fault, (part, *_) in FAULTS.items():
        if fault is ChaosFault.WORKER_FAILS:
            points = ",".join(f"{point}:raise@{draw.randint(1, PASSINGS_MAX)}" for point in PATH)
            yield CardBehaviour(fault=fault, failpoints=points)
        elif fault in _ACTIONS:
            for point in PATH if part is StruckPart.WORKER else ACCEPTANCE:
                failpoints = f"{point}:{_ACTIONS[fault]}@{draw.randint(1, PASSINGS_MAX)}"
                yield CardBehaviour(fault=fault, failpoints=failpoints)
        elif fault in (ChaosFault.WORKER_CLOCK_WRONG, ChaosFault.EDGE_CLOCK_WRONG):
            ahead, behind = _skew_s(draw), -_skew_s(draw)
            steps = tuple(draw.choice((1, -1)) * _skew_s(draw) for _ in range(STEPS))
            single = (ahead, behind, SKEW_MAX_S) if part is StruckPart.WORKER else (draw.choice((ahead, behind)),)
            for clock_s in (*((offset_s,) for offset_s in single), steps):
                yield CardBehaviour(fault=fault, clock_s=clock_s)
        elif fault in _DAMAGE:
            damaged = draw.sample(range(PARTITIONS), draw.randint(1, DAMAGED_MAX))
            yield CardBehaviour(fault=fault, partitions=tuple(sorted(damaged)))
        else:
            yield CardBehaviour(fault=fault)


def _skew_s(draw: random.Random) -> float:
    """Seconds as likely as minutes, hours and days."""
    return round(math.exp(draw.uniform(math.log(SKEW_MIN_S), math.log(SKEW_MAX_S))), 1)
