"""FicMart's side of the demo: an order service that calls the gateway, waits for outcomes and never gives up a key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import httpx

PATIENCE_S = 120.0  # a bank that fails and dawdles, and an operation parked for a while
LOOK_AGAIN_S = 0.1
WAIT_S = 30  # the longest the gateway lets a client wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopCard:
    """A card of the mock bank's seed."""

    number: str
    cvv: str

    @property
    def last4(self) -> str:
        return self.number[-4:]


RICH = ShopCard(number="4111111111111111", cvv="123")
MODEST = ShopCard(number="4242424242424242", cvv="456")
EMPTY = ShopCard(number="5555555555554444", cvv="789")
EXPIRED = ShopCard(number="5105105105105100", cvv="321")
UNKNOWN = ShopCard(number="4000000000000002", cvv="123")  # its check digit is right, but no account has it
WRONG_CVV = ShopCard(number="4111111111111111", cvv="999")


class Shop:
    """Speaks HTTP to one edge as one merchant."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def pay(
        self,
        card: ShopCard,
        amount: int,
        order: str,
        *,
        customer: str = "ada",
        key: str | None = None,
        sale: bool = False,
        wait: bool = True,
    ) -> httpx.Response:
        """POST /v1/payments; without `wait` the answer is the 202."""
        method = {
            "type": "card",
            "number": card.number,
            "cvv": card.cvv,
            "expiry_month": 12,
            "expiry_year": 2030,
        }
        body = {"amount": amount, "currency": "USD", "order_id": order, "customer_id": customer}
        return await self._post("/v1/payments", {**body, "payment_method": method, "capture": sale}, key, wait)

    async def operate(self, payment: str, verb: str, *, key: str | None = None) -> httpx.Response:
        """POST /v1/payments/{payment}/capture, /void or /refund."""
        return await self._post(f"/v1/payments/{payment}/{verb}", None, key, True)

    async def get(self, path: str, **parameters: str | int) -> httpx.Response:
        return await self._http.get(path, params=parameters)

    async def outcome(self, payment: str) -> dict[str, Any]:
        """The payment once its latest operation is answered. Raises TimeoutError when that never comes."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found: dict[str, Any] = (await self.get(f"/v1/payments/{payment}")).json()
            if found.get("operation", {}).get("status") in ("succeeded", "declined", "rejected", "failed"):
                return found
            await anyio.sleep(LOOK_AGAIN_S)
        raise TimeoutError(f"{payment} had no outcome after {PATIENCE_S:.0f} s")

    async def _post(self, path: str, body: Any, key: str | None, wait: bool) -> httpx.Response:
        """Repeats its key while the answer is still 202 and it wants the outcome, as a careful client does."""
        headers = {"Idempotency-Key": key or uuid4().hex, **({"Prefer": f"wait={WAIT_S}"} if wait else {})}
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = await self._http.post(path, json=body, headers=headers)
            if not wait or answer.status_code != httpx.codes.ACCEPTED or time.monotonic() > until:
                return answer
