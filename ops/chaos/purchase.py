"""One customer's purchase: a few operations on one payment, each under a key that is repeated until there is an answer.

It does what the README tells shops: repeat a key that got no answer, a 429 or a 503; look the payment up after a 202;
repeat the key when the look-up says 404, or nothing new for long; take the stored answer when the operation has ended.
One operation at a time.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import anyio
import orjson

from bank.simulator.card import EXTRA_CARD_CVV
from ops.chaos.client import ClientAnswer, Counter
from ops.chaos.history import OrderHistory, PurchaseHistory, PurchaseStage

WAIT_S = 5  # what some customers' requests prefer to wait for
LOOK_FIRST_S, LOOK_GROWTH, LOOK_MAX_S = 1.0, 1.5, 5.0
REPEAT_FIRST_S, REPEAT_MAX_S = 0.3, 5.0
NEWS_S = 12.0  # what is accepted and not ended after that is asked for again: its entry may be lost, and its record not
REPLAY_SHARE = 0.1  # of the answered keys that are repeated once more, to see the same bytes
WAIT_SHARE = 0.33
FINAL = frozenset({200, 201, 402, 409})
_ENDED = frozenset({"succeeded", "declined", "rejected", "failed"})


class LookUpResult(StrEnum):
    """What a look-up says about an order."""

    WAITING = "waiting"
    ANSWERED = "answered"
    GONE = "gone"
    UNSEEN = "unseen"  # neither in the ledger nor shown as accepted: Redis is away, or has lost it
    REVIEW = "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """What a customer will do. `steps` begin with authorize or sale; `right_cvv` is false for a card to be declined."""

    serial: int
    steps: tuple[str, ...]
    card: str
    amount: int
    right_cvv: bool


class Purchase:
    """Run `run` once."""

    def __init__(self, basket: Basket, counter: Counter, till: PurchaseHistory, draw: random.Random) -> None:
        self._basket, self._counter, self._till, self._draw = basket, counter, till, draw
        self._payment = ""

    async def run(self) -> None:
        """All steps, as far as they are answered before the shop closes for good."""
        for number, step in enumerate(self._basket.steps):
            if number and self._counter.closing:
                return
            order = self._order(step)
            await self._carry_through(order)
            if order.stage is not PurchaseStage.ENDED or order.payment is None:
                return
            self._payment = order.payment
            if order.status == 402:
                return
            if self._draw.random() < REPLAY_SHARE:
                await take(order, self._counter, self._till)

    async def _carry_through(self, order: OrderHistory) -> None:
        pause_s = REPEAT_FIRST_S
        while not self._counter.closed:
            wait_s = WAIT_S if self._draw.random() < WAIT_SHARE else 0
            status = await take(order, self._counter, self._till, wait_s)
            if order.stage is not PurchaseStage.OPEN:
                return
            if status == 202:
                pause_s = REPEAT_FIRST_S
                if await self._look_until_news(order) is LookUpResult.REVIEW:
                    order.stage = PurchaseStage.REVIEW
                    return
            else:
                await anyio.sleep(pause_s * self._draw.uniform(0.5, 1))
                pause_s = min(2 * pause_s, REPEAT_MAX_S)

    async def _look_until_news(self, order: OrderHistory) -> LookUpResult:
        pause_s, until = LOOK_FIRST_S, time.monotonic() + NEWS_S
        while True:
            await anyio.sleep(pause_s * self._draw.uniform(0.7, 1))
            pause_s = min(pause_s * LOOK_GROWTH, LOOK_MAX_S)
            found = await self._look(order)
            if found is LookUpResult.GONE:
                order.lose()
            if found is not LookUpResult.WAITING or self._counter.closed or time.monotonic() > until:
                return found

    async def _look(self, order: OrderHistory) -> LookUpResult:
        self._till.lookups += 1
        answer = await self._counter.get(f"/v1/payments/{order.payment}")
        if answer is None or answer.status not in (200, 404):
            return LookUpResult.WAITING
        if answer.status == 404:
            return LookUpResult.GONE
        shown = orjson.loads(answer.body)["operation"]
        if shown["status"] == "review":
            return LookUpResult.REVIEW
        if order.verb in ("authorize", "sale"):  # a sale shows its capture in the end
            return LookUpResult.ANSWERED if shown["status"] in _ENDED else LookUpResult.WAITING
        if (shown["verb"], shown["status"]) == (order.verb, "accepted"):
            return LookUpResult.WAITING
        answer = await self._counter.get(f"/v1/operations?idempotency_key={order.key}")
        if answer is None or answer.status != 200:
            return LookUpResult.WAITING
        operations = orjson.loads(answer.body)["data"]
        if not operations:
            return LookUpResult.UNSEEN
        if operations[0]["status"] == "review":
            return LookUpResult.REVIEW
        return LookUpResult.ANSWERED if operations[0]["settled_at"] else LookUpResult.WAITING

    def _order(self, step: str) -> OrderHistory:
        basket = self._basket
        verb = "authorize" if step == "sale" else step
        path = "/v1/payments" if verb == "authorize" else f"/v1/payments/{self._payment}/{verb}"
        return self._till.open(
            OrderHistory(
                key=f"{self._counter.run}-{basket.serial}-{step}",
                path=path,
                body=body_of(basket) if verb == "authorize" else None,
                verb=step,
                amount=basket.amount,
            )
        )


def body_of(basket: Basket) -> bytes:
    """The body of the first step."""
    cvv = EXTRA_CARD_CVV if basket.right_cvv else "999"
    method = {"type": "card", "number": basket.card, "cvv": cvv, "expiry_month": 12, "expiry_year": 2030}
    body: dict[str, Any] = {"amount": basket.amount, "currency": "USD", "payment_method": method}
    body |= {"order_id": f"order-{basket.serial}", "customer_id": f"customer-{basket.card[-5:]}"}
    return orjson.dumps(body | ({"capture": True} if basket.steps[0] == "sale" else {}))


async def take(order: OrderHistory, counter: Counter, till: PurchaseHistory, wait_s: int = 0) -> int | None:
    """One POST, and what it tells of the order; its status, None without an answer."""
    till.repeats += order.accepted_at is not None
    asked_at = time.time()
    answer = await counter.post(order.path, order.key, order.body, wait_s)
    till.answers[str(answer.status) if answer else "no answer"] += 1
    if answer is None:
        order.unanswered += 1
        return None
    if answer.status in FINAL or answer.status == 202:
        _note(order, answer, asked_at)
    elif answer.status == 404:
        order.complaints.append("404 for its payment, which had been answered before")
    elif answer.status not in (429, 500, 503):
        order.stage = PurchaseStage.STRANGE
        order.complaints.append(f"answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    return answer.status


def _note(order: OrderHistory, answer: ClientAnswer, asked_at: float) -> None:
    document = orjson.loads(answer.body)
    order.accept(document["payment_id"] if answer.status >= 400 else document["id"], asked_at)
    if answer.status != 202:
        order.end(answer.status, answer.body)
