"""The log of deliveries, as merchants look into it, and doing deliveries again: one, what failed, or a stretch of time.

A redelivery is the same delivery, due now, with its whole schedule ahead; its attempts are added to the log. The events
keep their ids, so a receiver that has seen one knows it. To send is the dispatcher's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.contracts.webhooks import (
    REDELIVERIES_MAX,
    DeliveryState,
    EndpointStatus,
    KeyedRequest,
    KeyedResponse,
    LogPage,
    Redelivery,
)
from engine.domain.ids import delivery_id, event_of_delivery, is_id
from engine.domain.rendering import render
from engine.errors import FieldError, Rejected
from engine.ledger.transaction import Transaction, Transactions
from engine.pagination import cursor, parts, strange
from engine.webhooks.endpoint import locked, not_found
from engine.webhooks.idempotent_response import IdempotentResponses

_ATTEMPTS_SHOWN = 20  # of a delivery, the newest ones: more than any default schedule has places


class DeliveryLog:
    """Implements Inspecting (webhooks.py)."""

    def __init__(self, transactions: Transactions, answers: IdempotentResponses) -> None:
        self._transactions, self._answers = transactions, answers

    async def of_endpoint(self, merchant: str, endpoint: str, page: LogPage) -> bytes:
        """A page of an endpoint's deliveries, newest first."""
        at, payment, sequence = (None, None, None) if page.cursor is None else _position(page.cursor)
        async with self._transactions.begin() as transaction:
            as_of = await transaction.time()
            await _existing(transaction, merchant, endpoint)
            rows = await transaction.rows(
                "deliveries_of_endpoint",
                False,
                endpoint=endpoint,
                state=page.state,
                before_at=at,
                before_payment=payment,
                before_sequence=sequence,
                limit=page.limit + 1,
                attempts=_ATTEMPTS_SHOWN,
            )
        return _page(rows, page.limit, ("created_at", "payment", "sequence"), as_of)

    async def of_payment(self, merchant: str, payment: str, page: LogPage) -> bytes:
        """A page of a payment's deliveries to all endpoints, newest event first."""
        sequence, endpoint = (None, None) if page.cursor is None else _place(page.cursor)
        async with self._transactions.begin() as transaction:
            as_of = await transaction.time()
            rows = await transaction.rows(
                "deliveries_of_payment",
                merchant=merchant,
                payment=payment,
                before_sequence=sequence,
                before_endpoint=endpoint,
                limit=page.limit + 1,
                attempts=_ATTEMPTS_SHOWN,
            )
        return _page(rows, page.limit, ("sequence", "endpoint"), as_of)

    async def delivery(self, merchant: str, endpoint: str, delivery: str) -> bytes:
        async with self._transactions.begin() as transaction:
            await _existing(transaction, merchant, endpoint)
            return await _rendered(transaction, endpoint, delivery)

    async def redeliver(self, asked: KeyedRequest, endpoint: str, delivery: str) -> KeyedResponse:
        """One delivery, now. Raises Rejected when its endpoint is disabled: it would be given up at once."""

        async def redeliver(transaction: Transaction) -> bytes:
            _refuse_disabled(await locked(transaction, asked.merchant, endpoint))
            payment, sequence = event_of_delivery(delivery) or ("", 0)
            await transaction.do("redeliver_one", payment=payment, endpoint=endpoint, sequence=sequence)
            await transaction.do("announce_deliveries")
            return await _rendered(transaction, endpoint, delivery)

        return await self._answers.once(asked, redeliver)

    async def count_range(self, merchant: str, endpoint: str, wanted: Redelivery) -> bytes:
        """How many a redelivery of this range would be; counted up to one more than may be done at once."""
        async with self._transactions.begin() as transaction:
            await _existing(transaction, merchant, endpoint)
            count = await _redeliver(transaction, endpoint, wanted, dry_run=True)
        return _range_rendered(endpoint, wanted, count, dry_run=True)

    async def redeliver_range(self, asked: KeyedRequest, endpoint: str, wanted: Redelivery) -> KeyedResponse:
        """What failed in a stretch of time, or everything: also what was never sent there, because the endpoint was
        disabled or new. Raises Rejected when that is too much at once; nothing is done then."""

        async def redeliver(transaction: Transaction) -> bytes:
            _refuse_disabled(await locked(transaction, asked.merchant, endpoint))
            count = await _redeliver(transaction, endpoint, wanted, dry_run=False)
            if count > REDELIVERIES_MAX:
                detail = f"must be nearer to `since`: there are more than {REDELIVERIES_MAX} deliveries between them"
                raise Rejected(
                    "validation_failed", f"/until {detail}.", errors=(FieldError(pointer="/until", detail=detail),)
                )
            await transaction.do("announce_deliveries")
            return _range_rendered(endpoint, wanted, count, dry_run=False)

        return await self._answers.once(asked, redeliver)


