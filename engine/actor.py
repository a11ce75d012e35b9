"""The actor: one payment's mailbox. One command at a time, in accept order (I3), while hundreds of others do the same.

It takes in what was delivered, asks the pure rules (decision.py), commits, asks the bank, commits, and only then lets
the entry go (I1, I4). When an operation is parked or in review, those behind it are journaled and wait with it. It
keeps no state that the ledger does not have; when it has nothing left to do it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import anyio
import structlog
from msgspec import Struct

from engine.decision import Decider
from engine.docket import Docket
from engine.errors import Broken
from engine.failpoint import Failpoints
from engine.ledger import Ledger, Verdict
from engine.meters import Meters
from engine.opening import opening, operation_of
from engine.payment import UNSETTLED, Operation, Payment, Status, Verb
from engine.places import Places
from engine.ports import Clock
from engine.settlement import Settlement
from engine.step import Again, Step
from engine.teller import Teller
from engine.wire import Command, accept_order

log = structlog.get_logger()

_TRIES = 3  # exceptions of this actor before its command is given up as a dead letter
_TRY_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all actors of a worker share."""

    ledger: Ledger
    settlement: Settlement
    teller: Teller
    decider: Decider
    clock: Clock
    failpoints: Failpoints
    meters: Meters
    places: Places  # attempts under way at banks, from intent to outcome
    partition_of: Callable[[str], int]


class Delivery(Struct, frozen=True, kw_only=True):
    """A command with its entry, or (both None) a call to look into the ledger."""

    command: Command | None
    entry: str | None
    first: bool


