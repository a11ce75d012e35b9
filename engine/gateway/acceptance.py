"""Intake: where a request becomes accepted work, or the stored answer of the same work.

The edge calls `authorize` and `operate`; everything about idempotency (I6), acceptance (I10) and waiting for an outcome
happens behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson
import structlog

from engine.contracts.connector import Clock
from engine.contracts.gateway import NewPayment, RequestContext, StoredResponse
from engine.domain.command import Command, IdempotencyRecord, OpenOperation, accept_order
from engine.domain.ids import operation_id, partition_of, payment_id
from engine.domain.payment import MaskedCard, Operation, Terms, Verb, details_of
from engine.domain.rendering import accepted_document, render, render_pending
from engine.errors import FieldError, Rejected, StoreRefused, Unavailable
from engine.failpoint import Failpoints
from engine.gateway.queries import PaymentQueries
from engine.ledger.reader import LedgerReader
from engine.metrics import EngineMetrics
from engine.resilience.fitness import Fitness
from engine.security.encryption import Vault, brand_of
from engine.security.fingerprint import Fingerprinter, differing
from engine.streams.acceptance_store import AcceptanceStore, AcceptLimits
from engine.streams.encoding import decode_record, encode_command, encode_record, encode_snapshot
from engine.streams.reply_channel import ReplyChannel

log = structlog.get_logger()

_LOOK_AGAIN_S = 0.25  # a waiter reads the record this often, should its wake-up be lost
_RETRY_AFTER_S = 1
_FULL = {
    "full": ("overloaded", "This partition's backlog is full; nothing was accepted."),
    "share": ("rate_limited", "Too much of yours waits in this partition; nothing was accepted."),
    "busy": ("too_many_open_operations", "This payment has too many unanswered operations; nothing was accepted."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorContext:
    """What the acceptor works with. `record_ttl_ms` is for records it repairs."""

    installation: str
    partitions: int
    connector: str
    acceptance_store: AcceptanceStore
    ledger_reader: LedgerReader
    queries: PaymentQueries
    reply_channel: ReplyChannel
    vault: Vault
    fingerprinter: Fingerprinter
    limits: AcceptLimits
    record_ttl_ms: int
    clock: Clock
    failpoints: Failpoints
    meters: EngineMetrics
    fitness: Fitness = field(default_factory=Fitness)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A command on its way through acceptance. `body` is the public payment as it would be shown when accepted."""

    command: Command
    partition: int
    body: bytes
    backlog: int
    merchant_backlog: int


