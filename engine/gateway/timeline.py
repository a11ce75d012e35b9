"""The timeline: what happened to one payment, from every source that knows something of it, merged by time.

SOURCES is the one list of them; a further one is a statement and a function that makes moments of its rows. Everything
comes from the ledger, so it is whole with Redis lost; what is accepted and not journaled yet is added while Redis is
there. No card data: the statements do not select any (I9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from engine.domain.command import OpenOperation, accepted_at
from engine.domain.ids import is_id, partition_of
from engine.domain.payment import Status
from engine.domain.rendering import render
from engine.errors import Rejected, Unavailable
from engine.ledger.reader import LedgerReader
from engine.streams.acceptance_store import AcceptanceStore

ROWS_MAX = 1000  # of each source, the newest; a payment has a dozen, a client that repeats refused captures thousands

Row = Mapping[str, Any]
Document = dict[str, object]


class TimelineEntry(Struct, frozen=True, kw_only=True):
    """One line of a timeline. `document` goes on from its type and time."""

    type: str
    at: datetime
    document: Document


class Source(Struct, frozen=True, kw_only=True):
    """Where moments come from: a statement with %(payment)s and %(limit)s, newest rows first, and what they mean."""

    statement: str
    moments: Callable[[Sequence[Row]], list[TimelineEntry]]


class PaymentTimeline:
    """Tells the timeline of one payment at a time."""

    def __init__(self, acceptance_store: AcceptanceStore, ledger_reader: LedgerReader, partitions: int) -> None:
        self._acceptance_store, self._ledger_reader, self._partitions = acceptance_store, ledger_reader, partitions

    async def timeline(self, merchant: str, payment: str) -> bytes:
        """As the merchant may see it. Raises Rejected("not_found") and Unavailable."""
        return await self._told(payment, merchant)

    async def whole(self, payment: str) -> bytes:
        """Whoever's payment it is, with who acted: for operators. Raises as `timeline`."""
        return await self._told(payment, None)

    async def _told(self, payment: str, merchant: str | None) -> bytes:
        opened: list[OpenOperation] = []
        redis_away: Unavailable | None = None
        if is_id(payment, "pay"):
            try:
                opened = await self._acceptance_store.open_operations(partition_of(payment, self._partitions), payment)
            except Unavailable as error:
                redis_away = error
        at = await self._ledger_reader.time()
        receipt = await self._ledger_reader.receipt(payment)
        owner = receipt.payment.terms.merchant if receipt else opened[-1].merchant if opened else None
        if owner is None and redis_away is not None:
            raise redis_away  # it may be accepted and not yet in the ledger
        if owner is None or merchant not in (None, owner):
            raise Rejected("not_found", "There is no such payment.")
        moments: list[TimelineEntry] = []
        has_more = False
        for source in SOURCES:
            rows = await self._ledger_reader.about(source.statement, payment, ROWS_MAX + 1)
            has_more = has_more or len(rows) > ROWS_MAX
            moments += source.moments(rows[:ROWS_MAX])
        known = {moment.document.get("operation_id") for moment in moments if moment.type == "command"}
        moments += [_accepted(snapshot) for snapshot in opened if snapshot.operation not in known]
        moments.sort(key=lambda moment: (moment.at, _RANK[moment.type]))
        data = [
            {"type": moment.type, "at": moment.at} | (_for_merchants(moment.document) if merchant else moment.document)
            for moment in moments
        ]
        return render({"object": "list", "data": data, "has_more": has_more, "as_of": at})


def _for_merchants(document: Document) -> Document:
    """Without the names of those who run the gateway."""
    evidence = document.get("evidence")
    if isinstance(evidence, dict) and isinstance(evidence.get("act"), dict):
        act = {name: value for name, value in evidence["act"].items() if name != "actor"}
        document = {**document, "evidence": {**evidence, "act": act}}
    return {name: value for name, value in document.items() if name != "actor"}