class Home(Protocol):
    """The tenure an actor lives in."""

    @property
    def partition(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    def release(self, entries: Iterable[str]) -> None: ...

    def finished(self, payment: str, left: Iterable[str]) -> None: ...

    def oust(self, why: str) -> None: ...


class _Ousted(Exception):
    """The partition has a newer owner."""


class _Conflict(Exception):
    """The ledger knows more than we do: load again."""


class Actor:
    """Lives while it has something to do. `mailbox` is filled by the tenure."""

    def __init__(self, payment: str, home: Home, tools: Tools) -> None:
        self._id, self._home, self._tools = payment, home, tools
        self.mailbox: deque[Delivery] = deque()
        self._payment: Payment | None = None
        self._operations: list[Operation] = []  # unsettled or ever sent, in accept order
        self._opened_here = False  # this actor created the payment, so nobody else knows an operation of it
        self._fresh: dict[str, Command] = {}  # taken in, not yet in the ledger
        self._docket = Docket(home.partition, home.release, tools.settlement, tools.clock, tools.meters)
        self._working_on = ""  # the operation that an exception would be about

    async def run(self) -> None:
        """Until there is nothing left to do. Unexpected exceptions are bounded, then a dead letter."""
        tries = 0
        while True:
            try:
                while await self._turn() or self.mailbox:
                    tries = 0
                return self._home.finished(self._id, self._docket.left)
            except _Ousted:
                return self._home.oust("a commit was fenced off by a newer epoch")
            except _Conflict:
                await self._reload()
            except Exception as error:
                tries += 1
                log.exception("actor_failed", payment=self._id, tries=tries)
                await anyio.sleep(_TRY_AGAIN_S)
                if tries >= _TRIES and await self._gave_up(error):
                    tries = 0
                await self._reload()

    async def _turn(self) -> bool:
        """Take in the mailbox, then work on the first unsettled operation. False when none can be worked on now."""
        while self.mailbox:
            command = self.mailbox[0].command
            self._working_on = "" if command is None else command.operation
            await self._take_in(self.mailbox[0])
            self.mailbox.popleft()
        payment = self._payment
        head = next((operation for operation in self._operations if operation.status in UNSETTLED), None)
        if payment is None or head is None:
            return False
        self._working_on = head.id
        now = self._tools.clock()
        parked = head.next_attempt_at is not None and head.next_attempt_at > now
        if head.status is Status.REVIEW or parked:
            await self._queue_fresh(payment)
            return False
        await self._work(payment, head)
        return True

    async def _take_in(self, delivery: Delivery) -> None:
        command = delivery.command
        if command is None:
            if self._payment is None:
                await self._load("")
            return
        asked = None
        if self._payment is None and command.verb is Verb.AUTHORIZE and delivery.first:
            self._open(command, delivery)  # nearly always new: the commit finds out if not
        elif not self._opened_here:
            asked = await self._load(command.operation)
        known = asked or next((known for known in self._operations if known.id == command.operation), None)
        if known is None and self._payment is None and command.verb is not Verb.AUTHORIZE:
            raise Broken(f"{command.verb} of {self._id}, which nobody has seen")
        # From here on nothing fails, so a delivery is taken in whole or not at all.
        self._docket.add(command, delivery.entry)
        if known is None and self._payment is None:
            self._open(command, delivery)
        elif known is None and self._payment is not None:
            self._remember(command, operation_of(command, self._payment, _order(delivery), self._tools.clock()))
        elif known is not None and known.settled_at is not None:
            await self._docket.settle(known)  # a duplicate of an answered operation: repair its record

    def _open(self, command: Command, delivery: Delivery) -> None:
        order, now = _order(delivery), self._tools.clock()
        self._payment, operation = opening(command, self._home.partition, order, now)
        self._remember(command, operation)

    def _remember(self, command: Command, operation: Operation) -> None:
        self._fresh[operation.id] = command
        self._docket.begin(operation.id)
        self._operations.append(operation)

    async def _load(self, operation: str) -> Operation | None:
        """What the ledger knows; keeps what it does not know yet. The operation asked for, if it is there."""
        loaded = await self._tools.ledger.load(self._id, operation)
        fresh = [known for known in self._operations if known.id in self._fresh]
        if loaded.payment is not None or not fresh:
            self._payment = loaded.payment
        ids = {known.id for known in loaded.operations}
        self._operations = [*loaded.operations, *(known for known in fresh if known.id not in ids)]
        for known in ids:
            self._fresh.pop(known, None)
        return loaded.asked

    async def _reload(self) -> None:
        """Begin again from the ledger: what was taken in and not committed is looked at as if it came anew."""
        again = [
            Delivery(command=command, entry=entry, first=False)
            for operation, command in self._fresh.items()
            for entry in self._docket.take_back(operation)
        ]
        self._fresh.clear()
        self._payment, self._operations, self._opened_here = None, [], False
        self.mailbox.extendleft(reversed(again))
        self.mailbox.appendleft(Delivery(command=None, entry=None, first=False))

    async def _work(self, payment: Payment, head: Operation) -> None:
        """One operation, and those of the engine that follow it, until answered, parked or in review."""
        decider, places = self._tools.decider, self._tools.places
        lost = head.attempts > 0 and head.next_attempt_at is None  # an attempt was under way when its owner went
        if lost and head.deadline is not None:
            await self._sleep_until(head.deadline)
        again: Again | None = None
        while True:
            if again is not None:
                await self._sleep_until(again.at)
            # A place first: an attempt that is committed and then waits for its turn would outlive its send_by.
            await places.take(payment.terms.merchant)
            try:
                now = self._tools.clock()
                if again is not None:
                    step = decider.attempt(payment, again.operation, now, lost=False)
                elif head.attempts == 0:
                    step = decider.admit(payment, head, now)
                else:
                    step = decider.attempt(payment, head, now, lost=lost)
                payment, again = await self._carry_through(step)
            finally:
                places.give_back()
            if again is None:
                return

    async def _carry_through(self, step: Step) -> tuple[Payment, Again | None]:
        """Commit an intent, ask, commit the outcome, and so on while one follows from the other."""
        failpoints = self._tools.failpoints
        failpoints("before-intent")
        payment = await self._commit(step)
        failpoints("after-intent")
        while step.then is not None:
            operation = step.then
            answer = await self._tools.teller.ask(payment, operation)
            history = [other for other in self._operations if other.id != operation.id]
            verdict = self._tools.decider.conclude(payment, operation, history, answer, self._tools.clock())
            if isinstance(verdict, Again):
                return payment, verdict
            step = verdict
            failpoints("before-outcome")
            payment = await self._commit(step)
            failpoints("after-outcome")
        return payment, None

    async def _commit(self, step: Step) -> Payment:
        """Write the step; then, and only then, believe it and let go of what it finished."""
        verdict = await self._tools.ledger.commit(step, self._home.epoch)
        if verdict is Verdict.STALE:
            raise _Ousted
        if verdict is Verdict.CONFLICT:
            raise _Conflict
        self._payment = step.payment
        self._opened_here = self._opened_here or step.opened
        changed = {operation.id: operation for operation in step.operations}
        self._operations = [changed.pop(known.id, known) for known in self._operations]
        # A sale's capture belongs right behind its authorize, before whatever was accepted meanwhile (I3).
        self._operations += changed.values()
        self._operations.sort(key=lambda known: (known.accept_order, known.created_at))
        for operation in step.operations:
            self._fresh.pop(operation.id, None)
            if operation.settled_at is not None:
                if operation.parent is None:
                    await self._docket.settle(operation)
            elif operation is not step.then and operation.status is not Status.SUCCEEDED:
                await self._docket.park(operation)
        return step.payment

    async def _queue_fresh(self, payment: Payment) -> None:
        """Journal what must wait behind an operation in doubt, in accept order, and let its entries go (I3, I4)."""
        waiting = [operation for operation in self._operations if operation.id in self._fresh]
        if waiting:
            await self._commit(self._tools.decider.queue(payment, waiting))
        for operation in self._docket.operations:
            await self._docket.acknowledge(operation)

    async def _gave_up(self, error: Exception) -> bool:
        """Too many exceptions about one operation: review if the ledger has it, else a dead letter. Others go on."""
        culprit, reason = self._working_on, f"{type(error).__name__}: {error}"[:200]
        try:
            loaded = await self._tools.ledger.load(self._id, culprit)
            known = loaded.asked
            if known is None:
                await self._bury(culprit, reason)
            elif loaded.payment is not None and known.status in UNSETTLED and known.status is not Status.REVIEW:
                step = self._tools.decider.review(loaded.payment, known, self._tools.clock(), reason)
                if await self._tools.ledger.commit(step, self._home.epoch) is Verdict.COMMITTED:
                    await self._docket.park(step.operations[0])
        except Exception:
            log.exception("giving_up_failed", payment=self._id, operation=culprit)
            return False
        return True

    async def _bury(self, operation: str, reason: str) -> None:
        """A command that was never journaled."""
        mine = [delivery for delivery in self.mailbox if delivery.command and delivery.command.operation == operation]
        command = self._fresh.pop(operation, None) or next((delivery.command for delivery in mine), None)
        entries = [delivery.entry for delivery in mine if delivery.entry is not None]
        await self._docket.bury(self._id, operation, command, entries, reason)
        self.mailbox = deque(delivery for delivery in self.mailbox if delivery not in mine)

    async def _sleep_until(self, moment: datetime) -> None:
        await anyio.sleep(max((moment - self._tools.clock()).total_seconds(), 0))


def _order(delivery: Delivery) -> int:
    return 0 if delivery.entry is None else accept_order(delivery.entry)
