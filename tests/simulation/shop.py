"""A shop of the simulation: pays, repeats keys, hurries, gives nothing up, and remembers every answer it was given.

What it does is what API.md tells shops to do: after a 503 or a broken connection the same key is repeated, and so it is
when a GET says 404. It complains (a breach) about what must never happen to a shop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import anyio

from engine.contracts.gateway import NewPayment, RequestContext, StoredResponse
from engine.domain.ids import operation_id, payment_id
from engine.domain.money import Money
from engine.domain.payment import Card, Details, Verb
from engine.errors import Rejected, Unavailable
from simulation.plan import Act, Purchase
from simulation.processes import EdgeGone, EdgeProcess, Town

MERCHANT = "m_1"
_CARD = Card(number="4111111111111111", cvv="123", expiry_month=12, expiry_year=2030)
_AGAIN_S = 0.3
_LAST_WAIT_S = 5.0


class Street(Town, Protocol):
    """What a shop sees of the town besides its edges."""

    edges: list[EdgeProcess]

    def complain(self, breach: str) -> None: ...

    def rests(self, payment: str) -> bool:
        """Whether only a person can bring its operations to their end."""
        ...

    def tell(self, who: str, what: str, *details: object) -> None: ...


class Shop:
    """Run `run`; it ends when each of its keys has its final answer, or rests in review."""

    def __init__(self, street: Street, purchase: Purchase) -> None:
        self._street, self._purchase = street, purchase
        self.payment = payment_id("simulated", MERCHANT, self._key(Verb.AUTHORIZE))
        self.accepted: dict[str, Verb] = {}  # operations that a 202 or an answer was given for
        self.answers: dict[str, tuple[int, bytes]] = {}  # the final ones
        self.done = False

    async def run(self) -> None:
        await anyio.sleep(self._purchase.at_s)
        async with anyio.create_task_group() as system_operations:
            for act in self._purchase.acts:
                await anyio.sleep(act.pause_s)
                for _ in range(act.copies - 1):
                    system_operations.start_soon(self._ask, act.verb, act.wait_s)
                if act.alone or act.verb is Verb.AUTHORIZE:
                    await self._ask(act.verb, act.wait_s)
                else:
                    system_operations.start_soon(self._ask, act.verb, act.wait_s)
                if self.accepted and not self._street.plan.forgetful:
                    await self._look()
        for act in self._purchase.acts:
            await self._see_through(act)
        self.done = True

    async def _look(self) -> None:
        """GET, after the first 202: a payment that was accepted is there, unless Redis has lost it."""
        try:
            await self._edge().call(lambda edge: edge.queries.payment(MERCHANT, self.payment))
        except (EdgeGone, Unavailable):
            return
        except Rejected as error:
            self._street.complain(f"GET of accepted {self.payment} says {error.code}")

    async def _see_through(self, act: Act) -> None:
        """Repeat the key until it has its answer."""
        operation = self.operation(act.verb)
        while operation not in self.answers and not self._street.rests(self.payment):
            await self._ask(act.verb, _LAST_WAIT_S)

    async def _ask(self, verb: Verb, wait_s: float) -> None:
        """Until it is accepted or answered, or nothing more can be: the payment is full of what rests."""
        while not self._street.rests(self.payment):
            try:
                reply = await self._edge().call(self._request(verb, wait_s))
            except (EdgeGone, Unavailable) as error:
                self._street.tell(self.payment, "may be accepted", verb, type(error).__name__, str(error))
                await anyio.sleep(_AGAIN_S)
                if isinstance(error, Unavailable) and error.code == "too_many_open_operations":
                    await self._remind()
            except Rejected as error:
                if error.code != "not_found" or verb is Verb.AUTHORIZE:
                    self._street.complain(f"{verb} of {self.payment} was rejected: {error.code}")
                await self._ask(Verb.AUTHORIZE, wait_s)  # Redis lost it before the ledger had it
            else:
                return self._take(verb, reply)

    async def _remind(self) -> None:
        """What is open may have lost its entries: repeat its keys, once."""
        for verb in list(self.accepted.values()):
            with suppress(EdgeGone, Unavailable, Rejected):
                self._take(verb, await self._edge().call(self._request(verb, 0.0)))

    def _request(self, verb: Verb, wait_s: float) -> Callable[[EdgeProcess], Awaitable[StoredResponse]]:
        key = self._key(verb)
        origin = RequestContext(merchant=MERCHANT, key=key, wait_s=wait_s, request_id="req", traceparent=None)
        if verb is not Verb.AUTHORIZE:
            return lambda edge: edge.acceptor.operate(origin, self.payment, verb, None)
        new = NewPayment(
            money=Money(amount=self._purchase.amount, currency="USD"),
            details=Details(order_id=key, customer_id="c", metadata={}),
            card=_CARD,
            sale=self._purchase.sale,
        )
        return lambda edge: edge.acceptor.authorize(origin, new)

    def _take(self, verb: Verb, reply: StoredResponse) -> None:
        operation = self.operation(verb)
        self._street.tell(self.payment, "is told", verb, reply.status)
        if (reply.payment, reply.operation) != (self.payment, operation):
            self._street.complain(f"{verb} of {self.payment} was answered as {reply.payment} {reply.operation}")
        self.accepted[operation] = verb
        if reply.status != 202:
            answer = (reply.status, reply.body)
            if self.answers.setdefault(operation, answer) != answer:
                self._street.complain(f"I6: {operation} was answered with other bytes than before")

    def operation(self, verb: Verb) -> str:
        return operation_id(self.payment, verb, self._key(verb))

    def _key(self, verb: Verb) -> str:
        return f"{verb}-{self._purchase.number}"

    def _edge(self) -> EdgeProcess:
        return self._street.draw.choice(self._street.edges)