def _commands(rows: Sequence[Row]) -> list[TimelineEntry]:
    """Each operation from its acceptance, and the attempt that is at the bank now or was never answered."""
    moments = []
    for row in rows:
        told: Document = {
            "operation_id": row["id"],
            "verb": row["verb"],
            "amount": row["amount"],
            "idempotency_key": row["key"] if row["key"].isascii() else None,  # the engine's own keys never are
            "request_id": row["request_id"],
            "status": row["status"],
            "attempts": row["attempts"],
            "first_sent_at": row["first_sent_at"],
            "doubted_at": row["doubted_at"],
            "next_attempt_at": row["next_attempt_at"],
            "response_status": row["response_status"],
            "settled_at": row["settled_at"],
        }
        ours = not row["key"].isascii()
        at = row["created_at"] if ours else accepted_at(row["accept_order"]) or row["created_at"]
        moments.append(TimelineEntry(type="command", at=at, document=told))
        if row["status"] in (Status.SENT, Status.IN_DOUBT) and row["next_attempt_at"] is None:
            under_way = _attempt(row["id"], row["attempts"], "none_yet", row["send_by"], row["deadline"], {})
            first = row["first_sent_at"] if row["attempts"] == 1 else None
            moments.append(TimelineEntry(type="bank_attempt", at=first or row["send_by"], document=under_way))
    return moments


def _journal(rows: Sequence[Row]) -> list[TimelineEntry]:
    """Each transition; where it rests on an attempt at the bank, and not on an operator's word for it, the attempt with
    its evidence right before it."""
    moments = []
    for row in rows:
        evidence = dict(row["evidence"])
        attempt = None if "act" in evidence else evidence.pop("attempt", None)
        if attempt is not None:
            told = _attempt(row["operation"], attempt, _answer(row["event"], evidence), None, None, evidence)
            moments.append(TimelineEntry(type="bank_attempt", at=row["at"], document=told))
        moved: Document = {
            "sequence": row["sequence"],
            "event": row["event"],
            "from": row["from_state"],
            "to": row["to_state"],
            "operation_id": row["operation"],
            "evidence": {} if attempt is not None else evidence,
        }
        moments.append(TimelineEntry(type="transition", at=row["at"], document=moved))
    return moments


def _acts(rows: Sequence[Row]) -> list[TimelineEntry]:
    return [
        TimelineEntry(
            type="operator_act",
            at=row["at"],
            document={
                "act": row["act"],
                "operation_id": row["operation"],
                "actor": row["actor"],
                "reason": row["reason"],
                "result": row["result"],
                "done_at": row["done_at"],
            },
        )
        for row in rows
    ]


def _webhooks(rows: Sequence[Row]) -> list[TimelineEntry]:
    """Each attempt to tell an endpoint of an event."""
    return [
        TimelineEntry(
            type="webhook_attempt",
            at=row["at"],
            document={
                "event": row["event"],
                "event_id": row["event_id"],
                "sequence": row["sequence"],
                "endpoint_id": row["endpoint"],
                "attempt": row["attempt"],
                "outcome": row["outcome"],
                "status": row["status"],
                "error": row["error"],
                "duration_ms": row["duration_ms"],
                "next_attempt_at": row["next_attempt_at"],
            },
        )
        for row in rows
    ]


SOURCES: tuple[Source, ...] = (
    Source(statement="timeline_operations", moments=_commands),
    Source(statement="timeline_journal", moments=_journal),
    Source(statement="timeline_acts", moments=_acts),
    Source(statement="timeline_webhooks", moments=_webhooks),
)
# Of what happened at the same instant, the cause comes first.
_RANK = {
    name: rank for rank, name in enumerate(("command", "bank_attempt", "transition", "operator_act", "webhook_attempt"))
}


def _attempt(
    operation: str, attempt: int, answer: str, send_by: datetime | None, deadline: datetime | None, evidence: Document
) -> Document:
    return {
        "operation_id": operation,
        "attempt": attempt,
        "answer": answer,
        "send_by": send_by,
        "deadline": deadline,
        "evidence": evidence,
    }


def _answer(event: str, evidence: Document) -> str:
    """The bank's word to an attempt, from what the journal kept of it."""
    if "reference" in evidence:
        return "approved"
    return "none" if event in ("in_doubt", "review") else "refused"


def _accepted(snapshot: OpenOperation) -> TimelineEntry:
    """What is accepted and not journaled yet."""
    nothing = dict.fromkeys(("first_sent_at", "doubted_at", "next_attempt_at", "response_status", "settled_at"))
    told: Document = {
        "operation_id": snapshot.operation,
        "verb": snapshot.verb,
        "amount": None,
        "idempotency_key": None,
        "request_id": None,
        "status": Status.ACCEPTED if snapshot.dead_letter is None else Status.REVIEW,
        "attempts": 0,
        **nothing,
    }
    return TimelineEntry(type="command", at=snapshot.accepted_at.astimezone(UTC), document=told)
