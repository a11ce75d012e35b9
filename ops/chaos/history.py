"""What the shop knows: an order for each key it used, when it was accepted, its answer, when it was unknown.

The verdict takes the shop's word for what was accepted; everything else is read from the ledger and the bank.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class PurchaseStage(StrEnum):
    OPEN = "open"
    ENDED = "ended"  # there is a stored answer
    REVIEW = "review"  # the gateway says that a person must look
    STRANGE = "strange"  # an answer that no shop should get


@dataclass(slots=True, kw_only=True)
class OrderHistory:
    """One key and what became of it. `amount` is unique to its payment, so the bank's rows tell whose they are."""

    key: str
    path: str
    body: bytes | None = field(repr=False)
    verb: str
    amount: int
    payment: str | None = None
    asked_at: float = 0.0  # Unix time at which the request left that got the first 202 or answer
    accepted_at: float | None = None  # and at which that came
    stage: PurchaseStage = PurchaseStage.OPEN
    status: int | None = None
    digest: str | None = None
    unanswered: int = 0
    unknown_at: list[float] = field(default_factory=list)  # when a look-up said 404, though it was accepted
    unknown: bool = False  # and its key was not accepted again since
    complaints: list[str] = field(default_factory=list)

    def accept(self, payment: str, asked_at: float) -> None:
        """A 202, or an answer: the gateway has it (again)."""
        if self.accepted_at is None:
            self.asked_at, self.accepted_at = asked_at, time.time()
        self.unknown = False
        if self.payment not in (None, payment):
            self.complaints.append(f"its key led to {self.payment} and to {payment}")
        self.payment = payment

    def end(self, status: int, body: bytes) -> None:
        """A stored answer. Every later one must be the same."""
        digest = hashlib.sha256(body).hexdigest()
        if self.digest is None:
            self.stage, self.status, self.digest = PurchaseStage.ENDED, status, digest
        elif (status, digest) != (self.status, self.digest):
            self.complaints.append(f"its key was answered {self.status} {self.digest} and then {status} {digest}")

    def lose(self) -> None:
        """It is 404, though it was accepted."""
        self.unknown = True
        self.unknown_at.append(time.time())


class PurchaseHistory:
    """All orders, and counts of them."""

    def __init__(self) -> None:
        self.orders: list[OrderHistory] = []
        self.answers: Counter[str] = Counter()  # by status, or what happened instead
        self.repeats = 0
        self.lookups = 0
        self.turned_away = 0
        self.late_s = 0.0  # how late the latest customer was let in: the shop's own doing, or the machine's

    def open(self, order: OrderHistory) -> OrderHistory:
        self.orders.append(order)
        return order

    @property
    def accepted(self) -> int:
        return sum(order.accepted_at is not None for order in self.orders)

    @property
    def unknown(self) -> int:
        """Accepted orders that a look-up did not find, and whose keys were not accepted again yet."""
        return sum(order.unknown for order in self.orders)

    @property
    def found_again(self) -> int:
        return sum(bool(order.unknown_at) and not order.unknown for order in self.orders)
