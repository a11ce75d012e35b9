"""A bank inside the process: approves everything at once. For load tests and as the simulated provider.

Remembers nothing: its references are derived from the bank key, so the same key gets the same reference, in any process
and after any restart. Its failures happen before the effect, as those of the FicMart bank's chaos do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from random import Random

import anyio

from engine.contracts.connector import BankRequest, Capabilities, Clock
from engine.domain.bank_answer import Answer, Approved, Finding, NoAnswer, Unsearchable, Unsent
from engine.domain.money import CURRENCIES
from engine.domain.payment import Verb

AUTHORIZATION_LIFE = timedelta(days=7)

PREFIXES: Mapping[Verb, str] = {
    Verb.AUTHORIZE: "auth_",
    Verb.CAPTURE: "cap_",
    Verb.VOID: "void_",
    Verb.REFUND: "ref_",
}


class InstantBank:
    """`latency_ms` is the least and the most an answer takes; `failure_rate` (0 to 1) the share without an answer."""

    def __init__(
        self,
        *,
        clock: Clock,
        name: str = "instant",
        methods: frozenset[str] = frozenset({"card"}),
        latency_ms: tuple[int, int] = (0, 0),
        failure_rate: float = 0.0,
        random: Random | None = None,
    ) -> None:
        if not 0 <= latency_ms[0] <= latency_ms[1]:
            raise ValueError(f"latency_ms must be two numbers, the lower one first, not {latency_ms!r}")
        if not 0 <= failure_rate <= 1:
            raise ValueError(f"failure_rate must lie between 0 and 1, not be {failure_rate!r}")
        self._name = name
        self._clock = clock
        self._latency_ms = latency_ms
        self._failure_rate = failure_rate
        self._random = random or Random()
        self._capabilities = Capabilities(
            methods=methods, currencies=CURRENCIES, verbs=frozenset(Verb), partial_amounts=False
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def ask(self, ask: BankRequest) -> Answer:
        began = self._clock()
        if began >= min(ask.send_by, ask.deadline):
            return Unsent(reason="send_by had passed")
        latency_s = self._random.uniform(*self._latency_ms) / 1000
        left_s = (ask.deadline - began).total_seconds()
        if latency_s > 0:
            await anyio.sleep(min(latency_s, left_s))
        if latency_s >= left_s or self._random.random() < self._failure_rate:
            return NoAnswer(reason="a failure of the simulated bank")
        at = self._clock()
        digest = hashlib.sha256(ask.bank_key.encode()).hexdigest()
        return Approved(
            reference=PREFIXES[ask.verb] + digest[:32],
            at=at,
            expires_at=at + AUTHORIZATION_LIFE if ask.verb is Verb.AUTHORIZE else None,
        )

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        """It remembers nothing, so it can be asked nothing."""
        return Unsearchable(reason="the simulated bank remembers nothing")

    async def probe(self, timeout_s: float) -> bool:
        return True
