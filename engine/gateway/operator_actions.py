"""The operator's desk: looking through dead letters, giving them back or dropping them, asking for acts on payments.

Each act is in the audit, with its reason, before it is done. What the ledger has of an operation decides: an answered
one is never given back, and a journaled one keeps its key however many letters name it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.contracts.gateway import ActionRequest, StoredResponse
from engine.domain.command import Command
from engine.domain.ids import is_id, partition_of
from engine.domain.operator_action import (
    REFUSED,
    ActionKind,
    ActionOrder,
    OperatorAction,
    action_document,
    render_refused_act,
)
from engine.domain.payment import UNSETTLED, Operation, Status, Verb
from engine.domain.rendering import render
from engine.errors import Broken, FieldError, Rejected
from engine.ledger.audit_log import AuditLog
from engine.ledger.reader import LedgerReader
from engine.streams.dead_letter import DeadLetter, letter_document, place_of
from engine.streams.dead_letter_queue import DeadLetterQueue

_NO_LETTER = "There is no dead letter with this id: it was given back or dropped, or never was."
_ANSWERED = f"{REFUSED}: the operation is answered; drop the letter"
_FASTER = f"{REFUSED}: the dead letter is gone, another act was faster"
_REQUEUED, _DROPPED, _GONE = "requeued", "dropped", "gone"


class OperatorActions:
    """All methods raise Rejected and Unavailable."""

    def __init__(
        self, dead_letter_queue: DeadLetterQueue, ledger_reader: LedgerReader, log: AuditLog, partitions: int
    ) -> None:
        self._dead_letter_queue, self._ledger_reader, self._log, self._partitions = (
            dead_letter_queue,
            ledger_reader,
            log,
            partitions,
        )

    async def dead_letters(self, limit: int, cursor: str | None) -> bytes:
        """A page, newest first. The cursor is the id of the last letter of the page before."""
        if cursor is not None and place_of(cursor) is None:
            raise Rejected("malformed_request", "The cursor is not one that this gateway gave out; leave it out.")
        found = await self._dead_letter_queue.page(limit + 1, cursor)
        shown, has_more = found[:limit], len(found) > limit
        data = [letter_document(letter) for letter in shown]
        next_cursor = shown[-1].id if has_more else None
        return render({"object": "list", "data": data, "has_more": has_more, "next_cursor": next_cursor})

    async def dead_letter(self, letter: str) -> bytes:
        """One letter with its entry, fit to be shown: no sealed card, no card number."""
        found = await self._dead_letter_queue.find(letter)
        if found is None:
            raise Rejected("not_found", _NO_LETTER)
        return render(letter_document(found) | self._prospects(found) | {"entry": found.shown()})

    async def requeue(self, asked: ActionRequest, letter: str) -> StoredResponse:
        """Give a letter's entry back to the commands, unless its operation is answered."""
        return await self._about_letter(asked, ActionKind.REQUEUE, letter, self._requeue)

    async def drop(self, asked: ActionRequest, letter: str) -> StoredResponse:
        """Throw a letter away; the key of a command that was never journaled can then be used again."""
        return await self._about_letter(asked, ActionKind.DROP, letter, self._drop)

    async def retry(self, asked: ActionRequest, payment: str) -> StoredResponse:
        """Have the payment's actor ask the bank again."""
        return await self._about_payment(asked, ActionKind.RETRY, payment)

    async def resolve(self, asked: ActionRequest, payment: str) -> StoredResponse:
        """Have the payment's actor take an operator's word for what the bank did."""
        return await self._about_payment(asked, ActionKind.RESOLVE, payment)

    async def correct(self, asked: ActionRequest, payment: str) -> StoredResponse:
        """Have the payment's actor take another id of the bank's than an operator said before."""
        return await self._about_payment(asked, ActionKind.CORRECT, payment)

    async def _about_letter(
        self, asked: ActionRequest, name: ActionKind, letter: str, carry_out: Callable[[DeadLetter], Awaitable[str]]
    ) -> StoredResponse:
        order = _order(asked, name, letter)
        known, fresh = await self._log.under_key(order), False
        if known is not None and known.result is not None:
            return _reply(_same(known, order), replayed=True)
        found = await self._dead_letter_queue.find(letter)
        if known is None:
            if found is None:
                raise Rejected("not_found", _NO_LETTER)
            known, fresh = await self._log.begin(
                order, partition=found.partition, payment=found.payment, operation=found.operation
            )
        _same(known, order)
        result = _GONE if found is None else await carry_out(found)
        # Gone before our act began is another's doing; else an earlier try of this very act was cut off unheard.
        if result == _GONE and not fresh and not await self._log.was_anothers(known):
            result = _REQUEUED if name is ActionKind.REQUEUE else _DROPPED
        return _reply(await self._log.finish(known, _FASTER if result == _GONE else result), replayed=False)

    async def _requeue(self, letter: DeadLetter) -> str:
        try:
            command = self._command(letter)
        except Broken as error:
            return f"{REFUSED}: {error}"
        known = await self._ledger_reader.operation(command.operation)
        if known is not None and known.settled_at is not None:
            return _ANSWERED
        word = await self._dead_letter_queue.requeue(letter, command)
        return _ANSWERED if word == "settled" else word

    async def _drop(self, letter: DeadLetter) -> str:
        known = None if letter.operation is None else await self._ledger_reader.operation(letter.operation)
        return await self._dead_letter_queue.drop(letter, frees_key=known is None and letter.payment is not None)

    def _prospects(self, letter: DeadLetter) -> dict[str, object]:
        """Whether its entry could be given back, and if not, why."""
        try:
            self._command(letter)
        except Broken as error:
            return {"requeueable": False, "obstacle": str(error)}
        return {"requeueable": True, "obstacle": None}

    def _command(self, letter: DeadLetter) -> Command:
        """The command in it. Raises Broken when a worker would only bury it again."""
        command = letter.command()
        if partition_of(command.payment, self._partitions) != letter.partition:
            raise Broken("its payment belongs to another partition")
        return command

    async def _about_payment(self, asked: ActionRequest, name: ActionKind, payment: str) -> StoredResponse:
        order = _order(asked, name, payment)
        act = await self._log.under_key(order)
        replayed = act is not None and act.result is not None
        if act is None:
            if name is ActionKind.CORRECT:
                operation = await self._done(payment, asked.operation)
            else:
                operation = await self._unanswered(payment, asked.operation)
                _check_word(asked, operation)
            act, _ = await self._log.begin(
                order, partition=operation.partition, payment=payment, operation=operation.id
            )
        act = await self._log.outcome(_same(act, order, asked.operation), asked.wait_s)
        return _reply(act, replayed=replayed, waited=bool(asked.wait_s) and act.result is not None)

    async def _unanswered(self, payment: str, wanted: str | None) -> Operation:
        """The operation an act is about: the one that is named, else the first that is not answered."""
        operations = [each for each in await self._asked_of(payment) if each.status in UNSETTLED]
        found = next((each for each in operations if wanted in (None, each.id)), None)
        if found is None:
            raise Rejected(
                "act_refused", f"{wanted or 'Every operation of this payment'} is answered: there is nothing to do."
            )
        return found

    async def _done(self, payment: str, wanted: str | None) -> Operation:
        """The operation whose id of the bank's is to be corrected: the one that is named, else the latest."""
        operations = [each for each in await self._asked_of(payment) if each.status is Status.SUCCEEDED]
        found = next((each for each in reversed(operations) if wanted in (None, each.id)), None)
        if found is None:
            raise Rejected("act_refused", f"{wanted or 'No operation of this payment'} has no id that could be wrong.")
        return found

    async def _asked_of(self, payment: str) -> list[Operation]:
        """The payment's operations that are unsettled or were ever sent, in accept order."""
        receipt = await self._ledger_reader.receipt(payment) if is_id(payment, "pay") else None
        if receipt is None:
            raise Rejected("not_found", "There is no such payment in the ledger.")
        operations = await self._ledger_reader.operations_of(payment)
        return sorted(operations, key=lambda each: (each.accept_order, each.created_at))