async def _existing(transaction: Transaction, merchant: str, endpoint: str) -> None:
    if await transaction.row("endpoint_of_merchant", merchant=merchant, id=endpoint) is None:
        raise not_found()


def _refuse_disabled(row: Mapping[str, Any]) -> None:
    if row["status"] != EndpointStatus.ENABLED:
        raise Rejected("webhook_endpoint_disabled", "This webhook endpoint is disabled: enable it first.")


async def _redeliver(transaction: Transaction, endpoint: str, wanted: Redelivery, *, dry_run: bool) -> int:
    # Planned anew each time: stretches of time differ too much for one plan.
    rows = await transaction.rows(
        "redeliver_failed" if wanted.failed_only else "redeliver_all",
        False,
        endpoint=endpoint,
        since=wanted.since,
        until=wanted.until,
        most=REDELIVERIES_MAX + 1,
        dry_run=dry_run,
    )
    return int(rows[0]["count"])


async def _rendered(transaction: Transaction, endpoint: str, delivery: str) -> bytes:
    payment, sequence = event_of_delivery(delivery) or ("", 0)
    row = await transaction.row(
        "delivery", payment=payment, endpoint=endpoint, sequence=sequence, attempts=_ATTEMPTS_SHOWN
    )
    if row is None:
        raise Rejected("not_found", "There is no such delivery to this webhook endpoint.")
    return render(_document(row))


def _range_rendered(endpoint: str, wanted: Redelivery, count: int, *, dry_run: bool) -> bytes:
    return render(
        {
            "object": "webhook_redelivery",
            "endpoint_id": endpoint,
            "deliveries": "failed" if wanted.failed_only else "all",
            "since": wanted.since,
            "until": wanted.until,
            "dry_run": dry_run,
            "count": count,
            "limit": REDELIVERIES_MAX,
        }
    )


def _page(rows: list[dict[str, Any]], limit: int, place: tuple[str, ...], as_of: datetime) -> bytes:
    shown, has_more = rows[:limit], len(rows) > limit
    return render(
        {
            "object": "list",
            "data": [_document(row) for row in shown],
            "has_more": has_more,
            "next_cursor": cursor(*(shown[-1][name] for name in place)) if has_more else None,
            "as_of": as_of,
        }
    )


def _document(row: Mapping[str, Any]) -> dict[str, object]:
    return {
        "object": "webhook_delivery",
        "id": delivery_id(row["payment"], row["sequence"]),
        "endpoint_id": row["endpoint"],
        "event_id": row["event_id"],
        "type": row["type"],
        "payment_id": row["payment"] if is_id(row["payment"], "pay") else None,
        "sequence": row["sequence"],
        "previous_sequence": row["previous_sequence"],
        "status": row["state"],
        "dead_reason": row["dead_reason"],
        "attempt_count": row["attempts"],
        "next_attempt_at": row["due_at"] if row["state"] == DeliveryState.PENDING else None,
        "created_at": row["created_at"],
        "finished_at": row["finished_at"],
        "attempts": [_attempt(attempt) for attempt in row["log"]],
    }


def _attempt(attempt: Mapping[str, Any]) -> dict[str, object]:
    return {
        "attempt": attempt["attempt"],
        "at": datetime.fromisoformat(attempt["at"]).astimezone(UTC),
        "outcome": attempt["outcome"],
        "status": attempt["status"],
        "duration_ms": attempt["duration_ms"],
        "error": attempt["error"],
        "response_body": attempt["body"],
    }


def _position(text: str) -> tuple[datetime, str, int]:
    moment, payment, sequence = parts(text, 3)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        raise strange() from None
    if at.tzinfo is None or event_of_delivery(f"dlv_{payment}_{sequence}") is None:
        raise strange()
    return at, payment, int(sequence)


def _place(text: str) -> tuple[int, str]:
    sequence, endpoint = parts(text, 2)
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 10 and is_id(endpoint, "whe")):
        raise strange()
    return int(sequence), endpoint
