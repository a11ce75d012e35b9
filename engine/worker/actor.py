"""The actor: one payment's mailbox. One command at a time, in accept order (I3), while hundreds of others do the same.

It takes in what was delivered, asks the pure rules (decision.py) for the next step and sees it through
(operation_runner.py). When an operation is parked or in review, those behind it are journaled and wait with it. It
keeps no state that the ledger does not have; when it has nothing left to do it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import anyio
import structlog

from engine.domain.command import Command, OpenOperation
from engine.domain.creation import new_operation, new_payment
from engine.domain.operator_rules import Proof, WaitingAction, carry_out, claim_of, declined
from engine.domain.payment import UNSETTLED, Operation, Payment, Status, Verb
from engine.domain.rendering import render_payment
from engine.errors import Broken, Unavailable, Unseen
from engine.ledger.writer import FencingToken
from engine.streams.completion import DeadLettered
from engine.streams.dead_letter import Cause, FailedTry, letter_fields
from engine.streams.encoding import encode_snapshot
from engine.worker.bank_caller import Unable
from engine.worker.context import WorkerContext
from engine.worker.operation_runner import Conflict, Fenced, OperationRunner
from engine.worker.payment_aggregate import PaymentAggregate
from engine.worker.pending_entries import MailboxMessage, PendingEntries

log = structlog.get_logger()

_WORKABLE = UNSETTLED - {Status.REVIEW}
_TRIES = 3  # exceptions of this actor before its command is given up as a dead letter
_TRY_AGAIN_S = 0.2


class ActorContext(Protocol):
    """The partition consumer an actor lives in."""

    @property
    def partition(self) -> int: ...

    @property
    def fence(self) -> FencingToken: ...

    def release(self, entries: Iterable[str]) -> None: ...

    def finished(self, payment: str, unacked: Iterable[str]) -> None: ...

    async def bury(self, buried: DeadLettered, cause: Cause) -> None: ...

    def quarantine(self, payment: str) -> None: ...

    async def unable(self, payment: str, why: str) -> bool: ...

    def fence_off(self, why: str) -> None: ...


class Actor:
    """Lives while it has something to do. `mailbox` is filled by the partition consumer."""

    def __init__(
        self, payment: str, consumer: ActorContext, context: WorkerContext, *, drained_since_s: float | None = None
    ) -> None:
        self._id, self._consumer, self._context = payment, consumer, context
        self.mailbox: deque[MailboxMessage] = deque()
        self._aggregate = PaymentAggregate(payment, consumer.partition, context.ledger)
        self._pending = PendingEntries(
            consumer.partition, consumer.release, context.completion, context.clock.now, context.meters
        )
        self._runner = OperationRunner(
            payment, consumer.fence, context, self._aggregate, self._pending, drained_since_s=drained_since_s
        )
        self._working_on = ""  # the operation that an exception would be about
        self._failures: list[FailedTry] = []  # exceptions about it, in a row
        self._cause = Cause.EXCEPTION  # of the last one

    async def run(self) -> None:
        """Until there is nothing left to do. Unexpected exceptions are bounded, then a person is asked."""
        while True:
            try:
                while await self._turn() or self.mailbox:
                    self._failures.clear()
                return self._consumer.finished(self._id, self._pending.unacked)
            except Fenced:
                return self._consumer.fence_off("a commit was fenced off by a newer epoch")
            except Conflict:
                self._reload()
            except Unable as fault:  # ours, and not the payment's: nothing was committed, and nothing is let go of
                if not await self._consumer.unable(self._id, str(fault)):
                    return self._consumer.finished(self._id, self._pending.unacked)
                self._reload()
            except Exception as error:
                self._failures.append(
                    FailedTry(at=self._context.clock.now(), error=f"{type(error).__name__}: {error}"[:200])
                )
                self._cause = Cause.UNSEEN if isinstance(error, Unseen) else Cause.EXCEPTION
                log.exception("actor_failed", payment=self._id, tries=len(self._failures))
                await anyio.sleep(_TRY_AGAIN_S)
                if len(self._failures) >= _TRIES and not await self._gave_up():
                    return self._consumer.finished(self._id, ())
                self._reload()

    async def _turn(self) -> bool:
        """Take in the mailbox, then work on the first unsettled operation. False when none can be worked on now."""
        while self.mailbox:
            command = self.mailbox[0].command
            self._working_on = "" if command is None else command.operation
            await self._take_in(self.mailbox[0])
            self.mailbox.popleft()
        payment, head = self._aggregate.payment, self._aggregate.head
        if payment is None:
            return False
        rests = head is None or head.status is Status.REVIEW or head.next_attempt_at is not None
        if rests and self._aggregate.acts:
            await self._carry_out(self._aggregate.acts[0])
            return True
        if head is None:
            return await self._watch_the_clock(payment)
        self._working_on = head.id
        if head.status is Status.REVIEW or not self._is_due(payment, head):
            await self._persist_waiting(payment)
            return False
        await self._work(head)
        return True

    def _is_due(self, payment: Payment, head: Operation) -> bool:
        """Whether its time has come. One that is parked waits on while its bank takes no calls, without a commit."""
        if not self._context.decider.due(head, self._context.clock.now()):
            return False
        return head.next_attempt_at is None or self._context.bank_caller.takes(payment, head)

    async def _take_in(self, delivery: MailboxMessage) -> None:
        aggregate, command = self._aggregate, delivery.command
        if command is None:
            if aggregate.payment is None:
                await aggregate.load()
            return
        asked = None
        if aggregate.payment is None and command.verb is Verb.AUTHORIZE and delivery.first:
            self._open(command, delivery)  # nearly always new: the commit finds out if not
        elif not aggregate.opened_here:
            asked = await aggregate.load(command.operation)
        known = asked or aggregate.find(command.operation)
        if known is not None and known.payment != self._id:
            raise Broken(f"{known.id} belongs to {known.payment} and not to {self._id}")
        if aggregate.payment is not None and command.merchant != aggregate.payment.terms.merchant:
            raise Broken(f"{self._id} is not a payment of the merchant who asks for a {command.verb}")
        if known is None and aggregate.payment is None and command.verb is not Verb.AUTHORIZE:
            raise Unseen(f"{command.verb} of {self._id}, which nobody has seen")
        if delivery.poison and (known is None or known.status in _WORKABLE):
            raise Broken("its workers died with it again and again, at last with nothing else in hand")
        # From here on nothing fails, so a delivery is taken in whole or not at all.
        self._pending.add(command, delivery.entry)
        if known is None and aggregate.payment is None:
            self._open(command, delivery)
        elif known is None and aggregate.payment is not None:
            now = self._context.clock.now()
            order = aggregate.order_of(delivery.order, now)
            self._add(command, new_operation(command, aggregate.payment, order, now))
        elif known is not None and known.settled_at is not None:
            await self._pending.settle(known)  # a duplicate of an answered operation: repair its record

    def _open(self, command: Command, delivery: MailboxMessage) -> None:
        order, now = delivery.order, self._context.clock.now()
        self._aggregate.payment, operation = new_payment(command, self._consumer.partition, order, now)
        self._add(command, operation)

    def _add(self, command: Command, operation: Operation) -> None:
        self._aggregate.add(command, operation)
        self._pending.begin(operation.id)

    def _reload(self) -> None:
        """Begin again from the ledger: what was taken in and not committed is looked at as if it came anew."""
        again = [
            MailboxMessage(command=command, entry=entry, first=False)
            for command in self._aggregate.forget()
            for entry in self._pending.pop(command.operation)
        ]
        self.mailbox.extendleft(reversed(again))
        self.mailbox.appendleft(MailboxMessage(command=None, entry=None, first=False))

    async def _work(self, head: Operation) -> None:
        """One operation, until it is answered, parked or in review."""
        decider, clock = self._context.decider, self._context.clock
        self._pending.resume(head)
        lost = head.attempts > 0 and head.next_attempt_at is None  # an attempt was under way when its owner went
        if lost:
            await self._runner.outlive(head)
        await self._runner.run_steps(
            lambda payment, now: decider.attempt(payment, head, now, lost=lost, agreed=clock.agreed())
        )

    async def _watch_the_clock(self, payment: Payment) -> bool:
        """Called when no operation is open. Starts the release of an authorization that has expired by every clock that
        is known, since it cannot be undone; or tells the merchant that it soon will. False if there was neither."""
        decider, clock = self._context.decider, self._context.clock
        if decider.overdue(payment, clock.earliest()):
            begin = decider.expire
        elif decider.expiring(payment, clock.now()):
            begin = decider.notify_expiring
        else:
            return False
        last = self._aggregate.operations[-1]
        await self._runner.run_steps(lambda payment, now: begin(payment, last, now))
        return True

    async def _carry_out(self, act: WaitingAction) -> None:
        """What an operator asked for, when no attempt of this payment can be at the bank."""
        decider, operations = self._context.decider, self._aggregate.operations
        self._working_on = act.operation
        subject = self._aggregate.find(act.operation)
        if subject is not None:
            await self._runner.wait_out(subject)
        proof = await self._proof(act)
        try:
            await self._runner.run_steps(lambda payment, now: carry_out(decider, payment, operations, act, now, proof))
        except Broken as fault:
            if act not in self._aggregate.acts:
                raise
            why = str(fault)
            await self._runner.run_steps(lambda payment, now: declined(decider, payment, act, why, now))

    async def _proof(self, act: WaitingAction) -> Proof | None:
        """What the ledger and the bank know of the id that an operator names, before the rules are asked."""
        claim, payment = claim_of(act, self._aggregate.operations), self._aggregate.payment
        if claim is None or payment is None:
            return None
        connector, ledger = payment.terms.connector, self._context.ledger
        return Proof(
            taken_by=await ledger.holder(connector, claim.reference),
            by_hand=await ledger.is_by_hand(payment.id, act.operation),
            finding=await self._context.bank_caller.look_up(connector, claim.verb, claim.reference),
        )

    async def _persist_waiting(self, payment: Payment) -> None:
        """Journal what must wait behind an operation in doubt, in accept order, and let its entries go (I3, I4)."""
        for operation in self._aggregate.waiting:
            self._working_on = operation.id  # one by one: should the ledger refuse one, it is known which
            payment = await self._runner.commit(self._context.decider.queue(payment, [operation]))
        for asked in self._pending.operations:
            await self._pending.acknowledge(asked)

    async def _gave_up(self) -> bool:
        """Too many exceptions about one operation: review if the ledger has it, else a dead letter; others go on. False
        when the ledger lets us do neither: then all that is asked of this payment rests."""
        culprit, reason = self._working_on, self._failures[-1].error
        try:
            loaded = await self._aggregate.look_up(culprit)
            known = loaded.asked
            if known is None or known.settled_at is not None or known.payment != self._id:
                await self._bury(self._cause, culprit, reason, loaded.payment)
            elif loaded.payment is None or known.status is Status.REVIEW:
                raise Broken(f"nothing can be done about {culprit}: {reason}")
            else:
                review = self._context.decider.review(loaded.payment, known, self._context.clock.now(), reason)
                await self._runner.commit(review)
        except (Fenced, Conflict, Unavailable):
            pass  # the next commit meets it as well, the next load has mended it, or we are shutting down
        except Exception as error:
            log.exception("breach", name="unworkable_payment", payment=self._id, partition=self._consumer.partition)
            self._context.meters.breaches.labels("unworkable_payment").inc()
            await self._quarantine(f"{type(error).__name__}: {error}")
            return False
        self._failures.clear()
        return True

    async def _quarantine(self, reason: str) -> None:
        """What the ledger holds of this payment cannot be: commands become dead letters, the payment rests a while."""
        while asked := [*self._pending.operations, *(each.command.operation for each in self.mailbox if each.command)]:
            await self._bury(Cause.BREACH, asked[0], reason, None)
        self.mailbox.clear()
        self._consumer.quarantine(self._id)

    async def _bury(self, cause: Cause, operation: str, reason: str, known: Payment | None) -> None:
        """All entries of an operation become dead letters, and where it is open it shows that a person is needed."""
        mine = [delivery for delivery in self.mailbox if delivery.command and delivery.command.operation == operation]
        command = self._aggregate.fresh.pop(operation, None) or next((delivery.command for delivery in mine), None)
        self.mailbox = deque(delivery for delivery in self.mailbox if delivery not in mine)
        entries = dict.fromkeys(self._pending.pop(operation))
        entries.update(dict.fromkeys(delivery.entry for delivery in mine if delivery.entry is not None))
        merchant = command.merchant if command else known.terms.merchant if known else ""
        now = self._context.clock.now()
        for entry in entries:
            buried = DeadLettered(
                partition=self._consumer.partition,
                entry=entry,
                payment=self._id,
                operation=operation,
                merchant=merchant,
                fields=letter_fields(cause, reason, entry, self._id, operation, now, self._failures),
                snapshot=b"" if command is None or known is None else _snapshot(command, known, now),
            )
            await self._consumer.bury(buried, cause)


def _snapshot(command: Command, known: Payment, now: datetime) -> bytes:
    """How a command that was given up is shown beside its payment."""
    return encode_snapshot(
        OpenOperation(
            operation=command.operation,
            verb=command.verb,
            merchant=command.merchant,
            accepted_at=command.accepted_at,
            body=render_payment(known, new_operation(command, known, 0, now)),
        )
    )