class Acceptor:
    """Accepts, replays and waits. Stateless: everything is in Redis and Postgres."""

    def __init__(self, context: AcceptorContext) -> None:
        self._context = context

    async def authorize(self, origin: RequestContext, new: NewPayment) -> StoredResponse:
        """A new payment, or the answer of the one this key made before. Raises Rejected and Unavailable."""
        context, card = self._context, new.card
        payment = payment_id(context.installation, origin.merchant, origin.key)
        operation = operation_id(payment, Verb.AUTHORIZE, origin.key)
        method = MaskedCard(
            brand=brand_of(card.number),
            last4=card.number[-4:],
            expiry_month=card.expiry_month,
            expiry_year=card.expiry_year,
        )
        terms = Terms(
            merchant=origin.merchant,
            money=new.money,
            method=method,
            connector=context.connector,
            **details_of(new.details),
        )
        now = context.clock()
        command = Command(
            operation=operation,
            payment=payment,
            verb=Verb.AUTHORIZE,
            merchant=origin.merchant,
            key=origin.key,
            amount=None,
            terms=terms,
            sealed=context.vault.seal(card, operation),
            sale=new.sale,
            fingerprint=context.fingerprinter.of(_fields(new)),
            request_id=origin.request_id,
            traceparent=origin.traceparent,
            reply_to=context.reply_channel.edge if origin.wait_s else None,
            accepted_at=now,
        )
        offer = _Offer(
            command=command,
            partition=partition_of(payment, context.partitions),
            body=render_pending(payment, operation, terms, now),
            backlog=context.limits.backlog,
            merchant_backlog=context.limits.merchant,
        )
        return await self._accept(origin, offer)

    async def operate(self, origin: RequestContext, payment: str, verb: Verb, amount: int | None) -> StoredResponse:
        """Capture, void or refund of a payment of this merchant. Raises Rejected and Unavailable."""
        context = self._context
        body, full = await context.queries.known(origin.merchant, payment)
        if amount is not None and amount != full:
            detail = f"This connector takes the full amount only: leave `amount` out or send {full}."
            raise Rejected("amount_not_supported", detail, errors=(FieldError(pointer="/amount", detail=detail),))
        operation = operation_id(payment, verb, origin.key)
        document = orjson.loads(body)
        document["operation"] = accepted_document(operation, verb)
        command = Command(
            operation=operation,
            payment=payment,
            verb=verb,
            merchant=origin.merchant,
            key=origin.key,
            amount=amount,  # the worker compares it with the ledger's: `full` may be of a payload that came too late
            terms=None,
            sealed=None,
            sale=False,
            fingerprint=context.fingerprinter.of({"amount": full}),
            request_id=origin.request_id,
            traceparent=origin.traceparent,
            reply_to=context.reply_channel.edge if origin.wait_s else None,
            accepted_at=context.clock(),
        )
        offer = _Offer(
            command=command,
            partition=partition_of(payment, context.partitions),
            body=render(document),
            backlog=context.limits.backlog_headroom,
            merchant_backlog=context.limits.merchant_headroom,
        )
        return await self._accept(origin, offer)

    async def _accept(self, origin: RequestContext, offer: _Offer) -> StoredResponse:
        """The one script, then what its answer means. Redis alone answers only a settled key (I6)."""
        context, command = self._context, offer.command
        # A waiter is registered before the command is added, or its wake-up could come too early.
        with context.reply_channel.waiting(command.operation) if origin.wait_s else nullcontext() as awake:
            word, value, held = await self._offered(offer)
            context.meters.accepted.labels(word).inc()
            record = decode_record(value) if word == "known" else None
            matching = record is None or record.fingerprint == command.fingerprint
            if record is not None and record.settled and matching:
                return _stored(command, record)
            order = accept_order(value.decode()) if word == "accepted" else None
            known, away = await self._before(command.operation, order)
            if known is not None:
                _compare(command, self._fingerprint_of(known))
                if known.settled_at is not None:
                    return await self._replayed(offer, known)
            elif record is not None and not matching:
                if away is not None and not record.settled:
                    raise _undecided(away)
                _compare(command, record.fingerprint)
            elif word in _FULL:  # only now: an old key is answered by the ledger at full backlog too
                code, detail = _FULL[word]
                raise Unavailable(code, detail, retry_after_s=_RETRY_AFTER_S)
            repeated = record is not None or known is not None
            if known is None and not held:
                await self._revive(offer, value)
            if awake is not None:
                settled = await self._outcome(offer, awake, origin.wait_s)
                if settled is not None:
                    return _stored(command, settled, replayed=repeated, waited=True)
                # The ledger may have come back meanwhile, and know this key with another payload.
                known, _ = await self._before(command.operation, order)
                if known is not None:
                    _compare(command, self._fingerprint_of(known))
                    repeated = True
            body = await self._shown(command) if repeated else offer.body
            context.failpoints("before-answer")
            return StoredResponse(status=202, body=body, payment=command.payment, operation=command.operation)

    async def _before(self, operation: str, order: int | None) -> tuple[Operation | None, Unavailable | None]:
        """The operation as an earlier use of the key made it, not as our own entry of this accept order, which may be
        worked on already. With Postgres away, nothing and why: the work is accepted all the same."""
        try:
            known = await self._context.ledger_reader.operation(operation)
        except Unavailable as error:
            return None, error
        return (None if known is not None and known.accept_order == order else known), None

    def _fingerprint_of(self, known: Operation) -> Mapping[str, str]:
        """The fingerprint of the payload that an operation of the ledger stands for.

        A capture, void or refund without an amount got its fingerprint with the amount that the edge knew then, which
        may have been another payload's (with Postgres away). What it stands for is the amount in the ledger.
        """
        if known.verb is Verb.AUTHORIZE:
            return known.fingerprint
        return self._context.fingerprinter.of({"amount": known.amount})

    async def _offered(self, offer: _Offer) -> tuple[str, Any, bool]:
        context, command = self._context, offer.command
        context.fitness.check()
        context.failpoints("before-accept")
        try:
            word, value, held = await context.acceptance_store.accept(
                offer.partition,
                command.payment,
                command.operation,
                record=encode_record(IdempotencyRecord(fingerprint=command.fingerprint)),
                snapshot=_snapshot(offer),
                entry=encode_command(command),
                backlog=offer.backlog,
                merchant=command.merchant,
                merchant_backlog=offer.merchant_backlog,
                open_operations=context.limits.open_operations,
            )
        except StoreRefused as error:
            detail = f"Nothing was accepted by this request: {error.detail} Repeating the same key is safe."
            raise Unavailable(error.code, detail, retry_after_s=_RETRY_AFTER_S) from error
        except Unavailable as error:
            detail = "Redis did not confirm. The request may have been accepted; repeating the same key is safe."
            raise Unavailable("acceptance_unknown", detail, retry_after_s=_RETRY_AFTER_S) from error
        context.failpoints("after-accept")
        return word, value, held

    async def _revive(self, offer: _Offer, seen: bytes) -> None:
        """What was accepted under this key is in no stream and not in the ledger: this request takes its place."""
        context, command = self._context, offer.command
        try:
            revived = await context.acceptance_store.revive(
                offer.partition,
                command.payment,
                command.operation,
                seen=seen,
                record=encode_record(IdempotencyRecord(fingerprint=command.fingerprint)),
                snapshot=_snapshot(offer),
                entry=encode_command(command),
                merchant=command.merchant,
            )
        except Unavailable as error:
            detail = "What this key asked for was lost, and is not revived yet. Repeat the same key."
            raise Unavailable("acceptance_unknown", detail, retry_after_s=_RETRY_AFTER_S) from error
        if revived:
            log.warning("revived", payment=command.payment, operation=command.operation, partition=offer.partition)
            context.meters.accepted.labels("revived").inc()

    async def _shown(self, command: Command) -> bytes:
        """The payment of a repeated key."""
        try:
            body, _ = await self._context.queries.known(command.merchant, command.payment)
        except Rejected as error:  # Redis lost it just now, and the ledger did not have it yet
            detail = "Redis lost what it had accepted. Repeat the same key: it will not be done twice."
            raise Unavailable("acceptance_unknown", detail, retry_after_s=_RETRY_AFTER_S) from error
        return body

    async def _replayed(self, offer: _Offer, known: Operation) -> StoredResponse:
        """The stored bytes from the ledger, and the record that Redis had lost."""
        record = self._record_of(known)
        with suppress(Unavailable):  # the worker repairs it too; the answer is what matters
            await self._context.acceptance_store.repair(
                offer.partition, known.payment, known.id, record, self._context.record_ttl_ms
            )
        return _stored(offer.command, record)

    def _record_of(self, known: Operation) -> IdempotencyRecord:
        fingerprint = self._fingerprint_of(known)
        return IdempotencyRecord(fingerprint=fingerprint, status=known.response_status, body=known.response_body)

    async def _outcome(self, offer: _Offer, awake: anyio.Event, wait_s: float) -> IdempotencyRecord | None:
        """The settled record, if it is there in time. With Redis away the ledger is asked."""
        context, operation = self._context, offer.command.operation
        with anyio.move_on_after(wait_s):
            while True:
                with anyio.move_on_after(_LOOK_AGAIN_S):
                    await awake.wait()
                record: IdempotencyRecord | None = None
                try:
                    record = await context.acceptance_store.record(offer.partition, operation)
                except Unavailable:
                    await anyio.sleep(_LOOK_AGAIN_S)
                strange = record is not None and record.settled and record.fingerprint != offer.command.fingerprint
                if record is not None and record.settled and not strange:
                    return record
                if record is None or strange:  # Redis lost it, is away, or holds another payload's: the ledger decides
                    known, _ = await self._before(operation, None)
                    if known is not None and known.settled_at is not None:
                        return self._record_of(known)
                if awake.is_set():
                    await anyio.sleep(_LOOK_AGAIN_S)
        return None


