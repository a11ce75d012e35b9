"""The operation runner: commits a change set, calls the bank, commits the answer, and repeats while more follows.

Nothing is asked that is not committed (I1), and nothing believed or let go of before it is (I4). Which step comes first
is the actor's choice; what an answer means is decision.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import anyio
import structlog

from engine.domain.bank_answer import NoAnswer
from engine.domain.changeset import ChangeSet, RetryAt
from engine.domain.payment import Operation, Payment, Status
from engine.domain.system_operation import system_operation_of
from engine.errors import Broken, Taken
from engine.ledger.writer import CommitVerdict, FencingToken
from engine.worker.bank_caller import TIMER_S
from engine.worker.context import WorkerContext
from engine.worker.payment_aggregate import PaymentAggregate
from engine.worker.pending_entries import PendingEntries

log = structlog.get_logger()


class Fenced(Exception):
    """The partition has a newer owner."""


class Conflict(Exception):
    """The ledger knows more than we do: load again."""


class OperationRunner:
    """One per actor, with its aggregate and pending entries. Everything may raise Ousted, Conflict and Broken,
    and Unable before anything of an attempt is committed."""

    def __init__(
        self,
        payment: str,
        fence: FencingToken,
        context: WorkerContext,
        aggregate: PaymentAggregate,
        pending: PendingEntries,
        *,
        drained_since_s: float | None = None,
    ) -> None:
        """`drained_since_s`, by the loop's clock: what was committed before is out of the bank's queue."""
        self._drained_since_s = drained_since_s  # holds for others' attempts: until we may have committed one
        self._id, self._fence, self._context = payment, fence, context
        self._aggregate, self._pending = aggregate, pending
        self._over_at_s = 0.0  # by the loop's clock: until then the last attempt may be at work at the bank

    async def run_steps(self, begin: Callable[[Payment, datetime], ChangeSet]) -> None:
        """A step, the attempts that it leads to, and the engine's own operations that follow from their answers."""
        again: RetryAt | None = None
        again_at_s = 0.0
        while True:
            if again is not None:
                # What was decided is a duration here: the clock by which it was told may step while we wait.
                await sleep_until(max(again_at_s, self._over_at_s))
            payment = self._aggregate.payment
            if payment is None:
                raise Broken(f"nothing to do for {self._id}, which nobody has seen")
            # A place first: an attempt that is committed and then waits for its turn would outlive its send_by.
            await self._context.places.take(payment.terms.merchant)
            try:
                clock = self._context.clock
                if again is None:
                    step = begin(payment, clock.now())
                else:
                    step = self._context.decider.attempt(
                        payment, again.operation, clock.now(), lost=False, agreed=clock.agreed()
                    )
                if step.then is not None:
                    self._context.bank_caller.check(step.payment, step.then)
                again = await self._commit_and_ask(step)
            finally:
                self._context.places.give_back()
            if again is None:
                return
            again_at_s = anyio.current_time() + (again.at - self._context.clock.now()).total_seconds()

    async def _commit_and_ask(self, step: ChangeSet) -> RetryAt | None:
        """Commit an intent, ask, commit the outcome, and so on while one follows from the other (I1)."""
        failpoints, clock, decider = self._context.failpoints, self._context.clock, self._context.decider
        failpoints("before-intent")
        began, began_s = clock.steady(), anyio.current_time()
        payment = await self.commit(step)
        failpoints("after-intent")
        while step.then is not None:
            operation = step.then
            answer = await self._context.bank_caller.ask(
                payment, operation, began, inherited=step.inherited, owner=self._fence.token
            )
            over = not isinstance(answer, NoAnswer) or answer.over
            self._over_at_s = 0.0 if over else began_s + decider.policy.attempt.total_seconds()
            history = self._aggregate.others(operation)
            verdict = decider.conclude(payment, operation, history, answer, clock.now(), clock.agreed())
            if isinstance(verdict, RetryAt):
                return verdict
            step = verdict
            failpoints("before-outcome")
            began, began_s = clock.steady(), anyio.current_time()
            try:
                payment = await self.commit(step)
            except Taken as fault:  # the bank's word about this payment is another's: a person must tell whose it is
                why = f"{getattr(answer, 'reference', None)}, as the bank answered: {fault}"
                step = decider.review(payment, operation, clock.now(), why)
                payment = await self.commit(step)
            failpoints("after-outcome")
        return None

    async def commit(self, step: ChangeSet) -> Payment:
        """Write the step; then, and only then, believe it and let go of what it finished."""
        self._drained_since_s = None
        verdict = await self._context.ledger.commit(step, self._fence)
        if verdict is CommitVerdict.STALE:
            raise Fenced
        if verdict is CommitVerdict.CONFLICT:
            raise Conflict
        self._aggregate.committed(step)
        for act in step.acts:
            log.info("act_done", payment=self._id, act=act.id, result=act.result)
        for operation in step.operations:
            if operation.settled_at is not None:
                if system_operation_of(operation) is None:
                    await self._pending.settle(operation)
            elif operation is not step.then and operation.status is not Status.SUCCEEDED:
                await self._pending.park(operation)
        return step.payment

    async def outlive(self, operation: Operation) -> None:
        """Wait until an attempt that somebody else committed is over at the bank: for its whole length from now, since
        no clock but ours tells us when it began, and until the bank has shown that it is not in its queue (I7)."""
        payment = self._aggregate.payment
        if payment is None:
            raise Broken(f"{operation.id} belongs to a payment that nobody has seen")
        policy, bank_caller, owner = self._context.decider.policy, self._context.bank_caller, self._fence.token
        if self._drained_since_s is not None:  # its partition consumer has waited for all that was committed before
            await sleep_until(self._drained_since_s + policy.left_of(operation).total_seconds())
            return bank_caller.drained(payment, operation, owner)
        over_at_s = anyio.current_time() + policy.left_of(operation).total_seconds()
        bank_caller.lost(payment, operation, owner)
        await sleep_until(anyio.current_time() + policy.send_window.total_seconds())
        drained_in_s = await bank_caller.drained_in(payment, operation, owner)
        await sleep_until(max(over_at_s, anyio.current_time() + drained_in_s))

    async def wait_out(self, operation: Operation) -> None:
        """Wait for the end of an attempt that was parked: it takes no longer than any attempt does."""
        if operation.deadline is not None:
            unacked = min(
                operation.deadline - self._context.clock.agreed(), self._context.decider.policy.left_of(operation)
            )
            await sleep_until(anyio.current_time() + unacked.total_seconds())


async def sleep_until(moment_s: float) -> None:
    """By the loop's clock; at once when it has passed. Timers may ring early, and attempts must not overlap by that."""
    if moment_s > anyio.current_time():
        await anyio.sleep_until(moment_s + TIMER_S)
