"""An authorization past its time expires by itself, its hold given back at the bank, whatever else happens to it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]

HOLD_S = 168 * 3600  # how long the bank holds money
SOON_S = 2
NOTICE_S = 60
DAY_S = 86_400


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """What is too old expires at once, and is announced a minute before."""
    folder, bank_url = tmp_path_factory.mktemp("gateway"), f"http://127.0.0.1:{calm_bank.port}"
    environ = {"PENSTOCK_EXPIRY_GRACE_S": "0", "PENSTOCK_EXPIRY_NOTICE_S": str(NOTICE_S)}
    with a_gateway(module_database, module_redis_url, bank_url, folder, **environ) as running:
        yield running


def test_it_expires_by_itself_and_a_capture_is_a_stable_409(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = authorized(gateway, bank, card, expires_in_s=SOON_S)
    assert gateway.get(payment)["status"] == "authorized"

    shown = eventually(lambda: with_status(gateway, payment, "expired"), "it is expired")
    first = gateway.post(f"/v1/payments/{payment}/capture", key=f"late-{payment}", wait=10)
    again = gateway.post(f"/v1/payments/{payment}/capture", key=f"late-{payment}", wait=10)

    assert effects(bank, card) == ["AUTH_HOLD", "VOID"]
    assert bank.balances(card)[0] == bank.balances(card)[1]
    assert (shown["bank"]["void_id"], shown["failure"]["code"]) == (_void_id(bank, card), "authorization_expired")
    assert shown["expired_at"] > shown["expires_at"]
    assert (first.status_code, first.json()["code"]) == (409, "authorization_expired")
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert events(gateway, payment) == ["created", "authorized", "expiring", "expired"]
    gateway.settled()


def test_it_is_announced_once_and_the_feed_has_it(gateway: Gateway, bank: Bank) -> None:
    payment = authorized(gateway, bank, next(fresh_cards), expires_in_s=NOTICE_S + 2)
    before = events(gateway, payment)

    told = eventually(lambda: of_type(gateway, payment, "payment.expiring"), "it is told", 15)
    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    assert before == ["created", "authorized"]
    [event] = told
    assert (event["data"]["status"], event["sequence"]) == ("authorized", 3)
    assert event["data"]["expires_at"] > event["timestamp"]
    assert captured.json()["status"] == "captured"
    assert events(gateway, payment) == ["created", "authorized", "expiring", "captured"]


def test_a_capture_behind_the_expiry_finds_it_expired_and_asks_nothing(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    bank.fault("latency", operation="void", card_number=card, latency_ms=1000)
    payment = authorized(gateway, bank, card, expires_in_s=1)
    eventually(lambda: gateway.get(payment)["operation"]["verb"] == "void", "its hold is being given back")

    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    assert (captured.status_code, captured.json()["code"]) == (409, "authorization_expired")
    assert gateway.sql("SELECT attempts FROM operations WHERE payment = %s AND verb = 'capture'", payment) == [(0,)]
    assert effects(bank, card) == ["AUTH_HOLD", "VOID"]


def test_an_expiry_behind_a_capture_leaves_it_captured(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = authorized(gateway, bank, card, expires_in_s=SOON_S)
    bank.fault("clock_offset", operation="capture", card_number=card, clock_offset_s=-DAY_S)
    bank.fault("latency", operation="capture", card_number=card, latency_ms=SOON_S * 1000)

    captured = gateway.post(f"/v1/payments/{payment}/capture", wait=10)
    eventually(lambda: gateway.backlog() == 0, "nothing is left")

    assert captured.json()["captured_at"] > captured.json()["expires_at"]
    assert gateway.get(payment)["status"] == "captured"
    assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE"]


def test_capture_and_expiry_race_and_either_wins_and_never_both(gateway: Gateway, bank: Bank) -> None:
    cards = [next(fresh_cards) for _ in range(40)]
    payments = [authorized(gateway, bank, card, expires_in_s=SOON_S) for card in cards]
    draw = random.Random(0)

    def capture(payment: str) -> httpx.Response:
        expires_at = datetime.fromisoformat(gateway.get(payment)["expires_at"]).timestamp()
        time.sleep(max(expires_at - time.time() + draw.uniform(-0.2, 0.2), 0))
        return gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    with ThreadPoolExecutor(20) as shops:
        answers = list(shops.map(capture, payments))
    gateway.settled()

    ends = {200: ("captured", ["AUTH_HOLD", "CAPTURE"]), 409: ("expired", ["AUTH_HOLD", "VOID"])}
    for payment, card, answer in zip(payments, cards, answers, strict=True):
        assert (gateway.get(payment)["status"], effects(bank, card)) == ends[answer.status_code]


def authorized(gateway: Gateway, bank: Bank, card: str, *, expires_in_s: int) -> str:
    """A payment whose hold ends so soon, by the bank's word."""
    bank.fault("clock_offset", operation="authorize", card_number=card, clock_offset_s=expires_in_s - HOLD_S, times=1)
    return str(gateway.pay(card, wait=10).json()["id"])


def with_status(gateway: Gateway, payment: str, status: str) -> dict[str, Any] | None:
    shown = gateway.get(payment)
    return shown if shown["status"] == status else None


def of_type(gateway: Gateway, payment: str, type: str) -> list[dict[str, Any]]:
    """From the feed; it holds events back while an older transaction is under way."""
    page = gateway.request("GET", f"/v1/events?type={type}&limit=100").json()
    return [event for event in page["data"] if event["data"]["id"] == payment]


def events(gateway: Gateway, payment: str) -> list[str]:
    rows = gateway.sql("SELECT event FROM transitions WHERE payment = %s ORDER BY sequence", payment)
    return [event for (event,) in rows]


def _rows(bank: Bank, card: str) -> list[tuple[str, str]]:
    statement = """SELECT t.type, t.id::text FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.reference_id NULLS FIRST, t.created_at"""
    return [(kind, number) for kind, number in bank.sql(statement, card)]


def effects(bank: Bank, card: str) -> list[str]:
    return [kind for kind, _ in _rows(bank, card)]


def _void_id(bank: Bank, card: str) -> str:
    return f"void_{dict(_rows(bank, card))['VOID']}"
