"""Enquiry: what a client may read. The ledger's receipt, with what was accepted a moment ago laid over it.

Redis is read before Postgres: an operation is taken off the open list, and its entry off the stream, only after its
commit, so whatever is in neither never was. With Redis away, receipts stay readable; a look-up that would then say "no
such thing" says 503. With Postgres away nothing is shown: what Redis remembers of an open payment may be older than
what was shown before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from contextlib import suppress
from datetime import UTC, datetime

import orjson

from engine.contracts.connector import Clock
from engine.domain.command import IdempotencyRecord, OpenOperation
from engine.domain.ids import is_id, partition_of
from engine.domain.payment import UNSETTLED, Operation, PaymentState, Status, Verb
from engine.domain.rendering import (
    accepted_document,
    accepted_operation_document,
    operation_document,
    payment_document,
    pending_document,
    render,
)
from engine.errors import Rejected, Unavailable
from engine.gateway.accepted_work import Accepted, AcceptedWork, WorkFilter
from engine.ledger.reader import LedgerReader, Page, StoredPayment
from engine.pagination import cursor as encode_cursor
from engine.pagination import parts, strange
from engine.streams.acceptance_store import AcceptanceStore


class PaymentQueries:
    """Reads for one merchant at a time; another's payment is not found. Run `run` for life."""

    def __init__(
        self,
        acceptance_store: AcceptanceStore,
        ledger_reader: LedgerReader,
        partitions: int,
        clock: Clock,
        record_ttl_ms: int,
    ) -> None:
        self._acceptance_store, self._ledger_reader, self._partitions, self._clock = (
            acceptance_store,
            ledger_reader,
            partitions,
            clock,
        )
        self._record_ttl_ms = record_ttl_ms  # of the records it repairs
        self._accepted = AcceptedWork(acceptance_store, partitions)

    async def payment(self, merchant: str, payment: str) -> bytes:
        """The payment object. Raises Rejected("not_found") and Unavailable."""
        opened, receipt = await self._look(merchant, payment)
        return overlaid(opened, receipt)

    async def anyones(self, payment: str) -> bytes:
        """The payment object, whoever's it is: for operators. Raises as `payment`."""
        opened, receipt = await self._look(None, payment)
        return overlaid(opened, receipt)

    async def payments(
        self,
        merchant: str,
        *,
        order_id: str | None,
        customer_id: str | None,
        status: str | None,
        limit: int,
        cursor: str | None,
    ) -> bytes:
        """A page, newest first, with what was accepted a moment ago. Raises Rejected("malformed_request") for a cursor
        that is not one of ours, and Unavailable where what was accepted cannot be told."""
        before = None if cursor is None else _position(cursor)
        page = Page(order_id=order_id, customer_id=customer_id, status=status, limit=limit, before=before)
        pending = await self._pending(merchant, page)
        at = await self._ledger_reader.time()
        receipts = await self._ledger_reader.page(merchant, page)
        found = {receipt.payment.id: _entry(receipt) for receipt in receipts}
        places = sorted(({**pending, **found}).items(), key=lambda each: (each[1][0], each[0]), reverse=True)
        shown, has_more = places[:limit], len(places) > limit
        return render(
            {
                "object": "list",
                "data": [document for _, (_, document) in shown],
                "has_more": has_more,
                "next_cursor": _cursor(shown[-1][1][0], shown[-1][0]) if has_more else None,
                "as_of": at,
            }
        )

    async def operation(self, merchant: str, operation: str) -> bytes:
        """The operation object, also of what was accepted a moment ago."""
        if not is_id(operation, "op"):
            raise Rejected("not_found", "There is no such operation.")
        found = await self._ledger_reader.operation(operation)
        if found is None:
            waiting = await self._accepted.find(merchant, WorkFilter(operation=operation))
            found = await self._ledger_reader.operation(operation)  # journaled and acknowledged between the two looks
            if found is None and waiting:
                return render(await self._accepted_document(waiting[0]))
        if found is None or found.merchant != merchant:
            raise Rejected("not_found", "There is no such operation.")
        return render(operation_document(found))

    async def operations(self, merchant: str, key: str, limit: int, cursor: str | None) -> bytes:
        """A page of the operations under one idempotency key, in the order of their acceptance, newest first."""
        before = None if cursor is None else _place(cursor)
        waiting = await self._unjournaled(await self._accepted.find(merchant, WorkFilter(key=key)))
        at = await self._ledger_reader.time()
        operations = await self._ledger_reader.operations_under(merchant, key, limit, before)
        found: dict[tuple[int, str], Accepted | Operation] = {
            (each.order, each.command.operation): each
            for each in waiting
            if before is None or (each.order, each.command.operation) < before
        }
        journaled = {each.id for each in operations}
        found = {place: each for place, each in found.items() if place[1] not in journaled}
        found |= {(each.accept_order, each.id): each for each in operations}
        places = sorted(found, reverse=True)
        shown, has_more = [found[place] for place in places[:limit]], len(places) > limit
        data = [
            await self._accepted_document(each) if isinstance(each, Accepted) else operation_document(each)
            for each in shown
        ]
        return render(
            {
                "object": "list",
                "data": data,
                "has_more": has_more,
                "next_cursor": encode_cursor(*places[limit - 1]) if has_more else None,
                "as_of": at,
            }
        )

    async def shippable(self, merchant: str, payment: str) -> bytes:
        """Whether the goods may leave: never on a guess, so both stores must answer."""
        if not is_id(payment, "pay"):
            raise Rejected("not_found", "There is no such payment.")
        opened = await self._acceptance_store.open_operations(partition_of(payment, self._partitions), payment)
        receipt = await self._ledger_reader.receipt(payment)
        if receipt is not None:
            opened = await self._really_open(opened)
        owner = receipt.payment.terms.merchant if receipt else opened[-1].merchant if opened else None
        if owner != merchant:
            raise Rejected("not_found", "There is no such payment.")
        unsettled = await self._ledger_reader.unsettled(payment)
        now = self._clock()
        reason = _why_not(receipt, opened, unsettled, now)
        shippable = reason in ("captured", "authorized")
        return render({"shippable": shippable, "reason": reason, "payment_id": payment, "as_of": now})

    async def known(self, merchant: str, payment: str) -> tuple[bytes, int]:
        """The public payment and its full amount, for whoever wants something done with it; an open one is known with
        Postgres away too."""
        opened, receipt = await self._look(merchant, payment, or_open=True)
        body = overlaid(opened, receipt)
        amount = receipt.payment.terms.money.amount if receipt else int(orjson.loads(body)["amount"])
        return body, amount

    async def _pending(self, merchant: str, page: Page) -> dict[str, tuple[datetime, dict[str, object]]]:
        """Payments of a page that the ledger does not have yet, by id, each with the time that orders it."""
        if page.status not in (None, PaymentState.PENDING):
            return {}
        wanted = WorkFilter(order_id=page.order_id, customer_id=page.customer_id, verb=Verb.AUTHORIZE)
        pending: dict[str, tuple[datetime, dict[str, object]]] = {}
        for accepted in await self._unjournaled(await self._accepted.find(merchant, wanted)):
            command, terms = accepted.command, accepted.command.terms
            place = (command.accepted_at, command.payment)
            if terms is None or (page.before is not None and place >= page.before):
                continue
            document = pending_document(command.payment, command.operation, terms, command.accepted_at)
            if accepted.dead_letter is not None:
                document |= {"operation": accepted_document(command.operation, command.verb, Status.REVIEW)}
            pending[command.payment] = (command.accepted_at, document)
        return pending

    async def _unjournaled(self, found: list[Accepted]) -> list[Accepted]:
        """Without what the ledger has by now: read afterwards, it shows that itself."""
        known = await asyncio.gather(*(self._ledger_reader.operation(each.command.operation) for each in found))
        return [each for each, operation in zip(found, known, strict=True) if operation is None]

    async def _accepted_document(self, accepted: Accepted) -> dict[str, object]:
        command = accepted.command
        amount = command.amount
        if command.terms is not None:
            amount = command.terms.money.amount
        elif amount is None:
            with suppress(Rejected):  # a capture of a payment that nobody has seen
                _, amount = await self.known(command.merchant, command.payment)
        status = Status.ACCEPTED if accepted.dead_letter is None else Status.REVIEW
        return accepted_operation_document(command, amount, status)

    async def _look(
        self, merchant: str | None, payment: str, *, or_open: bool = False
    ) -> tuple[list[OpenOperation], StoredPayment | None]:
        """Open operations and the receipt; without a merchant, anyone's. `or_open`: without Postgres, the former do."""
        if not is_id(payment, "pay"):
            raise Rejected("not_found", "There is no such payment.")
        opened: list[OpenOperation] = []
        redis_away: Unavailable | None = None
        try:
            opened = await self._acceptance_store.open_operations(partition_of(payment, self._partitions), payment)
        except Unavailable as error:
            redis_away = error
        try:
            receipt = await self._ledger_reader.receipt(payment)
            if receipt is not None:
                opened = await self._really_open(opened)
        except Unavailable:
            if not (opened and or_open):
                raise
            receipt = None
        owner = receipt.payment.terms.merchant if receipt else opened[-1].merchant if opened else None
        if owner is None and redis_away is not None:
            raise redis_away  # it may be accepted and not yet in the ledger
        if owner is None or merchant not in (None, owner):
            raise Rejected("not_found", "There is no such payment.")
        return opened, receipt

    async def _really_open(self, opened: list[OpenOperation]) -> list[OpenOperation]:
        """Without what the ledger has settled: its owner may have died before it told Redis, which is told now."""
        really: list[OpenOperation] = []
        for snapshot in opened:
            known = await self._ledger_reader.operation(snapshot.operation)
            if known is None or known.settled_at is None:
                really.append(snapshot)
            else:
                record = IdempotencyRecord(
                    fingerprint=known.fingerprint, status=known.response_status, body=known.response_body
                )
                with suppress(Unavailable):  # whoever looks next does it
                    await self._acceptance_store.repair(
                        known.partition, known.payment, known.id, record, self._record_ttl_ms
                    )
        return really


