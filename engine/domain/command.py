"""What a client's request is on its way through the engine: a command, its idempotency record, its open operation.

streams/encoding.py writes them to Redis and reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from engine.domain.payment import MaskedCard, Terms, Verb, details_of

_SEQUENCE_SPAN = 1_000_000  # entries of one millisecond; keeps accept_order within a bigint until the year 2262
_LAST_MS = (2**63 - 1) // _SEQUENCE_SPAN - 1  # a later id was made by hand; the ledger must be able to hold its order


class Command(Struct, frozen=True, kw_only=True):
    """One accepted request on its way to the payment's actor. `terms` and `sealed` come with an authorize only."""

    operation: str
    payment: str
    verb: Verb
    merchant: str
    key: str
    amount: int | None  # None: the full amount
    terms: Terms | None
    sealed: str | None
    sale: bool
    fingerprint: Mapping[str, str]
    request_id: str
    traceparent: str | None
    reply_to: str | None  # the edge where somebody waits
    accepted_at: datetime


def terms_to_json(terms: Terms) -> dict[str, object]:
    return {
        "amount": terms.money.amount,
        "currency": terms.money.currency,
        **details_of(terms),
        "method": method_to_json(terms.method),
        "connector": terms.connector,
    }


def method_to_json(method: MaskedCard) -> dict[str, object]:
    return {
        "type": method.type,
        "brand": method.brand,
        "last4": method.last4,
        "expiry_month": method.expiry_month,
        "expiry_year": method.expiry_year,
    }


def accept_order(entry_id: str) -> int:
    """A stream entry's id `ms-seq` as one integer that sorts the same way."""
    milliseconds, _, sequence = entry_id.partition("-")
    return min(int(milliseconds), _LAST_MS) * _SEQUENCE_SPAN + min(int(sequence), _SEQUENCE_SPAN - 1)


def order_at(moment: datetime) -> int:
    """The order of an entry that is added at this moment."""
    return accept_order(f"{int(moment.timestamp() * 1000)}-0")


def accepted_at(order: int) -> datetime | None:
    """When that entry was added, by Redis's clock; None for an order that no entry gave."""
    milliseconds = order // _SEQUENCE_SPAN
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if 0 < milliseconds < _LAST_MS else None


def accepted_ms(order: int) -> int:
    """When a command with this accept order was accepted, by Redis' clock, in ms of Unix time."""
    return order // _SEQUENCE_SPAN


class IdempotencyRecord(Struct, frozen=True, kw_only=True):
    """The idempotency record of one operation. Settled once it holds a response; then never changed (I6).

    `entry` is the stream entry that carries an unsettled one; accept, revive and requeue write it, at the beginning.
    """

    fingerprint: Mapping[str, str]
    status: int | None = None
    body: bytes | None = None
    entry: str | None = None

    @property
    def settled(self) -> bool:
        return self.status is not None


class OpenOperation(Struct, frozen=True, kw_only=True):
    """One accepted, unsettled operation as GET may show it before the ledger knows it. `body` is the public payment.

    `dead_letter` is set (by bury-4) while its command lies among the dead letters, for a person to decide.
    """

    operation: str
    verb: Verb
    merchant: str
    accepted_at: datetime
    body: bytes
    dead_letter: str | None = None
