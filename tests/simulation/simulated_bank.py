"""A bank in memory after BANK.md, and the way to it: idempotent by key, forgetful about refusals, sometimes unreliable.

It looks a key up on arrival and stores it with the effect, only for a 2xx, and does not notice who hangs up meanwhile:
so two attempts that overlap are two effects. Every effect is counted under its key; those that are doubled because the
bank itself forgot a key or took longer than it promised are counted apart (`broke_promise`). Answers are HTTP's and go
through the connector's own reading (bank/dialect.py, bank/classification.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any

import orjson

from bank import dialect
from bank.classification import MESSAGES, NO_WORD, TEXT, Doubt, classify
from engine.contracts.connector import BankRequest, Capabilities, Clock
from engine.domain.bank_answer import Answer, Finding, NoAnswer, Refusal, Refused, Unsearchable, Unsent
from engine.domain.payment import DeclineCode, Verb
from simulation.simulated_loop import SimulatedLoop

JSON = "application/json"
_BACK_S = 0.002


class Mishap(StrEnum):
    """What can go wrong with one attempt."""

    FAILED = "failed"  # 500 before the effect
    HUNG_UP = "hung_up"  # the connection ends while the bank is at work, and it goes on
    DROPPED_BEFORE = "dropped_before"  # the connection ends, nothing was done
    DROPPED_AFTER = "dropped_after"  # the connection ends, it was done
    PROXY_FAILED = "proxy_failed"  # done, and a relay says 502
    COMMIT_LOST = "commit_lost"  # done, and the bank says 400 internal_error, and keeps no key
    UNREADABLE = "unreadable"  # done, and the 200 cannot be read
    MISMATCHING = "mismatching"  # done, and the 200 is about another amount
    LATE = "late"  # done in time, the answer comes after the deadline
    DECLINED = "declined"  # the card, or an expired authorization: the bank's own word, nothing done
    FORGOTTEN = "forgotten"  # done, connection ends, key lost: the bank breaks its promise
    OVERRUN = "overrun"  # takes longer than the deadline: the bank breaks its promise


@dataclass(frozen=True, kw_only=True)
class Habits:
    """`mishaps`: how likely each is, of one. `latency_s`: of an attempt that is worked on, below the deadline."""

    latency_s: tuple[float, float] = (0.005, 0.06)
    mishaps: Mapping[Mishap, float] = field(default_factory=dict)
    key_life_s: float = 86_400.0
    refused: float = 0.0  # share of connections refused: provably not sent


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Money moved, or a hold placed or released."""

    key: str
    verb: Verb
    at_s: float


@dataclass(kw_only=True)
class Attempt:
    """The newest attempt under a key."""

    first_at_s: float
    body: object
    number: int = 0
    over_at_s: float = 0.0  # until then another one overlaps with it
    kept: tuple[int, str, bytes] | None = None
    kept_at_s: float = 0.0


Response = tuple[int, str, bytes]
"""Status, content type, body."""

Answering = Callable[[Response | None, float], None]


