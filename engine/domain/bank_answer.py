"""What a bank can say to one attempt. Three answers, three words: approved, refused, no answer (I7).

`Unsent` is the fourth thing that can happen: the attempt provably never left us, so nothing is in doubt. Connectors
translate their bank's dialect into these; the engine knows no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from engine.domain.payment import DeclineCode


class Refusal(StrEnum):
    """Why a bank refused. Decides the payment's next state together with the verb."""

    DECLINED = "declined"  # the card: authorize only
    EXPIRED = "expired"  # the authorization is too old to capture
    ALREADY_DONE = "already_done"  # the bank saw this, or its opposite, before: our own lost success, or a stranger's
    UNKNOWN_REFERENCE = "unknown_reference"  # the bank does not know an id that it gave us
    MISTAKE = "mistake"  # our request was wrong; nothing about the card
    RESOLVED = "resolved"  # no bank's answer: an operator found in the bank's statement that it was not done


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """Done. `reference` is the bank's id of what was done, `at` its own time of it (UTC); None where nobody knows."""

    reference: str | None
    at: datetime | None
    expires_at: datetime | None = None
    auth_code: str | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not done, and the bank said so. `code` is the bank's own word."""

    reason: Refusal
    code: str
    message: str
    decline_code: DeclineCode | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Done or not: nobody knows.

    `ask_again` is false where the bank itself might do it twice when asked again (I7). `over` is true when an HTTP
    response came, so this attempt has ended at the bank; otherwise it may still be at work there until its deadline.
    """

    reason: str
    ask_again: bool = True
    over: bool = False
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """Provably not done: the attempt never left us (refused connection, send_by passed, open breaker).

    `unreachable` is true when that is the bank's doing; `wait` is how long it is pointless to try again.
    """

    reason: str
    unreachable: bool = False
    wait: timedelta | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


Answer = Approved | Refused | NoAnswer | Unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The bank knows this id. `reference` as the bank writes it; `parent` is what was captured or refunded."""

    reference: str
    amount: int
    currency: str
    parent: str | None
    at: datetime | None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The bank says that it does not know the id. Of an id that it once gave, that may be a fault of its own."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsearchable:
    """The bank offers no look-up for this."""

    reason: str


Finding = Found | Absent | Unsearchable | NoAnswer
"""What a look-up of a bank's id came to."""
