"""The actor: one payment's mailbox. One command at a time, in accept order (I3), while hundreds of others do the same.

It takes in what was delivered, asks the pure rules (decision.py), commits, asks the bank, commits, and only then lets
the entry go (I1, I4). When an operation is parked or in review, those behind it are journaled and wait with it. It
keeps no state that the ledger does not have; when it has nothing left to do it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import anyio
import structlog
from msgspec import Struct

from engine.decision import Again, Decider, Step, operation_of
from engine.errors import Broken
from engine.failpoint import Failpoints
from engine.ledger import Ledger, Verdict
from engine.meters import Meters
from engine.money import Money
from engine.outcome import Answer
from engine.payment import UNSETTLED, Operation, Payment, Status, Verb
from engine.ports import Ask, Clock, Connector
from engine.settlement import Buried, Journaled, Settled, Settlement
from engine.vault import Vault
from engine.wire import Command, Record, accept_order, encode_record

log = structlog.get_logger()

_TRIES = 3  # exceptions of this actor before its command is given up as a dead letter
_TRY_AGAIN_S = 0.2
_DURING_BANK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all actors of a worker share."""

    ledger: Ledger
    settlement: Settlement
    connectors: Mapping[str, Connector]
    decider: Decider
    vault: Vault
    clock: Clock
    failpoints: Failpoints
    meters: Meters
    places: anyio.Semaphore  # attempts under way at banks, from intent to outcome
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
        self._entries: dict[str, list[str]] = {}  # operation to the entries that ask for it
        self._reply_to: dict[str, list[str]] = {}
        self._taken_at: dict[str, datetime] = {}
        self._working_on = ""  # the operation that an exception would be about

    async def run(self) -> None:
        """Until there is nothing left to do. Unexpected exceptions are bounded, then a dead letter."""
        tries = 0
        while True:
            try:
                while await self._turn() or self.mailbox:
                    tries = 0
                return self._home.finished(self._id, [entry for left in self._entries.values() for entry in left])
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
        entries = self._entries.setdefault(command.operation, [])
        if delivery.entry is not None and delivery.entry not in entries:
            entries.append(delivery.entry)
        if command.reply_to is not None:
            self._reply_to.setdefault(command.operation, []).append(command.reply_to)
        if known is None and self._payment is None:
            self._open(command, delivery)
        elif known is None and self._payment is not None:
            self._remember(command, operation_of(command, self._payment, _order(delivery), self._tools.clock()))
        elif known is not None and known.settled_at is not None:
            await self._settle(known)  # a duplicate of an answered operation: repair its record

    def _open(self, command: Command, delivery: Delivery) -> None:
        order, now = _order(delivery), self._tools.clock()
        self._payment, operation = self._tools.decider.opening(command, self._home.partition, order, now)
        self._remember(command, operation)

    def _remember(self, command: Command, operation: Operation) -> None:
        self._fresh[operation.id] = command
        self._taken_at[operation.id] = self._tools.clock()
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
            for entry in self._entries.pop(operation, ())
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
            async with places:
                now = self._tools.clock()
                if again is not None:
                    step = decider.attempt(payment, again.operation, now, lost=False)
                elif head.attempts == 0:
                    step = decider.admit(payment, head, now)
                else:
                    step = decider.attempt(payment, head, now, lost=lost)
                payment, again = await self._carry_through(step)
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
            answer = await self._ask(payment, operation)
            history = [other for other in self._operations if other.id != operation.id]
            verdict = self._tools.decider.conclude(payment, operation, history, answer, self._tools.clock())
            if isinstance(verdict, Again):
                return payment, verdict
            step = verdict
            failpoints("before-outcome")
            payment = await self._commit(step)
            failpoints("after-outcome")
        return payment, None

    async def _ask(self, payment: Payment, operation: Operation) -> Answer:
        """One committed attempt at the bank."""
        reference = payment.bank.capture_id if operation.verb is Verb.REFUND else payment.bank.authorization_id
        sealed = operation.sealed
        if operation.send_by is None or operation.deadline is None:
            raise Broken(f"{operation.id} was never committed as an attempt")
        ask = Ask(
            bank_key=operation.bank_key,
            verb=operation.verb,
            money=Money(amount=operation.amount, currency=payment.terms.money.currency),
            card=None if sealed is None else self._tools.vault.open(sealed, operation.id),
            reference=None if operation.verb is Verb.AUTHORIZE else reference,
            send_by=operation.send_by,
            deadline=operation.deadline,
            traceparent=operation.traceparent,
            repeated=operation.doubted_at is not None,
        )
        self._tools.failpoints("before-bank")
        began = self._tools.clock()
        asked = self._tools.connectors[payment.terms.connector].ask(ask)
        if self._tools.failpoints.armed("during-bank"):
            async with anyio.create_task_group() as call:
                call.start_soon(self._interrupt)
                answer = await asked
        else:
            answer = await asked
        self._tools.failpoints("after-bank")
        taken_s = (self._tools.clock() - began).total_seconds()
        self._tools.meters.bank_seconds.labels(operation.verb, type(answer).__name__).observe(taken_s)
        return answer

    async def _interrupt(self) -> None:
        """The failpoint in the middle of a bank call: long after the write, on loopback, and before most answers."""
        await anyio.sleep(_DURING_BANK_S)
        self._tools.failpoints("during-bank")

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
                    await self._settle(operation)
            elif operation is not step.then and operation.status is not Status.SUCCEEDED:
                await self._park(operation)
        return step.payment

    async def _settle(self, operation: Operation) -> None:
        entries = tuple(self._entries.get(operation.id, ()))
        record = Record(
            fingerprint=operation.fingerprint, status=operation.response_status, body=operation.response_body
        )
        await self._tools.settlement(
            Settled(
                partition=self._home.partition,
                payment=operation.payment,
                operation=operation.id,
                record=encode_record(record),
                entries=entries,
                reply_to=tuple(self._reply_to.pop(operation.id, ())),
            )
        )
        self._let_go(operation.id, entries)
        self._tools.meters.settled.labels(operation.verb, operation.status).inc()
        taken_at = self._taken_at.pop(operation.id, None)
        now = self._tools.clock()
        log.info(
            "operation_settled",
            payment=operation.payment,
            operation=operation.id,
            partition=self._home.partition,
            entry=entries[0] if entries else None,
            verb=operation.verb,
            outcome=operation.status,
            attempts=operation.attempts,
            total_ms=None if taken_at is None else round((now - taken_at).total_seconds() * 1000, 1),
        )

    async def _park(self, operation: Operation) -> None:
        """Journaled, not answered: the entry may go, record and open entry stay."""
        self._tools.meters.parked.labels(operation.verb, operation.status).inc()
        await self._acknowledge(operation.id)
        if operation.parent is not None:
            await self._acknowledge(operation.parent)
        log.warning(
            "operation_parked",
            payment=operation.payment,
            operation=operation.id,
            partition=self._home.partition,
            verb=operation.verb,
            status=operation.status,
            attempts=operation.attempts,
            next_attempt_at=str(operation.next_attempt_at),
        )

    async def _acknowledge(self, operation: str) -> None:
        entries = tuple(self._entries.get(operation, ()))
        if entries:
            await self._tools.settlement(Journaled(partition=self._home.partition, entries=entries))
        self._let_go(operation, entries)

    def _let_go(self, operation: str, entries: tuple[str, ...]) -> None:
        """Only what Redis has acknowledged; an entry that joined meanwhile stays."""
        left = [entry for entry in self._entries.pop(operation, ()) if entry not in entries]
        if left:
            self._entries[operation] = left
        self._home.release(entries)

    async def _queue_fresh(self, payment: Payment) -> None:
        """Journal what must wait behind an operation in doubt, in accept order, and let its entries go (I3, I4)."""
        waiting = [operation for operation in self._operations if operation.id in self._fresh]
        if waiting:
            await self._commit(self._tools.decider.queue(payment, waiting))
        for operation in list(self._entries):
            await self._acknowledge(operation)

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
                    await self._park(step.operations[0])
        except Exception:
            log.exception("giving_up_failed", payment=self._id, operation=culprit)
            return False
        return True

    async def _bury(self, operation: str, reason: str) -> None:
        """A command that was never journaled: its entries become dead letters. No card data among their fields."""
        mine = [delivery for delivery in self.mailbox if delivery.command and delivery.command.operation == operation]
        command = self._fresh.pop(operation, None) or next((delivery.command for delivery in mine), None)
        entries = dict.fromkeys(self._entries.get(operation, []))
        entries.update(dict.fromkeys(delivery.entry for delivery in mine if delivery.entry is not None))
        about = () if command is None else ("verb", command.verb, "merchant", command.merchant, "key", command.key)
        for entry in entries:
            fields = ("reason", reason, "entry", entry, "payment", self._id, "operation", operation, *about)
            await self._tools.settlement(Buried(partition=self._home.partition, entry=entry, fields=fields))
            self._tools.meters.dead.labels("exception").inc()
        self.mailbox = deque(delivery for delivery in self.mailbox if delivery not in mine)
        self._let_go(operation, tuple(entries))

    async def _sleep_until(self, moment: datetime) -> None:
        await anyio.sleep(max((moment - self._tools.clock()).total_seconds(), 0))


def _order(delivery: Delivery) -> int:
    return 0 if delivery.entry is None else accept_order(delivery.entry)
