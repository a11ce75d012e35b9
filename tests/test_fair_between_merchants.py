"""One merchant's flood is its own: it keeps nobody out and lets nobody wait behind it, and what was taken is done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import httpx
import pytest

from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, a_payment

pytest_plugins = ["support.bank_fixtures"]

CARD = "4111111111111111"
FLOOD = 500
FEW = 6


def pay(gateway: Gateway, merchant: str, card: str, key: str, wait: int = 0) -> httpx.Response:
    headers = {"X-API-Key": f"sk_local_{merchant}", "Idempotency-Key": key}
    if wait:
        headers["Prefer"] = f"wait={wait}"
    return gateway.request("POST", "/v1/payments", json=a_payment(card, amount=100), headers=headers)


@pytest.fixture
def leisurely_bank(bank: Bank) -> Iterator[Bank]:
    """Each answer takes a while."""
    weather = {"failure_rate": 0.0, "min_latency_ms": 50, "max_latency_ms": 50}
    bank.http.put("/control/chaos", json=weather)
    yield bank
    bank.http.put("/control/chaos", json={**weather, "min_latency_ms": 0, "max_latency_ms": 0})


def test_a_small_merchant_does_not_wait_behind_a_flood(
    database: str, redis_url: str, leisurely_bank: Bank, tmp_path: Path
) -> None:
    cards = [next(fresh_cards) for _ in range(20)]
    few_places = {"PENSTOCK_BANK_CONNECTIONS": "8"}
    with a_gateway(database, redis_url, f"http://127.0.0.1:{leisurely_bank.port}", tmp_path, **few_places) as gateway:
        with ThreadPoolExecutor(8) as pool:
            flood = list(
                pool.map(lambda number: pay(gateway, "merchant", cards[number % 20], f"f-{number}"), range(FLOOD))
            )
        few = [pay(gateway, "other", cards[0], f"few-{number}", wait=20) for number in range(FEW)]
        still_open = gateway.backlog()
        gateway.settled()
        waits = gateway.sql(
            """SELECT p.merchant, extract(epoch FROM o.settled_at - p.created_at)::float
               FROM payments p JOIN operations o ON o.payment = p.id"""
        )

    flooded = median(seconds for merchant, seconds in waits if merchant == "mer_local")
    slowest = max(seconds for merchant, seconds in waits if merchant != "mer_local")
    assert {answer.status_code for answer in flood} == {202}
    assert {answer.status_code for answer in few} == {201}
    assert still_open > FLOOD / 10, "the flood was still there"
    assert slowest < flooded / 4, f"{slowest:.2f} s against {flooded:.2f} s"


def test_a_merchant_fills_its_share_and_no_more_and_all_that_was_taken_is_done(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_MERCHANT_BACKLOG_MAX": "2", "PENSTOCK_BACKLOG_MAX": "3"}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, **environ) as gateway:
        flood = {f"f-{number}": pay(gateway, "merchant", CARD, f"f-{number}") for number in range(250)}
        taken = [key for key, answer in flood.items() if answer.status_code == 202]
        refused = [answer for answer in flood.values() if answer.status_code != 202]
        again = [pay(gateway, "merchant", CARD, key) for key in taken]
        others = [pay(gateway, "other", CARD, f"o-{number}") for number in range(250)]
        gateway.start("worker")
        gateway.settled()
        afterwards = pay(gateway, "merchant", CARD, next(key for key in flood if key not in taken), wait=10)
        answered = [pay(gateway, "merchant", CARD, key).status_code for key in taken]

    assert len(taken) == 2 * 16
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "rate_limited")}
    assert {answer.status_code for answer in again} == {202}
    assert {(answer.status_code, answer.json().get("code")) for answer in others} == {(202, None), (503, "overloaded")}
    assert sum(answer.status_code == 202 for answer in others) == 16
    assert {"retry-after"} <= {name for answer in (*refused, *others) for name in answer.headers}
    assert afterwards.status_code == 201
    assert set(answered) == {201}
