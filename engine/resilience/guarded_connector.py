"""The gate before a bank: a connector that asks the breaker and the retry budget before it lets a call through.

What is not let through is Unsent: provably not done, no doubt, and told when to come again (I7). So a bank that is down
costs neither sockets nor time-outs, and one that comes back is not met by everybody at once. What went unanswered is
let through again only when the bank's queue is shown to be drained (drain_proof.py): by the answers to other calls, or
else by a probe.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from engine.contracts.connector import BankRequest, Capabilities, Connector
from engine.domain.bank_answer import Answer, Approved, Finding, NoAnswer, Refused, Unsent
from engine.domain.payment import Verb
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy, Circuit, CircuitBreaker
from engine.resilience.drain_proof import DrainProof
from engine.resilience.retry_budget import RetryBudget, RetryBudgetPolicy, Room

log = structlog.get_logger()

_BUDGET_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBackPolicy:
    """How long this bank may take to answer: an attempt or a probe at most, and a request that it works on."""

    attempt_s: float
    worst_latency_s: float


class GuardedConnector:
    """A connector before another one; one per process, since each process sees the bank with its own eyes."""

    def __init__(
        self,
        inner: Connector,
        tolerance: BreakerPolicy,
        allowance: RetryBudgetPolicy,
        patience: HoldBackPolicy,
        meters: EngineMetrics,
    ) -> None:
        self._inner, self._patience, self._meters = inner, patience, meters
        self._breaker = CircuitBreaker(tolerance)
        self._budget = RetryBudget(allowance, _now_s())
        self._drain = DrainProof(patience.worst_latency_s)
        self._probing = asyncio.Lock()
        self._probed_at_s = 0.0  # when the last probe was sent that has its end
        self._show()

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def lost(self, bank_key: str, in_s: float, owner: str = "") -> None:
        """Somebody else's attempt under this key may be written until so far ahead, and nobody will hear its answer."""
        self._drain.unanswered(_known_by(owner, bank_key), _now_s() + in_s)

    def drained(self, bank_key: str, owner: str = "") -> None:
        """The proof of another key, heard of no earlier, holds for this one too."""
        self._drain.ended(_known_by(owner, bank_key), _now_s())

    async def drained_in(self, bank_key: str, owner: str = "") -> float | None:
        """Seconds until what went unanswered may be sent again; None when the bank does not answer, so that it
        is not known. Probes the bank when no other call has shown it."""
        key = _known_by(owner, bank_key)
        if self._drain.wait_s(key, _now_s()) is None:
            await self._probe(_now_s())
        return self._drain.wait_s(key, _now_s())

    def room(self) -> Room:
        """What a retry would find here: while there is none, no time of anybody's has come."""
        now_s = _now_s()
        admitted = self._breaker.room(now_s)
        return Room(unsent=admitted, doubt=min(admitted, self._budget.left(now_s)))

    async def ask(self, ask: BankRequest) -> Answer:
        if ask.doubted:
            wait_s = await self.drained_in(ask.bank_key, ask.owner)
            if wait_s is None or wait_s > 0:
                return self._undrained(wait_s)
        now_s = _now_s()
        if ask.repeated and not self._budget.spend(now_s):
            self._meters.held_back.labels(self.name, "retry_budget").inc()
            return Unsent(reason="the retry budget of this bank is spent", wait=_BUDGET_AGAIN)
        before = self._breaker.circuit
        if not self._breaker.admits(now_s):
            self._meters.held_back.labels(self.name, "open_breaker").inc()
            wait = timedelta(seconds=self._breaker.closed_for_s(now_s))
            return Unsent(reason="the circuit breaker of this bank is open", wait=wait)
        if not ask.repeated:
            self._budget.fresh()
        answer: Answer | None = None
        try:
            answer = await self._inner.ask(ask)
        finally:  # the place of a probe must not be lost with a call that was cancelled
            self._learn(answer)
            self._note(ask, answer, now_s)
        if self._breaker.circuit is not before:
            self._tell(before)
        if isinstance(answer, Unsent) and self._breaker.circuit is Circuit.OPEN:
            return replace(answer, wait=timedelta(seconds=self._breaker.closed_for_s(_now_s())))
        return answer

    def _undrained(self, wait_s: float | None) -> Unsent:
        self._meters.held_back.labels(self.name, "undrained_queue").inc()
        if wait_s is None:
            reason = "the bank has answered nothing since an attempt of this went unanswered"
            return Unsent(reason=reason, wait=timedelta(seconds=self._breaker.closed_for_s(_now_s())))
        reason = "the bank may still be at work on an attempt that went unanswered"
        return Unsent(reason=reason, wait=timedelta(seconds=wait_s))

    async def _probe(self, asked_s: float) -> None:
        """One harmless read at a time; it serves everybody who asked before it was sent."""
        async with self._probing:
            sent_s = _now_s()
            if self._probed_at_s >= asked_s or not self._breaker.admits(sent_s):
                return
            answered: bool | None = None
            before = self._breaker.circuit
            try:
                answered = await self._inner.probe(self._patience.attempt_s)
                self._probed_at_s = sent_s
            finally:
                if answered is None:
                    self._breaker.withdrawn()
                elif answered:
                    self._breaker.answered()
                    self._drain.answered(sent_s, _now_s())
                else:
                    self._breaker.silent(_now_s())
            if self._breaker.circuit is not before:
                self._tell(before)

    def _note(self, ask: BankRequest, answer: Answer | None, sent_s: float) -> None:
        """What this call and its answer show of the bank's queue."""
        now_s, key = _now_s(), _known_by(ask.owner, ask.bank_key)
        match answer:
            case Approved() | Refused():
                self._drain.answered(sent_s, now_s)
                self._drain.forget(key)
            case NoAnswer(over=True):
                self._drain.answered(sent_s, now_s)
                self._drain.ended(key, now_s)
            case Unsent():
                pass
            case _:
                self._drain.unanswered(key, now_s)
        self._meters.undrained.labels(self.name).set(len(self._drain))

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        """Not held back: a person asks, rarely, and nothing can come of it but knowledge."""
        return await self._inner.look_up(verb, reference, timeout_s)

    async def probe(self, timeout_s: float) -> bool:
        return await self._inner.probe(timeout_s)

    def _learn(self, answer: Answer | None) -> None:
        match answer:
            case Approved() | Refused():
                self._breaker.answered()
            case NoAnswer() | Unsent(unreachable=True):
                self._breaker.silent(_now_s())
            case _:
                self._breaker.withdrawn()

    def _tell(self, before: Circuit) -> None:
        log.warning("circuit_breaker", connector=self.name, was=before, now=self._breaker.circuit)
        self._show()

    def _show(self) -> None:
        for circuit in Circuit:
            self._meters.circuit.labels(self.name, circuit).set(circuit is self._breaker.circuit)


def _known_by(owner: str, bank_key: str) -> str:
    """What one partition consumer knows of a key: between two of them another process may have asked under it."""
    return f"{owner}/{bank_key}"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