def _snapshot(offer: _Offer) -> bytes:
    command = offer.command
    return encode_snapshot(
        OpenOperation(
            operation=command.operation,
            verb=command.verb,
            merchant=command.merchant,
            accepted_at=command.accepted_at,
            body=offer.body,
        )
    )


def _fields(new: NewPayment) -> dict[str, object]:
    """What a payload's fingerprint covers, by the names the client knows. The CVV is left out (I9)."""
    card = new.card
    return {
        "amount": new.money.amount,
        "currency": new.money.currency,
        **details_of(new.details),
        "metadata": dict(new.details.metadata) or None,
        "capture": True if new.sale else None,
        "payment_method/number": card.number,
        "payment_method/expiry_month": card.expiry_month,
        "payment_method/expiry_year": card.expiry_year,
    }


def _compare(command: Command, fingerprint: Mapping[str, str]) -> None:
    """Raises Rejected when the key was used with another payload, naming the fields that differ."""
    names = differing(command.fingerprint, fingerprint)
    if names:
        detail = "This Idempotency-Key was first used with another payload."
        raise Rejected(
            "idempotency_key_reused",
            detail,
            errors=tuple(FieldError(pointer=f"/{name}", detail="differs from the first use") for name in names),
            extra={"operation_id": command.operation, "payment_id": command.payment},
        )


def _undecided(away: Unavailable) -> Unavailable:
    """Two payloads under one key, none of them answered: only the ledger knows whether one of them came first."""
    detail = "This Idempotency-Key is known with another payload, and only the ledger, which is away, can tell which"
    return Unavailable(away.code, f"{detail} of them counts. Nothing more was accepted.", retry_after_s=_RETRY_AFTER_S)


def _stored(
    command: Command, record: IdempotencyRecord, *, replayed: bool = True, waited: bool = False
) -> StoredResponse:
    """The stored answer, wherever it comes from. Raises Rejected when it answers another payload under this key."""
    _compare(command, record.fingerprint)
    return StoredResponse(
        status=record.status or 500,
        body=record.body or b"",
        payment=command.payment,
        operation=command.operation,
        replayed=replayed,
        waited=waited,
    )
