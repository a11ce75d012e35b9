"""The gate before a bank: a connector that asks the breaker and the retry budget before it lets a call through.

What is not let through is Unsent: provably not done, no doubt, and told when to come again (I7). So a bank that is down
costs neither sockets nor time-outs, and one that comes back is not met by everybody at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from engine.breaker import Breaker, Circuit, Tolerance
from engine.meters import Meters
from engine.outcome import Answer, Approved, Finding, NoAnswer, Refused, Unsent
from engine.payment import Verb
from engine.ports import Ask, Capabilities, Connector
from engine.retry_budget import Allowance, RetryBudget

log = structlog.get_logger()

_BUDGET_AGAIN = timedelta(seconds=1)


class Gate:
    """A connector before another one; one per process, since each process sees the bank with its own eyes."""

    def __init__(self, inner: Connector, tolerance: Tolerance, allowance: Allowance, meters: Meters) -> None:
        self._inner, self._meters = inner, meters
        self._breaker = Breaker(tolerance)
        self._budget = RetryBudget(allowance, _now_s())
        self._show()

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    async def ask(self, ask: Ask) -> Answer:
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
        if self._breaker.circuit is not before:
            self._tell(before)
        if isinstance(answer, Unsent) and self._breaker.circuit is Circuit.OPEN:
            return replace(answer, wait=timedelta(seconds=self._breaker.closed_for_s(_now_s())))
        return answer

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


def _now_s() -> float:
    return asyncio.get_running_loop().time()