def _check_word(asked: ActionRequest, operation: Operation) -> None:
    """An approval is believed with the bank's own id of what it did. A void needs none, its capture does."""
    outcome = asked.word.get("outcome")
    wanting = outcome == "captured" or (outcome == "approved" and operation.verb is not Verb.VOID)
    if wanting and not asked.word.get("reference"):
        verb = Verb.CAPTURE if outcome == "captured" else operation.verb
        detail = f"is required: the bank's id of this {verb}, from its statement"
        raise Rejected(
            "validation_failed", f"/reference {detail}.", errors=(FieldError(pointer="/reference", detail=detail),)
        )


def _order(asked: ActionRequest, name: ActionKind, subject: str) -> ActionOrder:
    return ActionOrder(
        act=name,
        subject=subject,
        reason=asked.reason,
        actor=asked.actor,
        detail=asked.word,
        merchant=asked.merchant,
        key=asked.key,
        request_id=asked.request_id,
    )


def _same(act: OperatorAction, order: ActionOrder, operation: str | None = None) -> OperatorAction:
    """Raises Rejected when the key asked for something else before."""
    names = [] if act.reason == order.reason else ["reason"]
    names += [] if operation in (None, act.operation) else ["operation_id"]
    names += sorted(name for name in {*act.detail, *order.detail} if act.detail.get(name) != order.detail.get(name))
    if names:
        raise Rejected(
            "idempotency_key_reused",
            "This Idempotency-Key was first used with another payload.",
            errors=tuple(FieldError(pointer=f"/{name}", detail="differs from the first use") for name in names),
        )
    return act


def _reply(act: OperatorAction, *, replayed: bool, waited: bool = False) -> StoredResponse:
    """200 when it is done, 409 when it was refused, 202 while nobody knows: the same bytes each time it is asked."""
    status = 202 if act.result is None else 409 if act.refused else 200
    body = render_refused_act(act) if act.refused else render(action_document(act))
    return StoredResponse(
        status=status,
        body=body,
        payment=act.payment or "",
        operation=act.operation or "",
        replayed=replayed,
        waited=waited,
    )