class SimulatedBank:
    """`asked` is told of every attempt right before it is written: the ask and its number under its key."""

    def __init__(self, loop: SimulatedLoop, draw: Random, asked: Callable[[BankRequest, Attempt, float], None]) -> None:
        self._loop, self._draw, self._asked = loop, draw, asked
        self.habits = Habits()
        self.attempts: dict[str, Attempt] = {}
        self.effects: list[Effect] = []
        self.broke_promise: set[str] = set()  # keys
        self._holds: dict[str, tuple[int, bool]] = {}  # authorization to amount, and whether it still stands
        self._captures: dict[str, int] = {}
        self._refunded: set[str] = set()
        self._stalled: list[Callable[[], None]] | None = None  # what comes while it stands still

    def refuses(self) -> bool:
        """Whether the next connection is refused."""
        return self._draw.random() < self.habits.refused

    def stall(self) -> None:
        """Stand still: what is under way stays where it is, what comes waits, and nobody is answered."""
        if self._stalled is None:
            self._stalled = []

    def go_on(self) -> None:
        """Everything that waited is worked on, in the order in which it came."""
        waiting, self._stalled = self._stalled or [], None
        for work in waiting:
            work()

    def read(self, answer: Answering) -> None:
        """A look-up of something that is not there."""
        if not self._waits(partial(self.read, answer)):
            answer(_error(404, "not_found"), self._draw.uniform(*self.habits.latency_s))

    def receive(self, ask: BankRequest, left_s: float, answer: Answering) -> None:
        """Take in an attempt; `answer` is called once, with the response (None: it breaks off) and when it comes.
        Whoever asks waits for `left_s`."""
        now = self._loop.time()
        body = (ask.verb, ask.money, ask.reference, ask.card)
        attempt = self.attempts.setdefault(ask.bank_key, Attempt(first_at_s=now, body=body))
        attempt.number += 1
        self._asked(ask, attempt, now)
        attempt.over_at_s = now + left_s
        self._take_up(ask, attempt, left_s, answer)

    def _waits(self, work: Callable[[], None]) -> bool:
        if self._stalled is not None:
            self._stalled.append(work)
        return self._stalled is not None

    def _take_up(self, ask: BankRequest, attempt: Attempt, left_s: float, answer: Answering) -> None:
        """Look the key up, and begin. From a queue, it is not over before the bank has had its time for it."""
        now = self._loop.time()
        if self._waits(partial(self._take_up, ask, attempt, left_s, answer)):
            attempt.over_at_s = math.inf
            return None
        if attempt.over_at_s == math.inf:
            attempt.over_at_s = now + self.habits.latency_s[1]
        if attempt.kept is not None and now - attempt.kept_at_s <= self.habits.key_life_s:
            attempt.over_at_s = now
            return answer(attempt.kept, _BACK_S)
        mishap = self._mishap(ask.verb)
        latency_s = self._draw.uniform(*self.habits.latency_s)
        if mishap is Mishap.OVERRUN:
            self.broke_promise.add(ask.bank_key)
            latency_s = left_s * self._draw.uniform(1.1, 2.0)
        if mishap in (Mishap.OVERRUN, Mishap.HUNG_UP):
            answer(None, min(left_s, latency_s * self._draw.random()))
            answer = _nobody
        self._loop.outside(latency_s, self._work, ask, attempt, mishap, left_s, answer)
        return None

    def _mishap(self, verb: Verb) -> Mishap | None:
        chance = self._draw.random()
        for mishap, share in self.habits.mishaps.items():
            chance -= share
            if chance < 0:
                return mishap
        return None

    def _work(
        self, ask: BankRequest, attempt: Attempt, mishap: Mishap | None, left_s: float, answer: Answering
    ) -> None:
        """The handler: an effect or none, the key kept or not, an answer or none."""
        if self._waits(partial(self._work, ask, attempt, mishap, left_s, answer)):
            attempt.over_at_s = math.inf
            return None
        if attempt.over_at_s == math.inf:
            attempt.over_at_s = self._loop.time()
        match mishap:
            case Mishap.FAILED:
                attempt.over_at_s = self._loop.time()
                return answer(_error(500, "internal_error"), _BACK_S)
            case Mishap.DROPPED_BEFORE:
                return answer(None, _BACK_S)
        response = self._done(ask, declined=mishap is Mishap.DECLINED)
        if response[0] != 200:
            attempt.over_at_s = self._loop.time()
            return answer(response, _BACK_S)
        if mishap is Mishap.FORGOTTEN or (mishap is Mishap.COMMIT_LOST and ask.verb is Verb.AUTHORIZE):
            self.broke_promise.add(ask.bank_key)
        elif mishap is not Mishap.COMMIT_LOST:
            attempt.kept, attempt.kept_at_s = response, self._loop.time()
        match mishap:
            case Mishap.DROPPED_AFTER | Mishap.FORGOTTEN:
                return answer(None, _BACK_S)
            case Mishap.LATE:
                return answer(response, left_s + 0.1)
            case Mishap.PROXY_FAILED:
                return answer((502, "text/html", b"bad gateway"), _BACK_S)
            case Mishap.UNREADABLE:
                return answer((200, JSON, response[2][: len(response[2]) // 2]), _BACK_S)
        attempt.over_at_s = self._loop.time()
        if mishap is Mishap.COMMIT_LOST:
            return answer(_error(400, "internal_error"), _BACK_S)
        if mishap is Mishap.MISMATCHING and ask.verb is not Verb.VOID:
            other = {**orjson.loads(response[2]), "amount": ask.money.amount + 1}
            return answer((200, JSON, orjson.dumps(other)), _BACK_S)
        answer(response, _BACK_S)

    def _done(self, ask: BankRequest, *, declined: bool) -> Response:
        """The effect, or the refusal of one, in the bank's order of rules (BANK.md section 6)."""
        reference, amount = ask.reference or "", ask.money.amount
        number = len(self.effects)
        match ask.verb:
            case Verb.AUTHORIZE if declined:
                return _error(402, "insufficient_funds")
            case Verb.AUTHORIZE:
                self._holds[f"auth_{number}"] = (amount, True)
                named = {"authorization_id": f"auth_{number}", "expires_at": "2030-01-08T00:00:00Z"}
            case Verb.CAPTURE | Verb.VOID if reference not in self._holds:
                return _error(400, "authorization_not_found")
            case Verb.CAPTURE | Verb.VOID if not self._holds[reference][1]:
                return _error(400, "authorization_already_used")
            case Verb.CAPTURE if declined:
                return _error(400, "authorization_expired")
            case Verb.CAPTURE:
                self._holds[reference] = (amount, False)
                self._captures[f"cap_{number}"] = amount
                named = {"capture_id": f"cap_{number}", "authorization_id": reference}
            case Verb.VOID:
                self._holds[reference] = (amount, False)
                named = {"void_id": f"void_{number}", "authorization_id": reference}
            case Verb.REFUND if reference not in self._captures:
                return _error(400, "capture_not_found")
            case Verb.REFUND if reference in self._refunded:
                return _error(400, "already_refunded")
            case Verb.REFUND:
                self._refunded.add(reference)
                named = {"refund_id": f"ref_{number}", "capture_id": reference}
        self.effects.append(Effect(key=ask.bank_key, verb=ask.verb, at_s=self._loop.time()))
        endpoint = dialect.ENDPOINTS[ask.verb]
        said = {**named, "status": endpoint.status, "currency": "USD", "amount": amount}
        return 200, JSON, orjson.dumps({**said, endpoint.at: self._loop.clock()})


class SimulatedConnector:
    """What bank/ficmart.py does, without its sockets: the clock is looked at right before the write."""

    name = "ficmart_bank"
    capabilities = Capabilities(
        methods=frozenset({"card"}), currencies=frozenset({"USD"}), verbs=frozenset(Verb), partial_amounts=False
    )

    def __init__(self, bank: SimulatedBank, loop: SimulatedLoop, steady: Clock) -> None:
        self._bank, self._loop, self._clock = bank, loop, steady

    async def probe(self, timeout_s: float) -> bool:
        """A read that the bank carries out behind whatever it has to do first."""
        future = self._loop.create_future()
        self._bank.read(lambda response, after_s: self._loop.outside(after_s, _told, future, response))
        self._loop.outside(timeout_s, _told, future, None)
        return await future is not None

    async def ask(self, ask: BankRequest) -> Answer:
        if self._clock() >= min(ask.send_by, ask.deadline):
            return Unsent(reason="send_by had passed")
        if self._bank.refuses():
            return Unsent(reason="no connection to the bank", unreachable=True)
        future = self._loop.create_future()

        left_s = (ask.deadline - self._clock()).total_seconds()
        self._loop.outside(left_s, _told, future, None)
        self._bank.receive(ask, left_s, lambda response, after_s: self._loop.outside(after_s, _told, future, response))
        response = await future
        if response is None:
            return NoAnswer(reason="the bank's answer did not arrive whole and in time")
        return _translated(ask, *response)

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        return Unsearchable(reason="nobody looks anything up in a history")


def _nobody(response: Response | None, after_s: float) -> None:
    """Who asked has gone."""


def _told(future: Any, response: Response | None) -> None:
    if not future.done():
        future.set_result(response)


def _translated(ask: BankRequest, status: int, content_type: str, body: bytes) -> Answer:
    """As bank/ficmart.py reads it."""
    if status == 200:
        try:
            return dialect.approval(ask, body, {})
        except dialect.Mismatch as fault:
            return NoAnswer(reason=f"mismatch: {fault}", ask_again=False, over=True)
        except dialect.Unreadable as fault:
            return NoAnswer(reason=f"unreadable: {fault}")
    word = dialect.word(content_type, body)
    verdict = classify(ask.verb, status, word)
    if isinstance(verdict, Doubt):
        over = word not in (TEXT, NO_WORD)
        return NoAnswer(reason=f"{status} {word}", ask_again=verdict is Doubt.ASK_AGAIN, over=over)
    reason = verdict if isinstance(verdict, Refusal) else Refusal.DECLINED
    decline = verdict if isinstance(verdict, DeclineCode) else None
    return Refused(reason=reason, code=word, message=MESSAGES[verdict], decline_code=decline)


def _error(status: int, code: str) -> Response:
    return status, JSON, orjson.dumps({"error": code, "message": "as the bank says it"})
