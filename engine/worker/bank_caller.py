"""The bank caller: sends one committed attempt to the bank through the payment's connector and measures the call.

The card is opened here and nowhere else in the worker, for the length of the call (I9).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import anyio

from engine.contracts.connector import BankRequest, Clock
from engine.domain.bank_answer import Answer, Finding, NoAnswer
from engine.domain.money import Money
from engine.domain.payment import Operation, Payment, Verb
from engine.domain.retry_policy import RetryPolicy
from engine.errors import Broken
from engine.failpoint import Failpoints
from engine.metrics import EngineMetrics
from engine.resilience.guarded_connector import GuardedConnector
from engine.resilience.retry_budget import Room
from engine.security.encryption import Access, Vault, key_id

TIMER_S = 0.002  # timers may ring a millisecond early, and attempts must never overlap, not even by that
_LOOKS, _LOOK_S = 3, 5.0
_DURING_BANK_S = 0.05  # of a failpoint: long after the write, on loopback, and before most answers


class Unable(Exception):
    """Another worker may be able to carry this out, and this one is not: it lacks a key or a connector."""


class BankCaller:
    """One per worker, for all its payments. `owner` is always the token of the partition consumer that asks."""

    def __init__(
        self,
        connectors: Mapping[str, GuardedConnector],
        vault: Vault,
        policy: RetryPolicy,
        steady: Clock,
        failpoints: Failpoints,
        meters: EngineMetrics,
    ) -> None:
        """`steady` is the connectors' own clock, which never steps."""
        self._connectors, self._vault, self._policy, self._clock = connectors, vault, policy, steady
        self._failpoints, self._meters = failpoints, meters

    def lost(self, payment: Payment, operation: Operation, owner: str) -> None:
        """An attempt whose owner is gone may still be written until its send window is over."""
        send_window_s = self._policy.send_window.total_seconds()
        self._gate(payment.terms.connector).lost(operation.bank_key, send_window_s, owner)

    async def drained_in(self, payment: Payment, operation: Operation, owner: str) -> float:
        """Seconds until the bank cannot be at work on a lost attempt any more, as far as it shows; 0 when it shows
        nothing, which the next attempt finds out."""
        return await self._gate(payment.terms.connector).drained_in(operation.bank_key, owner) or 0.0

    def drained(self, payment: Payment, operation: Operation, owner: str) -> None:
        """A wait of `all_drained` that began after the attempt was committed has shown that it is over at the bank."""
        self._gate(payment.terms.connector).drained(operation.bank_key, owner)

    async def all_drained(self, wait: str) -> bool:
        """Wait until no attempt that anybody committed before this call can be in a bank's queue. Among the bank keys
        this is called `wait`. False when a bank does not answer, so that it is not known."""
        gates, send_window_s = list(self._connectors.values()), self._policy.send_window.total_seconds()
        for gate in gates:
            gate.lost(wait, send_window_s)
        await anyio.sleep(send_window_s + TIMER_S)
        for gate in gates:
            drained_in_s = await gate.drained_in(wait)
            if drained_in_s is None:
                return False
            await anyio.sleep(drained_in_s + TIMER_S)
        return True

    def room(self) -> Room:
        """How many parked operations the banks would take now."""
        rooms = [gate.room() for gate in self._connectors.values()]
        return Room(unsent=sum(room.unsent for room in rooms), doubt=sum(room.doubt for room in rooms))

    def takes(self, payment: Payment, operation: Operation) -> bool:
        """Whether its bank takes a parked operation now. What this worker lacks is for `check` to say."""
        gate = self._connectors.get(payment.terms.connector)
        if gate is None:
            return True
        room = gate.room()
        return (room.unsent if operation.doubted_at is None else room.doubt) > 0

    def check(self, payment: Payment, operation: Operation) -> None:
        """Before an attempt is committed: raises Unable where the fault is ours, and Broken where nobody has the key.

        What a worker lacks must count as no attempt, and cost no payment its card.
        """
        self._gate(payment.terms.connector)
        if operation.sealed is None:
            return
        access = self._vault.access(operation.sealed)
        if access is Access.ELSEWHERE:
            raise Unable(
                f"a card is sealed with the master key {key_id(operation.sealed)}, which this worker lacks: add it to "
                "PENSTOCK_RETIRED_MASTER_KEYS"
            )
        if access is Access.NOBODY:
            raise Broken(f"the sealed card of {operation.id} is under a key that is lost or was never ours")

    async def ask(
        self, payment: Payment, operation: Operation, began: datetime, *, inherited: bool, owner: str
    ) -> Answer:
        """One attempt at the bank that `owner` committed, which began (before its commit) at a time of the steady
        clock. `inherited` from an owner that is gone: not the bank's silence."""
        repeated = operation.doubted_at is not None and not inherited
        ask = self._ask(payment, operation, began, repeated=repeated, owner=owner)
        self._failpoints("before-bank")
        began = self._clock()
        asked = self._gate(payment.terms.connector).ask(ask)
        answer = await self._failpoints.during("during-bank", _DURING_BANK_S, asked)
        self._failpoints("after-bank")
        taken_s = (self._clock() - began).total_seconds()
        self._meters.bank_seconds.labels(operation.verb, type(answer).__name__).observe(taken_s)
        return answer

    async def look_up(self, connector: str, verb: Verb, reference: str) -> Finding:
        """What the bank shows of an id of its own; asked a few times, since reading costs nothing."""
        finding: Finding = NoAnswer(reason="the bank was not asked")
        for _ in range(_LOOKS):
            finding = await self._gate(connector).look_up(verb, reference, _LOOK_S)
            if not isinstance(finding, NoAnswer):
                break
        return finding

    def _gate(self, connector: str) -> GuardedConnector:
        """Raises Unable where this worker lacks it."""
        if connector not in self._connectors:
            here = ", ".join(sorted(self._connectors))
            raise Unable(f"this worker has no connector {connector} (here: {here}): correct PENSTOCK_CONNECTOR")
        return self._connectors[connector]

    def _ask(
        self, payment: Payment, operation: Operation, began: datetime, *, repeated: bool, owner: str
    ) -> BankRequest:
        reference = payment.bank.capture_id if operation.verb is Verb.REFUND else payment.bank.authorization_id
        sealed = operation.sealed
        if operation.send_by is None or operation.deadline is None:
            raise Broken(f"{operation.id} was never committed as an attempt")
        send_by = began + self._policy.send_window
        return BankRequest(
            bank_key=operation.bank_key,
            verb=operation.verb,
            money=Money(amount=operation.amount, currency=payment.terms.money.currency),
            card=None if sealed is None else self._vault.open(sealed, operation.id),
            reference=None if operation.verb is Verb.AUTHORIZE else reference,
            send_by=send_by,
            deadline=send_by + self._policy.attempt_timeout,
            traceparent=operation.traceparent,
            repeated=repeated,
            doubted=operation.doubted_at is not None,
            owner=owner,
        )
