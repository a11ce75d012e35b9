"""What the engine asks of the world outside it: a connector to a bank, a clock.

Implemented in bank/ (connectors) and ops/assembly (clock). A connector translates and classifies; it never retries,
never decides about the payment and never logs a card.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.domain.bank_answer import Answer, Finding
from engine.domain.money import Money
from engine.domain.payment import Card, Verb

Clock = Callable[[], datetime]
"""Now, in UTC. Injected, so that tests own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a connector can do; the edge refuses the rest before anything is accepted."""

    methods: frozenset[str]
    currencies: frozenset[str]
    verbs: frozenset[Verb]
    partial_amounts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRequest:
    """One committed attempt at the bank.

    `reference` is the bank's id of what is captured, voided (authorization) or refunded (capture); None to authorize.
    Nothing may be written to the socket after `send_by`, and the call is given up at `deadline`; both are times of the
    connector's own clock, which never steps. `repeated`: the bank left an earlier attempt of it unanswered. `doubted`:
    so it did, or nobody knows, because that attempt's owner is gone. `owner`: the partition consumer that committed it,
    of whose attempts alone it is known here what became of them.
    """

    bank_key: str
    verb: Verb
    money: Money
    card: Card | None
    reference: str | None
    send_by: datetime
    deadline: datetime
    traceparent: str | None
    repeated: bool = False
    doubted: bool = False
    owner: str = ""


class Connector(Protocol):
    """The way to one bank. Nothing here raises but for bugs.

    `look_up` and `probe` read, change nothing, carry no card, and are over within `timeout_s`. `probe` tells whether
    the bank itself answers, whatever it says.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def ask(self, ask: BankRequest) -> Answer: ...

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding: ...

    async def probe(self, timeout_s: float) -> bool: ...
