"""The journal of a payment: append-only rows, gapless, chained by HMAC, each with its one event to the merchant (I8).

mac = HMAC-SHA256(key, previous mac + canonical JSON of the row). Whoever edits, drops or reorders a row breaks
the chain.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime

import orjson
from msgspec import Struct

from engine.domain.ids import event_id
from engine.domain.lifecycle import Event
from engine.domain.payment import PaymentState


class JournalEntry(Struct, frozen=True, kw_only=True):
    """One journal row with the event it sends. `evidence` is what the row rests on: no card data, ever."""

    payment: str
    sequence: int
    from_state: PaymentState | None
    to_state: PaymentState
    event: Event
    operation: str
    at: datetime
    evidence: Mapping[str, object]


class Chained(Struct, frozen=True, kw_only=True):
    """An entry with its mac, ready to be written."""

    entry: JournalEntry
    mac: str

    @property
    def event_id(self) -> str:
        return event_id(self.entry.payment, self.entry.sequence)


class Journal:
    """Chains entries under a key derived from the installation's permanent key."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"penstock journal", hashlib.sha256)

    def chain(self, head: str, entry: JournalEntry) -> Chained:
        """`head` is the mac of the previous row, "" before the first."""
        row = (
            entry.payment,
            entry.sequence,
            entry.from_state,
            entry.to_state,
            entry.event,
            entry.operation,
            entry.at,
            entry.evidence,
        )
        return Chained(entry=entry, mac=self.mac(head, row))

    def mac(self, head: str, row: tuple[object, ...]) -> str:
        """Of a row behind this head: payment, sequence, from, to, event, operation, at (in UTC), evidence."""
        # Timestamps as the ledger writes them into `evidence`: whoever verifies the chain has the stored text only.
        canonical = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._key, head.encode() + canonical, "sha256").hex()
