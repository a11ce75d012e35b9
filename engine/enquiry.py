"""Enquiry: what a client may read. The ledger's receipt, with what was accepted a moment ago laid over it.

Redis is read before Postgres: an operation is taken off the open list only after its commit, so whatever is on neither
never was. With Redis away, receipts stay readable. With Postgres away nothing is shown: what Redis remembers of an open
payment may be older than what was shown before.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from datetime import UTC, datetime

import orjson

from engine.archive import Archive, Page, Receipt
from engine.errors import Rejected, Unavailable
from engine.front import Front
from engine.identity import is_id, partition_of
from engine.payment import UNSETTLED, Operation, Payment, State, Status, Verb
from engine.ports import Clock
from engine.receipt import accepted_document, operation_document, payment_document, render
from engine.wire import Record, Snapshot


class Enquiry:
    """Reads for one merchant at a time; another's payment is not found. Run `run` for life."""

    def __init__(self, front: Front, archive: Archive, partitions: int, clock: Clock, record_ttl_ms: int) -> None:
        self._front, self._archive, self._partitions, self._clock = front, archive, partitions, clock
        self._record_ttl_ms = record_ttl_ms  # of the records it repairs

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
        """A page, newest first. Raises Rejected("malformed_request") for a cursor that is not one of ours."""
        before = None if cursor is None else _position(cursor)
        page = Page(order_id=order_id, customer_id=customer_id, status=status, limit=limit, before=before)
        found = await self._archive.page(merchant, page)
        shown, has_more = found[:limit], len(found) > limit
        return render(
            {
                "object": "list",
                "data": [payment_document(receipt.payment, receipt.shown) for receipt in shown],
                "has_more": has_more,
                "next_cursor": _cursor(shown[-1].payment) if has_more else None,
            }
        )

    async def operation(self, merchant: str, operation: str) -> bytes:
        """The operation object, once it is in the ledger."""
        found = await self._archive.operation(operation) if is_id(operation, "op") else None
        if found is None or found.merchant != merchant:
            raise Rejected("not_found", "There is no such operation.")
        return render(operation_document(found))

    async def operations(self, merchant: str, key: str) -> bytes:
        """All operations under one idempotency key."""
        found = await self._archive.operations_under(merchant, key)
        return render(
            {"object": "list", "data": [operation_document(operation) for operation in found], "has_more": False}
        )

    async def shippable(self, merchant: str, payment: str) -> bytes:
        """Whether the goods may leave: never on a guess, so both stores must answer."""
        if not is_id(payment, "pay"):
            raise Rejected("not_found", "There is no such payment.")
        opened = await self._front.open_operations(partition_of(payment, self._partitions), payment)
        receipt = await self._archive.receipt(payment)
        if receipt is not None:
            opened = await self._really_open(opened)
        owner = receipt.payment.terms.merchant if receipt else opened[-1].merchant if opened else None
        if owner != merchant:
            raise Rejected("not_found", "There is no such payment.")
        unsettled = await self._archive.unsettled(payment)
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

    async def _look(
        self, merchant: str | None, payment: str, *, or_open: bool = False
    ) -> tuple[list[Snapshot], Receipt | None]:
        """Open operations and the receipt; without a merchant, anyone's. `or_open`: without Postgres, the former do."""
        if not is_id(payment, "pay"):
            raise Rejected("not_found", "There is no such payment.")
        opened: list[Snapshot] = []
        redis_away: Unavailable | None = None
        try:
            opened = await self._front.open_operations(partition_of(payment, self._partitions), payment)
        except Unavailable as error:
            redis_away = error
        try:
            receipt = await self._archive.receipt(payment)
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

    async def _really_open(self, opened: list[Snapshot]) -> list[Snapshot]:
        """Without what the ledger has settled: its owner may have died before it told Redis, which is told now."""
        really: list[Snapshot] = []
        for snapshot in opened:
            known = await self._archive.operation(snapshot.operation)
            if known is None or known.settled_at is None:
                really.append(snapshot)
            else:
                record = Record(fingerprint=known.fingerprint, status=known.response_status, body=known.response_body)
                with suppress(Unavailable):  # whoever looks next does it
                    await self._front.repair(known.partition, known.payment, known.id, record, self._record_ttl_ms)
        return really


def overlaid(opened: list[Snapshot], receipt: Receipt | None) -> bytes:
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


def _waiting(snapshot: Snapshot) -> dict[str, object]:
    """Never sent, so nothing is in doubt: a person may give its dead letter back or drop it."""
    status = Status.ACCEPTED if snapshot.dead_letter is None else Status.REVIEW
    return {"operation": accepted_document(snapshot.operation, snapshot.verb, status)}


def _why_not(receipt: Receipt | None, opened: list[Snapshot], unsettled: list[Operation], now: datetime) -> str:
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
    if payment.state is State.AUTHORIZED and payment.at.expires_at is not None and payment.at.expires_at <= now:
        return "authorization_expired"
    return payment.state.value


def _cursor(payment: Payment) -> str:
    raw = f"{payment.at.created_at.astimezone(UTC).isoformat()}|{payment.id}"
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
