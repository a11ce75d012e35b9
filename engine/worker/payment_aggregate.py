"""The payment aggregate: what an actor knows of its payment. All of it is in the ledger, except new commands.

Keeps the operations in their order: the first unsettled one is the head, and only the head is worked on (I3).
"""

from __future__ import annotations

from datetime import datetime

from engine.domain.changeset import ChangeSet
from engine.domain.command import Command, order_at
from engine.domain.operator_rules import WaitingAction
from engine.domain.payment import UNSETTLED, Operation, Payment
from engine.errors import Broken
from engine.ledger.writer import LedgerWriter, Loaded


class PaymentAggregate:
    """Of one payment; read by its actor alone."""

    def __init__(self, payment: str, partition: int, ledger: LedgerWriter) -> None:
        self._id, self._partition, self._ledger = payment, partition, ledger
        self.payment: Payment | None = None
        self.operations: list[Operation] = []  # unsettled or ever sent, in accept order
        self.acts: list[WaitingAction] = []  # asked for by operators, not carried out yet
        self.fresh: dict[str, Command] = {}  # by operation: taken in, not yet in the ledger
        self.opened_here = False  # this actor created the payment, so nobody else knows an operation of it

    @property
    def head(self) -> Operation | None:
        """The operation whose turn it is."""
        return next((operation for operation in self.operations if operation.status in UNSETTLED), None)

    @property
    def waiting(self) -> list[Operation]:
        """What the ledger does not know yet."""
        return [operation for operation in self.operations if operation.id in self.fresh]

    def find(self, operation: str) -> Operation | None:
        return next((known for known in self.operations if known.id == operation), None)

    def order_of(self, entry_order: int, now: datetime) -> int:
        """The place of a new operation in the order of acceptance: its entry's, which is behind the authorize's. If it
        is not, its stream was lost and Redis's clock stepped back: then it comes by now, behind all that is known (I3).
        """
        if not self.operations or entry_order > self.operations[0].accept_order:
            return entry_order
        return max(order_at(now), self.operations[-1].accept_order + 1)

    def others(self, operation: Operation) -> list[Operation]:
        """The payment's history without this operation."""
        return [other for other in self.operations if other.id != operation.id]

    def add(self, command: Command, operation: Operation) -> None:
        """A command taken in, and the operation it asks for."""
        self.fresh[operation.id] = command
        self.operations.append(operation)

    async def load(self, operation: str = "") -> Operation | None:
        """What the ledger knows; keeps what it does not know yet. The operation asked for, if it is there.

        Without an operation, the acts that wait are read too.
        """
        loaded = await self.look_up(operation)
        waiting = self.waiting
        if loaded.payment is not None or not waiting:
            self.payment = loaded.payment
        if not operation:
            self.acts = list(loaded.acts)
        ids = {known.id for known in loaded.operations}
        self.operations = [*loaded.operations, *(known for known in waiting if known.id not in ids)]
        for known in ids:
            self.fresh.pop(known, None)
        return loaded.asked

    async def look_up(self, operation: str) -> Loaded:
        """Raises Broken for a receipt that says that it belongs elsewhere: we could not fence what we commit for it."""
        loaded = await self._ledger.load(self._id, operation)
        if loaded.payment is not None and loaded.payment.partition != self._partition:
            raise Broken(f"the receipt of {self._id} says partition {loaded.payment.partition}")
        return loaded

    def committed(self, step: ChangeSet) -> None:
        """The ledger has it: believe it."""
        self.payment = step.payment
        self.opened_here = self.opened_here or step.opened
        changed = {operation.id: operation for operation in step.operations}
        self.operations = [changed.pop(known.id, known) for known in self.operations]
        # A sale's capture belongs right behind its authorize, before whatever was accepted meanwhile (I3).
        self.operations += changed.values()
        self.operations.sort(key=lambda known: (known.accept_order, known.created_at))
        for operation in step.operations:
            self.fresh.pop(operation.id, None)
        done = {act.id for act in step.acts}
        self.acts = [act for act in self.acts if act.id not in done]

    def forget(self) -> list[Command]:
        """Begin again with nothing; the commands that the ledger does not know."""
        fresh = list(self.fresh.values())
        self.payment, self.operations, self.acts, self.fresh, self.opened_here = None, [], [], {}, False
        return fresh
