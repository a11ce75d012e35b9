"""What will happen in a history, drawn from its seed before it begins: who runs, who pays for what, what goes wrong.

A plan is a value, printed before a trace; what it leaves open (latencies, which attempt meets which mishap, the order
of callbacks) is drawn from the same seed while the history runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from random import Random

from engine.domain.payment import Verb
from engine.domain.retry_policy import RetryPolicy
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.guarded_connector import HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy
from simulation.simulated_bank import Habits, Mishap
from simulation.simulated_network import Weather

FAULTS_END_S = 2.5
"""From then on nothing goes wrong any more, and everything accepted must come to its end."""


class Blow(StrEnum):
    """What a fault does."""

    KILL_WORKER = "kill worker"
    PAUSE_WORKER = "pause worker"
    STOP_WORKER = "stop worker"
    KILL_EDGE = "kill edge"
    PAUSE_EDGE = "pause edge"
    FLUSH_REDIS = "flush redis"
    FAIL_OVER_REDIS = "fail over redis"
    FILL_REDIS = "fill redis"
    LAY_HAND_ON_STREAM = "lay a hand on a stream"
    REDIS_WEATHER = "redis weather"
    POSTGRES_WEATHER = "postgres weather"
    BANK_HABITS = "bank habits"
    STALL_BANK = "stall bank"
    SKEW_WORKER = "skew a worker's clock"
    STEP_REDIS = "step Redis's clock"
    STEP_POSTGRES = "step Postgres's clock"


class Moment(StrEnum):
    """When a process is struck: anywhere, or where it hurts."""

    STEPS = "after some callbacks"  # so that every await is hit, not only those that take time
    COMMIT = "when Postgres has its next commit, and it does not know yet"
    ASK = "when it has asked the bank next"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`lasts_s`: until it is over (a killed or stopped process: until its successor starts). From `at_s` on a process
    is struck at the `moment`."""

    blow: Blow
    at_s: float
    lasts_s: float
    target: int = 0
    moment: Moment = Moment.STEPS
    steps: int = 1
    weather: Weather | None = None
    habits: Habits | None = None
    ahead_s: float = 0.0  # of a clock


