"""What the tests of the FicMart connector ask, and what an honest bank answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson

from engine.contracts.connector import BankRequest
from engine.domain.money import Money
from engine.domain.payment import Card, Verb
from support.raw_bank import http

PAN, CVV = "4111111111111111", "737"
AUTHORIZATION = "auth_0b4c6c0e-6a86-4b5c-9d6e-1f9f0f6a2a11"
CAPTURE = "cap_5f0f3a52-3b0d-4b3a-8a43-6a6f8ddc1f0e"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SUCCESS: dict[Verb, dict[str, object]] = {
    Verb.AUTHORIZE: {
        "amount": 5000,
        "authorization_id": AUTHORIZATION,
        "created_at": "2026-01-01T01:00:00.123456789+01:00",
        "currency": "USD",
        "expires_at": "2026-01-08T00:00:00.5Z",
        "status": "approved",
    },
    Verb.CAPTURE: {
        "amount": 5000,
        "authorization_id": AUTHORIZATION,
        "capture_id": CAPTURE,
        "captured_at": "2026-01-01T00:00:00Z",
        "currency": "USD",
        "status": "captured",
    },
    Verb.VOID: {
        "authorization_id": AUTHORIZATION,
        "status": "voided",
        "void_id": "void_1",
        "voided_at": "2026-01-01T00:00:00Z",
    },
    Verb.REFUND: {
        "amount": 5000,
        "capture_id": CAPTURE,
        "currency": "USD",
        "refund_id": "ref_1",
        "refunded_at": "2026-01-01T00:00:00Z",
        "status": "refunded",
    },
}
REFERENCE = {Verb.AUTHORIZE: None, Verb.CAPTURE: AUTHORIZATION, Verb.VOID: AUTHORIZATION, Verb.REFUND: CAPTURE}
PATH = {
    Verb.AUTHORIZE: "/api/v1/authorizations",
    Verb.CAPTURE: "/api/v1/captures",
    Verb.VOID: "/api/v1/voids",
    Verb.REFUND: "/api/v1/refunds",
}
BODY = orjson.dumps(SUCCESS[Verb.AUTHORIZE])
OK = http(200, BODY)


def now() -> datetime:
    return datetime.now(UTC)


def an_ask(
    verb: Verb = Verb.AUTHORIZE, *, key: str = "op_1", send_by_ms: int = 2_000, deadline_ms: int = 5_000
) -> BankRequest:
    card = Card(number=PAN, cvv=CVV, expiry_month=12, expiry_year=2030)
    return BankRequest(
        bank_key=key,
        verb=verb,
        money=Money(amount=5000, currency="USD"),
        card=card if verb is Verb.AUTHORIZE else None,
        reference=REFERENCE[verb],
        send_by=now() + timedelta(milliseconds=send_by_ms),
        deadline=now() + timedelta(milliseconds=deadline_ms),
        traceparent=TRACE,
    )


def clock_that_jumps_after(calls: int, by: timedelta) -> Callable[[], datetime]:
    """True for so many calls, then late by that much: the process was paused there."""
    asked = 0

    def clock() -> datetime:
        nonlocal asked
        asked += 1
        return now() + (by if asked > calls else timedelta())

    return clock
