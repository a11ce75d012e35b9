"""The pursuit: a step of a payment and what follows from it, to the end: commit, ask the bank, commit its answer.

Nothing is asked that is not committed (I1), and nothing believed or let go of before it is (I4). Which step comes first
is the actor's choice; what an answer means is decision.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import anyio
import structlog

from engine.docket import Docket
from engine.dossier import Dossier
from engine.errand import errand_of
from engine.errors import Broken
from engine.ledger import Verdict
from engine.payment import Payment, Status
from engine.step import Again, Step
from engine.tools import Tools

log = structlog.get_logger()

_TIMER_S = 0.002  # timers may ring a millisecond early, and attempts must never overlap, not even by that


class Ousted(Exception):
    """The partition has a newer owner."""


class Conflict(Exception):
    """The ledger knows more than we do: load again."""


class Pursuit:
    """One per actor, with its dossier and docket. Everything may raise Ousted, Conflict and Broken,
    and Unable before anything of an attempt is committed."""

    def __init__(self, payment: str, epoch: int, tools: Tools, dossier: Dossier, docket: Docket) -> None:
        self._id, self._epoch, self._tools = payment, epoch, tools
        self._dossier, self._docket = dossier, docket

    async def see_through(self, begin: Callable[[Payment, datetime], Step]) -> None:
        """A step, the attempts that it leads to, and the engine's own operations that follow from their answers."""
        again: Again | None = None
        while True:
            if again is not None:
                await self.wait_until(again.at)
            payment = self._dossier.payment
            if payment is None:
                raise Broken(f"nothing to do for {self._id}, which nobody has seen")
            # A place first: an attempt that is committed and then waits for its turn would outlive its send_by.
            await self._tools.places.take(payment.terms.merchant)
            try:
                now = self._tools.clock()
                if again is None:
                    step = begin(payment, now)
                else:
                    step = self._tools.decider.attempt(payment, again.operation, now, lost=False)
                if step.then is not None:
                    self._tools.teller.check(step.payment, step.then)
                again = await self._commit_and_ask(step)
            finally:
                self._tools.places.give_back()
            if again is None:
                return

    async def _commit_and_ask(self, step: Step) -> Again | None:
        """Commit an intent, ask, commit the outcome, and so on while one follows from the other (I1)."""
        failpoints = self._tools.failpoints
        failpoints("before-intent")
        payment = await self.commit(step)
        failpoints("after-intent")
        while step.then is not None:
            operation = step.then
            answer = await self._tools.teller.ask(payment, operation, inherited=step.inherited)
            history = self._dossier.others(operation)
            verdict = self._tools.decider.conclude(payment, operation, history, answer, self._tools.clock())
            if isinstance(verdict, Again):
                return verdict
            step = verdict
            failpoints("before-outcome")
            payment = await self.commit(step)
            failpoints("after-outcome")
        return None

    async def commit(self, step: Step) -> Payment:
        """Write the step; then, and only then, believe it and let go of what it finished."""
        verdict = await self._tools.ledger.commit(step, self._epoch)
        if verdict is Verdict.STALE:
            raise Ousted
        if verdict is Verdict.CONFLICT:
            raise Conflict
        self._dossier.committed(step)
        for act in step.acts:
            log.info("act_done", payment=self._id, act=act.id, result=act.result)
        for operation in step.operations:
            if operation.settled_at is not None:
                if errand_of(operation) is None:
                    await self._docket.settle(operation)
            elif operation is not step.then and operation.status is not Status.SUCCEEDED:
                await self._docket.park(operation)
        return step.payment

    async def wait_until(self, moment: datetime | None) -> None:
        """For an attempt that may still be at the bank, or one that is to come."""
        left_s = 0.0 if moment is None else (moment - self._tools.clock()).total_seconds()
        if left_s > 0:
            await anyio.sleep(left_s + _TIMER_S)