@dataclass(frozen=True, kw_only=True)
class Act:
    """One thing asked for a payment, `copies` times at once. `wait_s` is the client's Prefer: wait."""

    verb: Verb
    pause_s: float
    wait_s: float
    copies: int = 1
    alone: bool = True  # answered before the next one is asked for


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """One payment as its shop sees it; the first act is its authorize."""

    number: int
    at_s: float
    amount: int
    sale: bool
    acts: tuple[Act, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    seed: int
    partitions: int
    workers: int
    edges: int
    purchases: tuple[Purchase, ...]
    faults: tuple[Fault, ...]
    habits: Habits
    policy: RetryPolicy
    tolerance: BreakerPolicy
    allowance: RetryBudgetPolicy
    patience: HoldBackPolicy
    record_ttl_ms: int
    lease_ms: int
    sweep_ms: int
    read_batch: int
    places: int
    backlog: int
    open_operations: int
    shuffled: bool
    deliveries_max: int  # of an entry, before it is run alone

    @property
    def forgetful(self) -> bool:
        """Whether Redis loses something in it."""
        return any(fault.blow in (Blow.FLUSH_REDIS, Blow.FAIL_OVER_REDIS) for fault in self.faults)


def plan_of(seed: int) -> Plan:
    draw = Random(seed)
    hurried = draw.random() < 0.1  # keys of the bank live for seconds, so that reviews by age are seen
    key_life_s, timeout_s = 3.0 if hurried else 82_800.0, draw.choice((0.6, 0.6, 1.8))
    purchases = tuple(_purchase(draw, number) for number in range(draw.choice((1, 2, 2, 3, 3, 4))))
    faults = [_fault(draw, purchases, timeout_s, key_life_s) for _ in range(draw.randint(1, 4))]
    # Both stores' clocks wrong at once leave nobody to believe: then nothing goes on, as it should.
    wrong = next((fault.blow for fault in faults if fault.blow in _OF_STORES), None)
    faults = [fault for fault in faults if fault.blow not in _OF_STORES or fault.blow is wrong]
    return Plan(
        seed=seed,
        partitions=draw.choice((1, 2, 2, 3)),
        workers=draw.choice((2, 2, 2, 3)),
        edges=draw.choice((1, 1, 2)),
        purchases=purchases,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        habits=_habits(draw, calm=draw.random() < 0.5, timeout_s=timeout_s, key_life_s=key_life_s * 1.5),
        policy=RetryPolicy(
            send_window=timedelta(milliseconds=200),
            attempt_timeout=timedelta(seconds=timeout_s),
            attempts_in_hand=draw.choice((1, 2, 3)),
            attempts_max=draw.choice((6, 30)),
            retry_base=timedelta(milliseconds=50),
            retry_cap=timedelta(milliseconds=200),
            park_base=timedelta(milliseconds=200),
            park_cap=timedelta(milliseconds=800),
            bank_key_life=timedelta(seconds=key_life_s),
            expiry_notice=timedelta(days=1),
            expiry_grace=timedelta(minutes=5),
        ),
        tolerance=BreakerPolicy(silences_max=draw.choice((2, 1000)), rest_s=0.1, rest_cap_s=0.5, probes=1),
        allowance=RetryBudgetPolicy(share=0.2, floor_per_s=draw.choice((2.0, 1000.0))),
        patience=HoldBackPolicy(attempt_s=timeout_s, worst_latency_s=timeout_s),
        record_ttl_ms=draw.choice((500, 60_000)),
        lease_ms=1000,
        sweep_ms=500,
        read_batch=draw.choice((1, 3, 50)),
        places=draw.choice((1, 50)),
        backlog=draw.choice((3, 100)),
        open_operations=draw.choice((2, 64)),
        shuffled=draw.random() < 0.5,
        deliveries_max=draw.choice((0, 5, 5)),  # with 0 every owner begins with all that is pending, entry by entry
    )


def _purchase(draw: Random, number: int) -> Purchase:
    """Most shops do the usual; some ask for things at once that exclude each other, and some ask twice."""
    sale = draw.random() < 0.3
    follow: tuple[tuple[Verb, ...], ...] = (
        (),
        (),
        (Verb.CAPTURE,),
        (Verb.CAPTURE,),
        (Verb.VOID,),
        (Verb.CAPTURE, Verb.REFUND),
        (Verb.CAPTURE, Verb.VOID),
        (Verb.VOID, Verb.CAPTURE),
        (Verb.REFUND,),
    )
    alone = draw.random() < 0.5
    verbs = (Verb.AUTHORIZE, *draw.choice(follow))
    acts = tuple(
        Act(
            verb=verb,
            pause_s=draw.choice((0.0, 0.01, 0.2, 0.6)),
            wait_s=draw.choice((0.0, 1.0, 3.0)) if alone else 0.0,
            copies=2 if draw.random() < 0.15 else 1,
            alone=alone,
        )
        for verb in verbs
    )
    return Purchase(number=number, at_s=draw.uniform(0.1, 1.6), amount=1000 + number, sale=sale, acts=acts)


def _fault(draw: Random, purchases: Sequence[Purchase], timeout_s: float, key_life_s: float) -> Fault:
    """Most strike a moment after somebody began to pay: who does nothing has nothing to lose."""
    blow = draw.choices(list(_CHANCES), weights=list(_CHANCES.values()))[0]
    weather = habits = None
    if blow in (Blow.REDIS_WEATHER, Blow.POSTGRES_WEATHER):
        weather = _weather(draw)
    elif blow is Blow.BANK_HABITS:
        habits = _habits(draw, calm=False, timeout_s=timeout_s, key_life_s=key_life_s * 1.5)
    busy = draw.random() < 0.7
    at_s = draw.choice(purchases).at_s + draw.uniform(0.0, 0.2) if busy else draw.uniform(0.1, 2.0)
    longest_s = 2.2 if blow is Blow.PAUSE_WORKER else FAULTS_END_S - 0.1 - at_s
    return Fault(
        blow=blow,
        at_s=at_s,
        lasts_s=draw.uniform(0.05, longest_s),
        target=draw.randrange(8),
        moment=draw.choice((Moment.STEPS, Moment.STEPS, Moment.COMMIT, Moment.ASK)),
        steps=draw.randint(1, 60),
        weather=weather,
        habits=habits,
        ahead_s=draw.choice(_AHEAD_S) if blow in _OF_CLOCKS else 0.0,
    )


_OF_CLOCKS = (Blow.SKEW_WORKER, Blow.STEP_REDIS, Blow.STEP_POSTGRES)
_OF_STORES = (Blow.STEP_REDIS, Blow.STEP_POSTGRES)
_AHEAD_S = (-7200.0, -20.0, -4.0, -1.5, 1.5, 4.0, 20.0, 3600.0, 8 * 86_400.0)

# fmt: off
_CHANCES = {
    Blow.KILL_WORKER:      5,
    Blow.PAUSE_WORKER:     5,
    Blow.STOP_WORKER:      2,
    Blow.KILL_EDGE:        2,
    Blow.PAUSE_EDGE:       1,
    Blow.FLUSH_REDIS:      2,
    Blow.FAIL_OVER_REDIS:  2,
    Blow.FILL_REDIS:       1,
    Blow.LAY_HAND_ON_STREAM: 3,
    Blow.REDIS_WEATHER:    4,
    Blow.POSTGRES_WEATHER: 4,
    Blow.BANK_HABITS:      3,
    Blow.STALL_BANK:       3,
    Blow.SKEW_WORKER:      3,
    Blow.STEP_REDIS:       2,
    Blow.STEP_POSTGRES:    1,
}

_MISHAPS = {
    # the share of a bank on a bad day
    Mishap.FAILED:         0.10,
    Mishap.HUNG_UP:        0.10,
    Mishap.DROPPED_BEFORE: 0.05,
    Mishap.DROPPED_AFTER:  0.10,
    Mishap.PROXY_FAILED:   0.05,
    Mishap.LATE:           0.10,
    Mishap.UNREADABLE:     0.05,
    Mishap.COMMIT_LOST:    0.03,
    Mishap.MISMATCHING:    0.02,
    Mishap.DECLINED:       0.10,
    Mishap.FORGOTTEN:      0.02,
    Mishap.OVERRUN:        0.02,
}
# fmt: on


def _habits(draw: Random, *, calm: bool, timeout_s: float, key_life_s: float) -> Habits:
    """A bank that works, or one on a bad day: some of the mishaps, or nobody there at all."""
    latency_s = draw.choice(((0.002, 0.01), (0.005, 0.06), (0.1 * timeout_s, 0.85 * timeout_s)))
    if calm:
        return Habits(latency_s=latency_s, key_life_s=key_life_s)
    if draw.random() < 0.2:
        return Habits(latency_s=latency_s, key_life_s=key_life_s, refused=1.0)
    mishaps = {mishap: share for mishap, share in _MISHAPS.items() if draw.random() < 0.6}
    return Habits(latency_s=latency_s, key_life_s=key_life_s, mishaps=mishaps, refused=draw.choice((0.0, 0.2)))


def _weather(draw: Random) -> Weather:
    kind = draw.random()
    if kind < 0.3:
        return Weather(away=True)
    return Weather(
        latency_s=draw.choice(((0.0005, 0.003), (0.02, 0.2))),
        delayed=draw.choice((0.0, 0.1, 0.5)),
        lost_requests=draw.choice((0.0, 0.1, 0.3)),
        lost_replies=draw.choice((0.0, 0.1, 0.3)),
    )
