"""The crowd: customers that arrive by the clock, whatever the gateway does, with baskets drawn by the seed.

Amounts are unique to their payments: the bank's rows carry no other mark of ours. Some cards are frail: theirs may be
answered later than an attempt's deadline while all others are answered as ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import anyio
from anyio.abc import TaskGroup

from bank.simulator.card import extra_card
from ops.chaos.client import Counter
from ops.chaos.history import PurchaseHistory
from ops.chaos.purchase import Basket, Purchase

CARDS = 200
FRAIL = 4
FRAIL_SHARE = 0.05
DECLINED_SHARE = 0.03
AMOUNT_MIN = 1000  # plus the serial number
TICK_S = 0.02
PRESENT_MAX = 1200  # more would only keep this machine busy with their repeats; who comes then is turned away

# fmt: off
BASKETS: tuple[tuple[tuple[str, ...], int], ...] = (
    # what a customer does                weight
    (("authorize",),                      20),
    (("authorize", "capture"),            25),
    (("authorize", "void"),               15),
    (("authorize", "capture", "refund"),  15),
    (("sale",),                           15),
    (("sale", "refund"),                  5),
    (("authorize", "capture", "void"),    3),   # the void comes too late: 409, for ever
    (("authorize", "void", "capture"),    2),
)
# fmt: on


def frail_cards() -> list[str]:
    return [extra_card(number) for number in range(CARDS, CARDS + FRAIL)]


def baskets(seed: int) -> Iterator[Basket]:
    """Without end. The same seed gives the same baskets."""
    draw = random.Random(seed)
    sturdy, frail = [extra_card(number) for number in range(CARDS)], frail_cards()
    weights = [weight for _, weight in BASKETS]
    serial = 0
    while True:
        serial += 1
        yield Basket(
            serial=serial,
            steps=draw.choices(BASKETS, weights)[0][0],
            card=draw.choice(frail if draw.random() < FRAIL_SHARE else sturdy),
            amount=AMOUNT_MIN + serial,
            right_cvv=draw.random() >= DECLINED_SHARE,
        )


class Crowd:
    """Lets customers arrive until the counter closes; `run` ends when the last of them has left."""

    def __init__(self, seed: int, rate_per_s: float, counter: Counter, till: PurchaseHistory) -> None:
        self._baskets, self._rate_per_s = baskets(seed), rate_per_s
        self._counter, self._till, self._draw = counter, till, random.Random(seed)
        self.present = 0

    async def run(self) -> None:
        began, arrived = time.monotonic(), 0
        async with anyio.create_task_group() as customers:
            while not self._counter.closing:
                elapsed_s = time.monotonic() - began
                due = int(elapsed_s * self._rate_per_s)
                if due > arrived:
                    self._till.late_s = max(self._till.late_s, elapsed_s - (arrived + 1) / self._rate_per_s)
                for _ in range(due - arrived):
                    if self.present < PRESENT_MAX:
                        self._let_in(customers)
                    else:
                        self._till.turned_away += 1
                arrived = due
                await anyio.sleep(TICK_S)

    def _let_in(self, customers: TaskGroup) -> None:
        purchase = Purchase(next(self._baskets), self._counter, self._till, random.Random(self._draw.random()))
        self.present += 1
        customers.start_soon(self._serve, purchase)

    async def _serve(self, purchase: Purchase) -> None:
        try:
            await purchase.run()
        finally:
            self.present -= 1