def overlaid(opened: list[OpenOperation], receipt: StoredPayment | None) -> bytes:
    """The payment as the ledger has it, showing the oldest accepted operation the ledger has not begun; before all
    others one that was given up, because it needs a person."""
    if receipt is None:
        newest = next((snapshot for snapshot in opened if snapshot.dead_letter is not None), opened[-1])
        return newest.body if newest.dead_letter is None else render(orjson.loads(newest.body) | _waiting(newest))
    document = payment_document(receipt.payment, receipt.shown)
    shown = receipt.shown
    waiting = [snapshot for snapshot in opened if snapshot.operation not in (shown.id, shown.parent)]
    if waiting and shown.status not in UNSETTLED:
        document |= _waiting(min(waiting, key=lambda snapshot: snapshot.dead_letter is None))
    return render(document)


def _waiting(snapshot: OpenOperation) -> dict[str, object]:
    """Never sent, so nothing is in doubt: a person may give its dead letter back or drop it."""
    status = Status.ACCEPTED if snapshot.dead_letter is None else Status.REVIEW
    return {"operation": accepted_document(snapshot.operation, snapshot.verb, status)}


def _why_not(
    receipt: StoredPayment | None, opened: list[OpenOperation], unsettled: list[Operation], now: datetime
) -> str:
    """The reason shown beside `shippable`; "captured" and "authorized" are the good ones."""
    asked = {snapshot.verb for snapshot in opened} | {operation.verb for operation in unsettled}
    if receipt is None:
        return "pending"
    payment = receipt.payment
    if any(operation.status in (Status.IN_DOUBT, Status.REVIEW) for operation in unsettled):
        return "in_doubt"
    if Verb.VOID in asked:
        return "void_accepted"
    if Verb.REFUND in asked:
        return "refund_accepted"
    if payment.state is PaymentState.AUTHORIZED and payment.at.expires_at is not None and payment.at.expires_at <= now:
        return "authorization_expired"
    return payment.state.value


def _entry(receipt: StoredPayment) -> tuple[datetime, dict[str, object]]:
    return receipt.payment.at.created_at, payment_document(receipt.payment, receipt.shown)


def _place(text: str) -> tuple[int, str]:
    order, operation = parts(text, 2)
    if not (
        order.isascii() and order.isdigit() and len(order) < 20 and int(order) < 1 << 63 and is_id(operation, "op")
    ):
        raise strange()
    return int(order), operation


def _cursor(created_at: datetime, payment: str) -> str:
    raw = f"{created_at.astimezone(UTC).isoformat()}|{payment}"
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, str]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, _, payment = raw.partition("|")
        at = datetime.fromisoformat(moment)
        if not is_id(payment, "pay") or at.tzinfo is None:
            raise ValueError(cursor)
    except (ValueError, binascii.Error):
        detail = "The cursor is not one that this gateway gave out; leave it out to begin at the newest payment."
        raise Rejected("malformed_request", detail) from None
    return at, payment
