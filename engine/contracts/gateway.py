"""What a client asks of the engine and what comes back: the contracts between the edge and the engine.

Implemented by acceptance.py (Accepting), queries.py (Enquiring), timeline.py (Telling) and operator_actions.py
(Operating); the edge knows nothing else of the engine's shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.domain.money import Money
from engine.domain.payment import Card, Details, Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """Who asks, under which key, and how long they are ready to wait (0 = answer 202 at once)."""

    merchant: str
    key: str
    wait_s: float
    request_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """A validated body of POST /v1/payments. `sale` is `capture: true`."""

    money: Money
    details: Details
    card: Card
    sale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """What to send back: rendered bytes and where they come from. `body` is a problem document from 400 up."""

    status: int
    body: bytes
    payment: str
    operation: str
    replayed: bool = False
    waited: bool = False  # Prefer: wait was honoured


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """What an operator wants done, and why.

    `merchant` and `key` are the scope of an idempotency key, for acts over HTTP; `operation` picks one of a payment's;
    `word` is what a resolve says that the bank did: outcome, reference, auth_code, bank_at, expires_at; a correction
    says a reference.
    """

    reason: str
    actor: str
    merchant: str | None = None
    key: str | None = None
    request_id: str | None = None
    wait_s: float = 0.0
    operation: str | None = None
    word: Mapping[str, str] = field(default_factory=dict)


class Commands(Protocol):
    """The acceptor as the edge sees it. Raises Rejected and Unavailable (errors.py)."""

    async def authorize(self, origin: RequestContext, new: NewPayment) -> StoredResponse: ...

    async def operate(self, origin: RequestContext, payment: str, verb: Verb, amount: int | None) -> StoredResponse: ...


class Queries(Protocol):
    """Reading, as the edge sees it: rendered JSON bytes. Raises Rejected("not_found") and Unavailable."""

    async def payment(self, merchant: str, payment: str) -> bytes: ...

    async def payments(
        self,
        merchant: str,
        *,
        order_id: str | None,
        customer_id: str | None,
        status: str | None,
        limit: int,
        cursor: str | None,
    ) -> bytes: ...

    async def operation(self, merchant: str, operation: str) -> bytes: ...

    async def operations(self, merchant: str, key: str, limit: int, cursor: str | None) -> bytes: ...

    async def shippable(self, merchant: str, payment: str) -> bytes: ...


class TimelineQueries(Protocol):
    """What happened to a payment, rendered. Raises Rejected("not_found") and Unavailable."""

    async def timeline(self, merchant: str, payment: str) -> bytes: ...


class OperatorCommands(Protocol):
    """The operator's desk as the edge sees it. Raises Rejected and Unavailable."""

    async def dead_letters(self, limit: int, cursor: str | None) -> bytes: ...

    async def dead_letter(self, letter: str) -> bytes: ...

    async def requeue(self, asked: ActionRequest, letter: str) -> StoredResponse: ...

    async def drop(self, asked: ActionRequest, letter: str) -> StoredResponse: ...

    async def retry(self, asked: ActionRequest, payment: str) -> StoredResponse: ...

    async def resolve(self, asked: ActionRequest, payment: str) -> StoredResponse: ...

    async def correct(self, asked: ActionRequest, payment: str) -> StoredResponse: ...
